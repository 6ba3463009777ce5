"""Files of some ops of a model, for measurements: a part that runs on its own, and a model that shows inner tensors."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.graph.edit import pack, unpack
from edgepack.graph.model import Graph


@dataclass(frozen=True)
class Part:
    """Ops of a main graph as a model of their own.

    Attributes:
        tflite: The file, without signatures and metadata.
        inputs: Indices of its inputs among the tensors of the whole main graph, in the file's order.
        outputs: The same of its outputs.
    """

    tflite: bytes = field(repr=False)
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def extract_ops(file: Any, graph: Graph, ops: Sequence[int]) -> Part:
    """Return a part of a model: it reads what the ops read from outside, and returns what is read outside of them.

    Args:
        file: The schema's `ModelT` of the whole file (`edit.unpack`); it is not changed.
        graph: The main graph of the same file (`read_model`).
        ops: Indices of ops of the main graph, in file order.
    """
    inside = [graph.ops[index] for index in ops]
    produced = dict.fromkeys(tensor for op in inside for tensor in op.outputs if tensor >= 0)
    read = dict.fromkeys(tensor for op in inside for tensor in op.inputs if tensor >= 0)
    inputs = tuple(
        tensor
        for tensor in read
        if tensor not in produced and not graph.tensors[tensor].is_constant and not graph.tensors[tensor].is_variable
    )
    chosen = set(ops)
    outputs = tuple(
        tensor
        for tensor in produced
        if tensor in graph.outputs or any(reader not in chosen for reader in graph.consumers.get(tensor, ()))
    )
    return Part(_file_of(file, ops, inputs, outputs), inputs, outputs)


def expose_tensors(tflite: bytes, tensors: Iterable[int]) -> bytes:
    """Return a model that has further tensors of its main graph as outputs, behind its own, without signatures.

    Args:
        tflite: The file.
        tensors: Indices of tensors; those that are outputs already are not repeated.
    """
    model = unpack(tflite)
    graph = model.subgraphs[0]
    outputs = dict.fromkeys([*(int(index) for index in graph.outputs), *tensors])
    graph.outputs = np.array(list(outputs), np.int32)
    # A signature has to name every output.
    model.signatureDefs = None
    return pack(model)


def _file_of(file: Any, ops: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    source = file.subgraphs[0]
    operators = [copy.copy(source.operators[index]) for index in ops]
    new = copy.copy(source)
    used = {int(i) for op in operators for name in _TENSORS for i in _list(getattr(op, name))} - {-1}
    tensors = {old: number for number, old in enumerate(sorted(used))}
    tensors[-1] = -1
    new.tensors = [copy.copy(source.tensors[index]) for index in sorted(used)]
    for op in operators:
        for name in _TENSORS:
            if getattr(op, name) is not None:
                setattr(op, name, _numbers(getattr(op, name), tensors))
    new.operators = operators
    new.inputs, new.outputs = _numbers(inputs, tensors), _numbers(outputs, tensors)
    # Bodies of WHILE and IF are named by number, so all other graphs stay where they are.
    rest = [copy.copy(graph) for graph in file.subgraphs[1:]]
    for graph in rest:
        graph.tensors = [copy.copy(tensor) for tensor in graph.tensors or []]
        graph.operators = [copy.copy(op) for op in graph.operators or []]
    part = copy.copy(file)
    part.subgraphs = [new, *rest]
    part.signatureDefs = part.metadata = part.metadataBuffer = None
    codes = sorted({int(op.opcodeIndex) for graph in part.subgraphs for op in graph.operators})
    part.operatorCodes = [file.operatorCodes[index] for index in codes]
    buffers = sorted({int(tensor.buffer) for graph in part.subgraphs for tensor in graph.tensors} | {0})
    part.buffers = [file.buffers[index] for index in buffers]
    for graph in part.subgraphs:
        for op in graph.operators:
            op.opcodeIndex = codes.index(int(op.opcodeIndex))
        for tensor in graph.tensors:
            tensor.buffer = buffers.index(int(tensor.buffer))
    return pack(part)


_TENSORS = ("inputs", "outputs", "intermediates")


def _list(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _numbers(values: Any, numbers: dict[int, int]) -> Any:
    return np.array([numbers[value] for value in _list(values)], np.int32)
