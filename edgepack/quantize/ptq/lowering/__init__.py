"""Float .tflite graphs in TensorFlow, for gradients and training: each op by a function of a table.

Importing this package does not import TensorFlow; creating a `LoweredModel` does.
"""

from edgepack.quantize.ptq.lowering.model import LoweredModel

__all__ = ["LoweredModel"]
