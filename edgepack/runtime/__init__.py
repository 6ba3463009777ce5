"""Run a .tflite on this machine, and say how far two of them are apart. Needs no TensorFlow."""

from edgepack.runtime.metrics import Accuracy, Quality, QualityMeter
from edgepack.runtime.runner import Runner, TensorInfo, dequantize, quantize

__all__ = ["Accuracy", "Quality", "QualityMeter", "Runner", "TensorInfo", "dequantize", "quantize"]
