"""Store a float model's constants in half precision; DEQUANTIZE ops widen them when the model is loaded.

The layout is the one TFLiteConverter writes for `supported_types = [tf.float16]`, which the GPU delegate and XNNPACK
know: both fold the DEQUANTIZE ops away.
"""

from typing import Any

import numpy as np

from edgepack.graph import read_model
from edgepack.graph.edit import builtin_code, pack, unpack
from edgepack.graph.model import Graph
from edgepack.graph.read import schema

#: Largest finite float16.
_LARGEST = 65504.0


def halved_constants(graph: Graph) -> tuple[int, ...]:
    """Return the tensors that go to half precision: float32 constants of more than one value that an op reads.

    A constant with a value beyond float16's range stays as it is.
    """
    return tuple(
        tensor.index
        for tensor in graph.tensors
        if tensor.dtype == "FLOAT32"
        and tensor.data is not None
        and tensor.elements > 1
        and tensor.index in graph.consumers
        and tensor.index not in graph.outputs
        and float(np.max(np.abs(tensor.data))) <= _LARGEST
    )


def to_float16(tflite: bytes) -> bytes:
    """Return the model with its constants in half precision; inputs, outputs and arithmetic stay float32."""
    source = read_model(tflite)
    chosen = halved_constants(source.main)
    model = unpack(tflite)
    graph = model.subgraphs[0]
    code = len(model.operatorCodes)
    model.operatorCodes.append(_dequantize_code())
    buffers: dict[int, int] = {}
    dequantize = []
    for index in chosen:
        wide = graph.tensors[index]
        if wide.buffer not in buffers:
            buffers[wide.buffer] = len(model.buffers)
            model.buffers.append(_half_buffer(source.main.tensors[index].data))
        half = schema().TensorT()
        half.name, half.shape, half.type = wide.name, wide.shape, schema().TensorType.FLOAT16
        half.buffer, half.hasRank = buffers[wide.buffer], wide.hasRank
        wide.name = (wide.name or b"") + b"_dequantize"
        wide.buffer = 0
        graph.tensors.append(half)
        op = schema().OperatorT()
        op.opcodeIndex = code
        op.inputs, op.outputs = np.array([len(graph.tensors) - 1], np.int32), np.array([index], np.int32)
        dequantize.append(op)
    graph.operators = [*dequantize, *graph.operators]
    _empty_unused(model)
    return pack(model)


def _dequantize_code() -> Any:
    code = schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin_code("DEQUANTIZE")
    code.version = 3
    return code


def _half_buffer(values: Any) -> Any:
    buffer = schema().BufferT()
    buffer.data = np.ascontiguousarray(values, "<f4").astype("<f2").reshape(-1).view(np.uint8)
    return buffer


def _empty_unused(model: Any) -> None:
    """Drop the contents of buffers that no tensor and no metadata names any more; their numbers stay."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    used |= {int(index) for index in (model.metadataBuffer if model.metadataBuffer is not None else ())}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
