"""From a trained model to a float .tflite: the only door to TensorFlow, and only inside a child process."""

from edgepack.convert.api import convert
from edgepack.convert.model import ConvertOptions, FloatModel

__all__ = ["ConvertOptions", "FloatModel", "convert"]
