"""Float16 weights as float32: the same model without DEQUANTIZE and DENSIFY ops on constants.

Published models store weights in half precision, which halves the download: a float16 constant and a DEQUANTIZE op
that every runtime folds (TFLiteConverter with `supported_types = [tf.float16]`). Every float16 value is a float32
value, so widening loses nothing, and the result can be quantized like any other float model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgepack.graph.edit import add_buffer, pack, unpack
from edgepack.graph.model import NUMPY_DTYPES, Graph, Model, Op
from edgepack.graph.read import read_model, schema
from edgepack.graph.sparse import dense_values
from edgepack.graph.unused import drop_unused

#: Ops that only move values: in half precision and in float32 they give the same values.
_MOVING = frozenset(
    {
        "BROADCAST_TO", "CONCATENATION", "EXPAND_DIMS", "GATHER", "GATHER_ND", "PACK", "RESHAPE", "SLICE", "SPLIT",
        "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
    }
)  # fmt: skip


def widen(tflite: bytes, source: Model | None = None) -> tuple[bytes, tuple[str, ...]]:
    """Return a file with its float16 constants in float32 and its sparse constants dense, and a note for each change.

    A file that stays quantized for another reason (int8 weights, integer activations), or that computes in float16, is
    returned unchanged.

    Args:
        tflite: The file.
        source: The result of `read_model` for the file, if the caller has it.

    Raises:
        ModelFileError: A sparse constant contradicts its shape.
    """
    source = source or read_model(tflite)
    plans = {number: _Plan(graph) for number, graph in enumerate(source.graphs)}
    if not any(plan.folded for plan in plans.values()):
        return tflite, ()
    file = unpack(tflite)
    half = sparse = 0
    for number, plan in plans.items():
        if plan.folded:
            widened, densified = _apply(file, number, plan)
            half, sparse = half + widened, sparse + densified
    data = pack(file)
    if not read_model(data).is_float:
        return tflite, ()
    notes = []
    if half:
        notes.append(f"{half} constants in float16 became float32, which changes no value")
    if sparse:
        notes.append(f"{sparse} sparse constants became dense, which changes no value")
    return data, tuple(notes)


class _Plan:
    """What is widened in one graph.

    Attributes:
        graph: The graph.
        half: float16 tensors that become float32.
        dense: Sparse constants that become dense.
        folded: Ops that only convert, which disappear.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.half = self._widened()
        self.folded = {op.index for op in graph.ops if self._is_folded(op)}
        self.dense = {
            op.inputs[0] for op in graph.ops if op.index in self.folded and graph.tensors[op.inputs[0]].has_sparsity
        }

    def _widened(self) -> set[int]:
        """Return the float16 tensors between constants and conversions to float32, without those that ops compute."""
        graph = self.graph
        half = {tensor.index for tensor in graph.tensors if tensor.dtype == "FLOAT16"}
        half -= {*graph.inputs, *graph.outputs}
        half -= {t for t in half if graph.tensors[t].is_variable}
        half -= {t for t in half if not graph.tensors[t].is_constant and t not in graph.producers}
        while True:
            kept = {t for t in half if self._can_widen(t, half)}
            if kept == half:
                return half
            half = kept

    def _can_widen(self, tensor: int, half: set[int]) -> bool:
        graph = self.graph
        producer = graph.producers.get(tensor)
        ops = [graph.ops[i] for i in graph.consumers.get(tensor, ())]
        if producer is not None:
            ops.append(graph.ops[producer])
        return all(_converts(graph, op) or self._moves(op, half) for op in ops)

    def _moves(self, op: Op, half: set[int]) -> bool:
        """Return whether an op moves values, and all float16 tensors that it touches are widened."""
        touched = {t for t in (*op.inputs, *op.outputs) if t >= 0 and self.graph.tensors[t].dtype == "FLOAT16"}
        return op.name in {*_MOVING, "DENSIFY"} and touched <= half

    def _is_folded(self, op: Op) -> bool:
        """Return whether an op disappears: from a widened tensor to float32, or from a sparse float constant."""
        source = op.inputs[0] if op.inputs else -1
        if source < 0 or len(op.outputs) != 1 or op.outputs[0] < 0:
            return False
        tensor = self.graph.tensors[source]
        if op.name == "DENSIFY":
            result = self.graph.tensors[op.outputs[0]]
            same = result.shape == tensor.shape and result.dtype == tensor.dtype
            known = tensor.is_constant and tensor.has_sparsity and same
            return known and (tensor.dtype == "FLOAT32" or {source, op.outputs[0]} <= self.half)
        return source in self.half and _converts(self.graph, op)


def _converts(graph: Graph, op: Op) -> bool:
    """Return whether an op converts float16 to float32."""
    if op.name not in {"DEQUANTIZE", "CAST"} or len(op.inputs) != 1 or len(op.outputs) != 1 or min(op.outputs) < 0:
        return False
    return graph.tensors[op.inputs[0]].dtype == "FLOAT16" and graph.tensors[op.outputs[0]].dtype == "FLOAT32"


def _apply(file: Any, number: int, plan: _Plan) -> tuple[int, int]:
    """Widen a subgraph of a `ModelT`; return how many constants were widened and made dense."""
    graph = file.subgraphs[number]
    buffers: dict[tuple[int, bool], int] = {}
    constants = [index for index in sorted(plan.half | plan.dense) if plan.graph.tensors[index].is_constant]
    for index in constants:
        source, tensor = plan.graph.tensors[index], graph.tensors[index]
        key = (source.buffer, index in plan.dense)
        if key not in buffers or index in plan.dense:
            stored = np.frombuffer(np.ascontiguousarray(source.raw).data, NUMPY_DTYPES[source.dtype])
            values = dense_values(stored, source.shape, tensor.sparsity) if index in plan.dense else stored
            buffers[key] = add_buffer(file, values.astype("<f4"))
        tensor.buffer, tensor.sparsity = buffers[key], None
    for index in plan.half:
        graph.tensors[index].type = schema().TensorType.FLOAT32
        graph.tensors[index].quantization = None
    _replace(file, number, _same_tensors(plan))
    graph.operators = [op for index, op in enumerate(graph.operators) if index not in plan.folded]
    drop_unused(file, number)
    return sum(index in plan.half for index in constants), len(plan.dense)


def _same_tensors(plan: _Plan) -> Mapping[int, int]:
    """Return for each result of a folded op the tensor that takes its place."""
    same: dict[int, int] = {}
    for op in plan.graph.ops:
        if op.index in plan.folded:
            same[op.outputs[0]] = same.get(op.inputs[0], op.inputs[0])
    return same


def _replace(file: Any, number: int, same: Mapping[int, int]) -> None:
    """Let ops, outputs and signatures refer to the tensors that take the place of others.

    An output keeps its name, because callers look it up by that.
    """
    graph = file.subgraphs[number]

    def renumbered(values: Any) -> Any:
        return None if values is None else np.array([same.get(int(i), int(i)) for i in values], np.int32)

    for index in graph.outputs if graph.outputs is not None else ():
        if int(index) in same:
            graph.tensors[same[int(index)]].name = graph.tensors[int(index)].name
    for op in graph.operators:
        op.inputs = renumbered(op.inputs)
    graph.outputs = renumbered(graph.outputs)
    for signature in file.signatureDefs or []:
        for entry in signature.outputs or [] if signature.subgraphIndex == number else ():
            entry.tensorIndex = same.get(int(entry.tensorIndex), int(entry.tensorIndex))
