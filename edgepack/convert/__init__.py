"""Conversion of a trained model to a float .tflite. TensorFlow is imported only in a child process."""

from edgepack.convert.api import convert
from edgepack.convert.model import ConvertOptions, FloatModel

__all__ = ["ConvertOptions", "FloatModel", "convert"]
