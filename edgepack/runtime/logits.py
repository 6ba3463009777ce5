"""Logits of a model: the tensors before its last SOFTMAX or LOGISTIC.

Probabilities hide most quantization errors: the largest saturates near 1, and the others are below half an int8 step.
"""

import numpy as np

from edgepack.graph import Graph, read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.op_layout import TYPE_CONVERSIONS

#: Ops that map logits to probabilities without changing their order.
_SQUASHING = frozenset({"LOGISTIC", "LOG_SOFTMAX", "SOFTMAX"})


def logit_tensors(graph: Graph) -> tuple[int, ...]:
    """Return the tensor before the SOFTMAX or LOGISTIC of each output of a graph, the output itself without one."""
    return tuple(_before(graph, index) for index in graph.outputs)


def expose_logits(tflite: bytes) -> bytes:
    """Return the model with the logits of `logit_tensors` as its outputs, under the outputs' names in the signatures.

    For measurements only; a model that ends in neither SOFTMAX nor LOGISTIC is returned unchanged.
    """
    graph = read_model(tflite).main
    logits = logit_tensors(graph)
    if logits == graph.outputs:
        return tflite
    moved = dict(zip(graph.outputs, logits, strict=True))
    model = unpack(tflite)
    model.subgraphs[0].outputs = np.array(logits, np.int32)
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in signature.outputs:
                entry.tensorIndex = moved.get(int(entry.tensorIndex), int(entry.tensorIndex))
    return pack(model)


def with_logits(tflite: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Return the model with its logits as further outputs, and the position of each output's logits among the outputs.

    For measurements only. The logits of an output that is no probability are the output itself.
    """
    graph = read_model(tflite).main
    outputs = list(graph.outputs)
    positions = []
    for index in logit_tensors(graph):
        if index not in outputs:
            outputs.append(index)
        positions.append(outputs.index(index))
    if len(outputs) == len(graph.outputs):
        return tflite, tuple(positions)
    model = unpack(tflite)
    model.subgraphs[0].outputs = np.array(outputs, np.int32)
    return pack(model), tuple(positions)


def _before(graph: Graph, index: int) -> int:
    tensor = index
    while (producer := graph.producers.get(tensor)) is not None:
        op = graph.ops[producer]
        if op.name in _SQUASHING:
            return op.inputs[0]
        if op.name not in TYPE_CONVERSIONS:
            break
        tensor = op.inputs[0]
    return index
