"""A .tflite as plain data: reading, inspecting and editing files without TensorFlow."""

from edgepack.graph.model import FLOAT_DTYPES, NUMPY_DTYPES, Graph, Model, Op, Quantization, Signature, Tensor
from edgepack.graph.read import read_bytes, read_model

__all__ = [
    "FLOAT_DTYPES",
    "NUMPY_DTYPES",
    "Graph",
    "Model",
    "Op",
    "Quantization",
    "Signature",
    "Tensor",
    "read_bytes",
    "read_model",
]
