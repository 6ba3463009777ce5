"""Logits of a model: the tensors before its last SOFTMAX or LOGISTIC.

Probabilities hide most quantization errors: the largest saturates near 1, and the others are below half an int8 step.

Ops behind the SOFTMAX or LOGISTIC that only move values, such as the RESHAPE of a detector's head, are followed: an
edited copy of the model moves the logits in the same way, so that they have the shape of the output.
"""

import copy
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import op_code, pack, unpack
from edgepack.graph.op_layout import MOVEMENT_OPS, TYPE_CONVERSIONS
from edgepack.graph.read import schema
from edgepack.graph.variant import remember_variant

#: Ops that map logits to probabilities without changing their order.
_SQUASHING = frozenset({"LOGISTIC", "LOG_SOFTMAX", "SOFTMAX"})


def logit_tensors(graph: Graph) -> tuple[int, ...]:
    """Return the tensors before the SOFTMAX or LOGISTIC of each output of a graph, the output itself without one.

    An output that joins the results of several has several; each tensor is returned once.
    """
    return tuple(dict.fromkeys(source for index in graph.outputs for source in _sources(graph, index) or (index,)))


def exposed_tensors(graph: Graph) -> list[int | None]:
    """Return the tensor whose values `expose_logits` gives for each output; None where they are moved first."""
    return [_logits_before(graph, index) if _sources(graph, index) else index for index in graph.outputs]


def expose_logits(tflite: bytes) -> bytes:
    """Return the model with the logits of its outputs as outputs, under the outputs' names in the signatures.

    For measurements only; a model that ends in neither SOFTMAX nor LOGISTIC is returned unchanged.
    """
    graph = read_model(tflite).main
    if not any(_sources(graph, index) for index in graph.outputs):
        return tflite
    replaced = _with_outputs_replaced(tflite, graph)
    if replaced is not None:
        return replaced
    model = unpack(tflite)
    logits = _Copy(model, graph).logits()
    moved = dict(zip(graph.outputs, logits, strict=True))
    model.subgraphs[0].outputs = np.array(logits, np.int32)
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in signature.outputs:
                entry.tensorIndex = moved.get(int(entry.tensorIndex), int(entry.tensorIndex))
    return pack(model)


def _with_outputs_replaced(tflite: bytes, graph: Graph) -> bytes | None:
    """Return the file with other numbers in its list of outputs; None where logits are no tensors of it.

    A search measures dozens of files, and reading and writing a whole one takes as long as measuring it.
    """
    logits = exposed_tensors(graph)
    root = schema().Model.GetRootAs(tflite, 0)
    listed = root.Subgraphs(0).OutputsAsNumpy()
    moved = {index: other for index, other in zip(graph.outputs, logits, strict=True) if other is not None}
    if None in logits or len(listed) != len(logits):
        return None
    edited = bytearray(tflite)
    start = listed.__array_interface__["data"][0] - np.frombuffer(tflite, np.uint8).__array_interface__["data"][0]
    edited[start : start + listed.nbytes] = np.array(logits, "<i4").tobytes()
    for signature in (root.SignatureDefs(i) for i in range(root.SignatureDefsLength())):
        entries = signature.OutputsLength() if signature.SubgraphIndex() == 0 else 0
        for entry in (signature.Outputs(i) for i in range(entries)):
            index = moved.get(entry.TensorIndex())
            # The second field of the table, which does not store its default, 0.
            place = entry._tab.Offset(6)
            if index is not None and not place:
                return None
            if index is not None:
                struct.pack_into("<I", edited, entry._tab.Pos + place, index)
    if _is_shared(root.Subgraphs(0), listed):
        return None
    result = bytes(edited)
    remember_variant(result, tflite, moved)
    return result


def _is_shared(graph: Any, outputs: npt.NDArray[np.int32]) -> bool:
    """Return whether another list of a subgraph is stored in the same place: nothing forbids to write equal ones once.

    Args:
        graph: The subgraph in the schema's classes.
        outputs: Its list of outputs, a view on the file.
    """
    ops = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    lists = [graph.InputsAsNumpy(), *(one for op in ops for one in (op.InputsAsNumpy(), op.OutputsAsNumpy()))]
    # A list that the file does not have is 0.
    return any(isinstance(one, np.ndarray) and np.may_share_memory(one, outputs) for one in lists)


def _logits_before(graph: Graph, index: int) -> int | None:
    """Return the logits of an output that nothing has moved."""
    op = graph.ops[graph.producers[index]]
    while op.name in TYPE_CONVERSIONS:
        op = graph.ops[graph.producers[op.inputs[0]]]
    return op.inputs[0] if op.name in _SQUASHING else None


def with_logits(tflite: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Return the model with its logits as further outputs, and the position of each output's logits among the outputs.

    For measurements only. The logits of an output that is no probability are the output itself.
    """
    graph = read_model(tflite).main
    outputs = list(graph.outputs)
    if not any(_sources(graph, index) for index in outputs):
        return tflite, tuple(outputs.index(index) for index in graph.outputs)
    model = unpack(tflite)
    positions = []
    for index in _Copy(model, graph).logits():
        if index not in outputs:
            outputs.append(index)
        positions.append(outputs.index(index))
    model.subgraphs[0].outputs = np.array(outputs, np.int32)
    return pack(model), tuple(positions)


def _sources(graph: Graph, index: int) -> tuple[int, ...]:
    """Return the tensors before the SOFTMAX or LOGISTIC ops that all of a tensor's values come from; empty otherwise.

    Only ops that move values may lie between.
    """
    found: set[int] = set()
    pending = [index]
    visited = {index}
    while pending:
        producer = graph.producers.get(pending.pop())
        if producer is None:
            return ()
        op = graph.ops[producer]
        if op.name in _SQUASHING:
            found.add(op.inputs[0])
            continue
        moved = list(_moved(op))
        if not moved:
            return ()
        pending += [tensor for tensor in moved if tensor not in visited]
        visited.update(moved)
    return tuple(sorted(found))


def _moved(op: Op) -> Iterator[int]:
    """Yield the tensors whose values an op moves; none for an op that computes."""
    if op.name in TYPE_CONVERSIONS:
        yield op.inputs[0]
    elif op.name in MOVEMENT_OPS:
        position = MOVEMENT_OPS[op.name]
        yield from op.inputs if position is None else (op.inputs[position],)


class _Copy:
    """Adds to a `ModelT` what moves its logits as the probabilities are moved."""

    def __init__(self, model: Any, graph: Graph) -> None:
        self._model, self._file, self._graph = model, model.subgraphs[0], graph
        self._twins: dict[int, int] = {}

    def logits(self) -> list[int]:
        """Return the tensor of each output's logits, the output itself without one."""
        outputs = zip(self._graph.outputs, exposed_tensors(self._graph), strict=True)
        return [self._twin(index) if exposed is None else exposed for index, exposed in outputs]

    def _twin(self, index: int) -> int:
        """Return the float32 tensor that has logits where this one has probabilities."""
        if index in self._twins:
            return self._twins[index]
        op = self._graph.ops[self._graph.producers[index]]
        if op.name in TYPE_CONVERSIONS:
            self._twins[index] = self._twin(op.inputs[0])
        elif op.name in _SQUASHING:
            self._twins[index] = self._real(op.inputs[0])
        else:
            twins = {tensor: self._twin(tensor) for tensor in _moved(op)}
            added = copy.copy(self._file.operators[op.index])
            added.inputs = np.array([twins.get(tensor, tensor) for tensor in op.inputs], np.int32)
            added.outputs = np.array([self._float_like(tensor) for tensor in op.outputs], np.int32)
            self._file.operators.append(added)
            self._twins.update(zip(op.outputs, map(int, added.outputs), strict=True))
        return self._twins[index]

    def _real(self, index: int) -> int:
        """Return the real values of a tensor: itself where it is float32."""
        if self._graph.tensors[index].quantization is None:
            return index
        added = schema().OperatorT()
        added.opcodeIndex = op_code(self._model, "DEQUANTIZE", 2)
        real = self._float_like(index)
        added.inputs, added.outputs = np.array([index], np.int32), np.array([real], np.int32)
        self._file.operators.append(added)
        return real

    def _float_like(self, index: int) -> int:
        """Add a float32 tensor of the same shape."""
        tensor = copy.copy(self._file.tensors[index])
        tensor.name = (tensor.name or b"") + b"/logits"
        tensor.type, tensor.quantization, tensor.buffer = schema().TensorType.FLOAT32, None, 0
        self._file.tensors.append(tensor)
        return len(self._file.tensors) - 1
