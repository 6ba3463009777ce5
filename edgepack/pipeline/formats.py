"""Which scheme a file already has."""

from edgepack.graph import Model

#: Ops between one type and another.
_STEPS = frozenset({"QUANTIZE", "DEQUANTIZE"})


def scheme_of(model: Model) -> str:
    """Return the scheme id that a .tflite has, `float32` for one that nobody quantized."""
    if model.is_float:
        return "float32"
    graph = model.main
    computed = {graph.tensors[i].dtype for op in graph.ops if op.name not in _STEPS for i in op.outputs if i >= 0}
    # int8 with single ops in int16 is int8.
    if "INT16" in computed and not computed & {"INT8", "UINT8"}:
        return "int16x8"
    if model.is_quantized:
        return "int8"
    if any(t.dtype == "FLOAT16" and t.is_constant for t in graph.tensors):
        return "float16"
    return "dynamic-range"
