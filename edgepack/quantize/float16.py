"""Scheme float16: store a float model's constants in half precision, with DEQUANTIZE ops back to float32.

TFLiteConverter writes the same layout for `supported_types = [tf.float16]`. The GPU delegate and XNNPACK recognize it
and fold the DEQUANTIZE ops away.
"""

import numpy as np

from edgepack.graph import read_model
from edgepack.graph.edit import add_buffer, empty_unused, op_code, pack, unpack
from edgepack.graph.model import Graph
from edgepack.graph.read import schema

#: Largest finite float16.
_LARGEST = 65504.0


def halved_constants(graph: Graph) -> tuple[int, ...]:
    """Return the tensors to store in half precision: float32 constants of more than one value that an op reads.

    A constant with a value outside the range of float16 stays float32.
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
    halved = halved_constants(source.main)
    model = unpack(tflite)
    graph = model.subgraphs[0]
    code = op_code(model, "DEQUANTIZE", version=3)
    buffers: dict[int, int] = {}
    dequantize = []
    for index in halved:
        wide = graph.tensors[index]
        if wide.buffer not in buffers:
            values = np.ascontiguousarray(source.main.tensors[index].data, "<f4").astype("<f2")
            buffers[wide.buffer] = add_buffer(model, values)
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
    empty_unused(model)
    return pack(model)
