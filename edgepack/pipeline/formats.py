"""Which scheme a file already has."""

from edgepack.graph import Model


def scheme_of(model: Model) -> str:
    """Return the scheme id that a .tflite has, `float32` for one that nobody quantized."""
    if model.is_float:
        return "float32"
    graph = model.main
    if any(t.dtype == "INT16" and t.quantization is not None and not t.is_constant for t in graph.tensors):
        return "int16x8"
    if model.is_quantized:
        return "int8"
    if any(t.dtype == "FLOAT16" and t.is_constant for t in graph.tensors):
        return "float16"
    return "dynamic-range"
