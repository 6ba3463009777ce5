"""Run .tflite files on this machine and measure how much two of them differ, without TensorFlow."""

from edgepack.runtime.metrics import Accuracy, Quality, QualityMeter
from edgepack.runtime.runner import Runner, TensorInfo, dequantize, quantize

__all__ = ["Accuracy", "Quality", "QualityMeter", "Runner", "TensorInfo", "dequantize", "quantize"]
