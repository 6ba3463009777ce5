"""Dynamic range for LSTM ops: weights in int8, activations in float, which ai-edge-quantizer leaves out."""

import numpy as np

from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import add_buffer, empty_unused, pack, unpack
from edgepack.graph.read import schema
from edgepack.quantize.op_support import DYNAMIC_MIN_ELEMENTS

#: Input positions of the weights: of the input and of the output state, by gate. A hybrid kernel requires that all have
#: the same type (tensorflow/lite/kernels/unidirectional_sequence_lstm.cc).
_WEIGHTS = range(1, 9)

#: Positions of further weights (peepholes, projection, layer normalization), which a plain LSTM does not have.
_FURTHER = (9, 10, 11, 16, 17, 20, 21, 22, 23)


def hybrid_weights(graph: Graph, op: Op) -> tuple[int, ...]:
    """Return the tensors of an op that become int8 under dynamic range, empty when none do.

    These are the weights of an LSTM without peepholes, projection and layer normalization that has at least
    `DYNAMIC_MIN_ELEMENTS` of them, counted over the op because they change type together.
    """
    if op.name != "UNIDIRECTIONAL_SEQUENCE_LSTM" or any(op.inputs[i] >= 0 for i in _FURTHER if i < len(op.inputs)):
        return ()
    indices = tuple(dict.fromkeys(op.inputs[place] for place in _WEIGHTS if op.inputs[place] >= 0))
    tensors = [graph.tensors[index] for index in indices]
    plain = all(t.is_constant and t.dtype == "FLOAT32" and graph.consumers[t.index] == (op.index,) for t in tensors)
    count = sum(tensor.elements for tensor in tensors)
    return indices if plain and count >= DYNAMIC_MIN_ELEMENTS else ()


def to_hybrid(tflite: bytes) -> bytes:
    """Return the file with the weights of `hybrid_weights` in int8, symmetric, one scale per tensor."""
    graph = read_model(tflite).main
    indices = [index for op in graph.ops for index in hybrid_weights(graph, op)]
    if not indices:
        return tflite
    model = unpack(tflite)
    for index in indices:
        values = graph.tensors[index].data
        assert values is not None
        # A matrix of zeros has no scale of its own.
        scale = float(np.abs(values).max()) / 127 or 1.0
        tensor = model.subgraphs[0].tensors[index]
        tensor.type = schema().TensorType.INT8
        tensor.buffer = add_buffer(model, np.clip(np.rint(values / scale), -127, 127).astype(np.int8))
        tensor.quantization = schema().QuantizationParametersT()
        tensor.quantization.scale = np.array([scale], np.float32)
        tensor.quantization.zeroPoint = np.array([0], np.int64)
    empty_unused(model)
    return pack(model)
