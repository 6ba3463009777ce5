"""See what a model computes before its last SOFTMAX or LOGISTIC.

Probabilities say little about quantization: the winner's saturates near 1 and the rest lie below half an int8 step.
"""

import numpy as np

from edgepack.graph import Graph, read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.op_layout import TYPE_CONVERSIONS

#: Ops that squash scores into probabilities without changing their order.
_SQUASHING = frozenset({"LOGISTIC", "LOG_SOFTMAX", "SOFTMAX"})


def logit_tensors(graph: Graph) -> tuple[int, ...]:
    """Return, for each output of a graph, the tensor before its SOFTMAX or LOGISTIC; the output where there is none."""
    return tuple(_before(graph, index) for index in graph.outputs)


def expose_logits(tflite: bytes) -> bytes:
    """Return the model with the logits of `logit_tensors` as its outputs, under the outputs' names in the signatures.

    For measuring only; a model that ends in neither SOFTMAX nor LOGISTIC comes back unchanged.
    """
    graph = read_model(tflite).main
    found = logit_tensors(graph)
    if found == graph.outputs:
        return tflite
    moved = dict(zip(graph.outputs, found, strict=True))
    model = unpack(tflite)
    model.subgraphs[0].outputs = np.array(found, np.int32)
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in signature.outputs:
                entry.tensorIndex = moved.get(int(entry.tensorIndex), int(entry.tensorIndex))
    return pack(model)


def with_logits(tflite: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Return the model with its logits as further outputs, and where each output's logits stand among the outputs.

    For measuring only. An output that is no probability is its own logits, at its own place.
    """
    graph = read_model(tflite).main
    outputs = list(graph.outputs)
    places = []
    for index in logit_tensors(graph):
        if index not in outputs:
            outputs.append(index)
        places.append(outputs.index(index))
    if len(outputs) == len(graph.outputs):
        return tflite, tuple(places)
    model = unpack(tflite)
    model.subgraphs[0].outputs = np.array(outputs, np.int32)
    return pack(model), tuple(places)


def _before(graph: Graph, index: int) -> int:
    place = index
    while (made := graph.producers.get(place)) is not None:
        op = graph.ops[made]
        if op.name in _SQUASHING:
            return op.inputs[0]
        if op.name not in TYPE_CONVERSIONS:
            break
        place = op.inputs[0]
    return index
