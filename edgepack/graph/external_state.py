"""State outside of the graph that a compiler sees: resource variables as inputs and outputs, and back.

A compiler that refuses resource variables takes a model whose every variable is an input, in place of READ_VARIABLE,
and an output, in place of ASSIGN_VARIABLE. What it makes of that gets its variables back: the runtime reads them on the
CPU before the compiled ops and assigns them behind. The file that an app loads keeps its inputs, outputs and state.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from edgepack.errors import ModelFileError
from edgepack.graph.appended import AppendedBytes
from edgepack.graph.edit import pack, unique_names, unpack
from edgepack.graph.model import Graph, Model, Op
from edgepack.graph.op_layout import STATE_OPS
from edgepack.graph.read import read_model
from edgepack.graph.unused import drop_unused


@dataclass(frozen=True)
class StateOps:
    """The ops of a main graph that access its variables, in file order.

    Attributes:
        model: The model.
        fault: Why the state cannot be kept outside of the graph, one sentence without a full stop; empty when it can.
    """

    model: Model = field(repr=False)
    fault: str = ""

    @property
    def graph(self) -> Graph:
        """The main graph."""
        return self.model.main

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """The ops, empty for a model without variables."""
        return tuple(op for op in self.graph.ops if op.name in STATE_OPS)

    @cached_property
    def initializers(self) -> tuple[int, ...]:
        """Indices of the graphs that CALL_ONCE runs."""
        return tuple(dict.fromkeys(_initializer(op) for op in self.ops if op.name == "CALL_ONCE"))

    def variable(self, op: Op) -> str:
        """Return the variable that a READ_VARIABLE or ASSIGN_VARIABLE accesses."""
        handle = self.graph.ops[self.graph.producers[op.inputs[0]]]
        return "/".join(str(handle.options.get(key) or "") for key in ("container", "shared_name"))


def state_ops(model: Model) -> StateOps:
    """Return the ops that access a model's variables, and why their state must stay in the graph if it must."""
    state = StateOps(model)
    return StateOps(model, _fault(state)) if state.ops else state


def _fault(state: StateOps) -> str:
    graph, model = state.graph, state.model
    if any(graph.tensors[index].dtype == "RESOURCE" for index in (*graph.inputs, *graph.outputs) if index >= 0):
        return "a variable is an input or an output of the model"
    for op in graph.ops:
        tensors = [tensor for tensor in graph.op_inputs(op) if tensor is not None]
        if op.name not in STATE_OPS:
            if any(tensor.dtype == "RESOURCE" for tensor in tensors):
                return f"{op.label} (op {op.index}) uses a variable"
            continue
        if op.name == "CALL_ONCE" and not 0 < _initializer(op) < len(model.graphs):
            return f"CALL_ONCE (op {op.index}) names no graph of the file"
        if op.name in {"READ_VARIABLE", "ASSIGN_VARIABLE"}:
            producer = graph.producers.get(op.inputs[0]) if op.inputs else None
            if producer is None or graph.ops[producer].name != "VAR_HANDLE":
                return f"the variable of {op.name} (op {op.index}) is chosen at run time"
        if any(tensor.is_dynamic for tensor in (*tensors, *graph.op_outputs(op))):
            return f"{op.name} (op {op.index}) has a tensor whose shape is open"
    for number, other in enumerate(model.graphs[1:], 1):
        if number not in state.initializers and any(tensor.dtype == "RESOURCE" for tensor in other.tensors):
            return f"the graph '{other.name}' of a loop, a branch or another signature uses a variable"
    for signature in model.signatures:
        if signature.graph:
            return f"the signature '{signature.key}' is of another graph of the file"
    return ""


def _initializer(op: Op) -> int:
    return int(op.options.get("init_subgraph_index", 0))


@dataclass(frozen=True)
class ExternalState:
    """A model whose variables are inputs and outputs, and what brings them back.

    Attributes:
        tflite: The model without variables and without a signature. Its inputs are those of the original, then one for
            each variable that is read; its outputs those of the original, then each assigned value that is no output
            yet.
        original: The file that it was made of; the same object unless its tensors were renamed to have unique names.
        reads: Tensor of the original with a variable's value before a run, by variable.
        assigned: Tensor of the original with its value behind a run, by variable.
        replaced: Tensor of the original that stands for each value that is read.
        removed: Number of ops that the model lacks.
    """

    tflite: bytes = field(repr=False)
    original: bytes = field(repr=False)
    reads: Mapping[str, int]
    assigned: Mapping[str, int]
    replaced: Mapping[int, int]
    removed: int


def external_state(tflite: bytes) -> ExternalState | None:
    """Return a model with its variables as inputs and outputs; None when it has none, or they must stay.

    A value that is read behind its assignment is the assigned one, and of several assignments the last one counts, as
    when the ops run in file order.

    Args:
        tflite: Any file.
    """
    # The tensors of the state are found by name in what a compiler makes of the model.
    tflite = unique_names(tflite)
    model = read_model(tflite)
    state = state_ops(model)
    if not state.ops or state.fault:
        return None
    graph = model.main
    reads: dict[str, int] = {}
    assigned: dict[str, int] = {}
    replaced: dict[int, int] = {}
    for op in state.ops:
        if op.name == "READ_VARIABLE":
            name, value = state.variable(op), op.outputs[0]
            replaced[value] = assigned[name] if name in assigned else reads.setdefault(name, value)
        elif op.name == "ASSIGN_VARIABLE":
            assigned[state.variable(op)] = replaced.get(op.inputs[1], op.inputs[1])
    file = unpack(tflite)
    main = file.subgraphs[0]
    kept = [main.operators[op.index] for op in graph.ops if op.name not in STATE_OPS]
    for op in kept:
        op.inputs = np.array([replaced.get(int(index), int(index)) for index in _list(op.inputs)], np.int32)
    outputs = [replaced.get(index, index) for index in graph.outputs]
    results = {int(index) for op in kept for index in _list(op.outputs)}
    read = {int(index) for op in kept for index in _list(op.inputs)} | set(outputs)
    main.operators = kept
    main.inputs = np.array([*graph.inputs, *(index for index in reads.values() if index in read)], np.int32)
    extra = dict.fromkeys(index for index in assigned.values() if index in results and index not in outputs)
    main.outputs = np.array([*outputs, *extra], np.int32)
    file.signatureDefs = None
    _drop_graphs(file, state.initializers)
    # A compiler examines tensors that no op uses as well.
    drop_unused(file)
    return ExternalState(pack(file), tflite, reads, assigned, replaced, len(state.ops))


def with_state(external: ExternalState, compiled: bytes) -> bytes:
    """Return a compiled file with the variables of the model that it was made of.

    The variables are read in front of all ops and assigned behind them. Names of inputs and outputs, the signature and
    the initialization are the original's.

    Args:
        external: The model that was compiled, with its state.
        compiled: The file that a compiler made of `external.tflite`.

    Raises:
        ModelFileError: The file lacks a tensor of the state or has other inputs or outputs than the model.
    """
    source = read_model(external.original)
    graph = source.main
    appended = AppendedBytes(compiled)
    file, old = unpack(compiled), unpack(external.original)
    main, before = file.subgraphs[0], old.subgraphs[0]
    places = {bytes(tensor.name or b"").decode("utf-8", "replace"): n for n, tensor in enumerate(main.tensors)}
    copier = _Copier(file, old)

    def place(index: int) -> int:
        """Return the tensor of the compiled graph that stands for one of the original's; a new one if it has none."""
        name = graph.tensors[index].name
        if name not in places:
            if index in graph.producers and graph.ops[graph.producers[index]].name not in STATE_OPS:
                raise ModelFileError(f"the compiled file lacks the tensor '{name}', which keeps a state")
            places[name] = copier.tensor(main, before.tensors[index])
        return places[name]

    ahead, behind = [], []
    state, first = state_ops(source), set(external.reads.values())
    assignments = {state.variable(op): op for op in state.ops if op.name == "ASSIGN_VARIABLE"}
    graphs = {number: copier.graph(number) for number in state.initializers}
    for op in state.ops:
        if op.name in {"CALL_ONCE", "VAR_HANDLE"} or (op.name == "READ_VARIABLE" and op.outputs[0] in first):
            ahead.append(copier.operator(before.operators[op.index], [place(i) for i in op.inputs],
                                         [place(i) for i in op.outputs]))  # fmt: skip
            if op.name == "CALL_ONCE":
                ahead[-1].builtinOptions.initSubgraphIndex = graphs[_initializer(op)]
    for name, value in external.assigned.items():
        op = assignments[name]
        inputs = [place(op.inputs[0]), place(value)]
        behind.append(copier.operator(before.operators[op.index], inputs, []))
    main.operators = [*ahead, *(main.operators or []), *behind]
    names = [[graph.tensors[index].name for index in side] for side in (graph.inputs, graph.outputs)]
    replaced = external.replaced
    names[1] = [graph.tensors[replaced.get(index, index)].name for index in graph.outputs]
    if lost := [name for side in names for name in side if name not in places]:
        raise ModelFileError(f"the compiled file lacks the input or output '{lost[0]}'")
    main.inputs, main.outputs = (np.array([places[name] for name in side], np.int32) for side in names)
    file.signatureDefs = [_moved(entry, graph, places, replaced) for entry in old.signatureDefs or []] or None
    return appended.after(pack(file))


def _moved(entry: Any, graph: Graph, places: Mapping[str, int], replaced: Mapping[int, int]) -> Any:
    for named in (*(entry.inputs or []), *(entry.outputs or [])):
        index = int(named.tensorIndex)
        named.tensorIndex = places[graph.tensors[replaced.get(index, index)].name]
    return entry


class _Copier:
    """Copies tensors, ops and graphs from one `ModelT` into another."""

    def __init__(self, file: Any, old: Any) -> None:
        self._file, self._old = file, old
        self._codes: dict[int, int] = {}

    def tensor(self, graph: Any, source: Any) -> int:
        tensor = copy.copy(source)
        data = self._old.buffers[int(source.buffer)].data
        tensor.buffer = 0
        if data is not None and len(data):
            self._file.buffers.append(copy.copy(self._old.buffers[int(source.buffer)]))
            tensor.buffer = len(self._file.buffers) - 1
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def operator(self, source: Any, inputs: list[int], outputs: list[int]) -> Any:
        op = copy.copy(source)
        op.builtinOptions = copy.copy(source.builtinOptions)
        code = int(source.opcodeIndex)
        if code not in self._codes:
            self._file.operatorCodes.append(copy.copy(self._old.operatorCodes[code]))
            self._codes[code] = len(self._file.operatorCodes) - 1
        op.opcodeIndex = self._codes[code]
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        return op

    def graph(self, number: int) -> int:
        source = self._old.subgraphs[number]
        graph = copy.copy(source)
        graph.tensors = []
        for tensor in source.tensors or []:
            self.tensor(graph, tensor)
        graph.operators = [self.operator(op, _list(op.inputs), _list(op.outputs)) for op in source.operators or []]
        self._file.subgraphs.append(graph)
        return len(self._file.subgraphs) - 1


def _drop_graphs(file: Any, dropped: tuple[int, ...]) -> None:
    """Remove graphs that no op runs any more, and renumber the bodies of loops and branches."""
    numbers = [number for number in range(len(file.subgraphs)) if number not in dropped]
    places = {old: new for new, old in enumerate(numbers)}
    file.subgraphs = [file.subgraphs[number] for number in numbers]
    for graph in file.subgraphs:
        for op in graph.operators or []:
            for name in ("condSubgraphIndex", "bodySubgraphIndex", "thenSubgraphIndex", "elseSubgraphIndex"):
                if hasattr(op.builtinOptions, name):
                    setattr(op.builtinOptions, name, places[int(getattr(op.builtinOptions, name))])


def _list(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]
