"""Small models with state: fused LSTM and SVDF, whose variable tensors hold it, and memories in resource variables."""

from typing import Any

import numpy as np

from edgepack.graph.edit import add_buffer, op_code, pack
from edgepack.graph.read import schema

UNITS, FEATURES, STEPS = 3, 2, 4


def fused_lstm(units: int = UNITS, steps: int = STEPS) -> bytes:
    """Return an LSTM over (1, 4, 2), with the input `x` and the outputs of all steps as `y`."""
    random = np.random.default_rng(3)
    model, graph = _empty()
    source = _tensor(model, graph, "x", (1, steps, FEATURES))
    inputs = np.full(24, -1, np.int32)
    inputs[0] = source
    for first, shape in ((1, (units, FEATURES)), (5, (units, units)), (12, (units,))):
        for gate in range(4):
            inputs[first + gate] = _tensor(model, graph, f"w{first + gate}", shape, random.normal(size=shape))
    for place in (18, 19):
        inputs[place] = _tensor(model, graph, f"state{place}", (1, units))
        graph.tensors[inputs[place]].isVariable = True
    result = _tensor(model, graph, "y", (1, steps, units))
    options = schema().UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema().ActivationFunctionType.TANH
    _op(model, graph, "UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [result], options)
    return _finished(model, graph, [source], [result])


def svdf(rank: int = 1, activation: str = "RELU", memory_size: int = 5) -> bytes:
    """Return an SVDF of 8 units with a memory over `x` (1, 6), and a dense layer with `y` (1, 3)."""
    random = np.random.default_rng(4)
    model, graph = _empty()
    source, filters = _tensor(model, graph, "x", (1, 6)), 8 * rank
    parts = [("features", (filters, 6)), ("time", (filters, memory_size)), ("bias", (8,))]
    inputs = [source, *(_tensor(model, graph, name, shape, random.normal(size=shape)) for name, shape in parts)]
    inputs.append(_tensor(model, graph, "state", (1, filters * memory_size)))
    graph.tensors[inputs[-1]].isVariable = True
    hidden, result = _tensor(model, graph, "hidden", (1, 8)), _tensor(model, graph, "y", (1, 3))
    options = schema().SVDFOptionsT()
    options.rank, options.fusedActivationFunction = rank, getattr(schema().ActivationFunctionType, activation)
    _op(model, graph, "SVDF", inputs, [hidden], options)
    dense = [_tensor(model, graph, f"dense{len(s)}", s, random.normal(size=s)) for s in ((3, 8), (3,))]
    _op(model, graph, "FULLY_CONNECTED", [hidden, *dense], [result], schema().FullyConnectedOptionsT())
    return _finished(model, graph, [source], [result])


def memory() -> bytes:
    """Return a model that adds its input `x` (1, 4) to a resource variable, and returns the sum as `y`."""
    model, graph = _empty()
    start = schema().SubGraphT()
    start.name, start.tensors, start.operators = b"start", [], []
    start.inputs = start.outputs = np.zeros(0, np.int32)
    once = schema().CallOnceOptionsT()
    once.initSubgraphIndex = 1
    source, result = _tensor(model, graph, "x", (1, 4)), _tensor(model, graph, "y", (1, 4))
    _op(model, graph, "CALL_ONCE", [], [], once)
    handle, before = _handle(model, graph), _tensor(model, graph, "before", (1, 4))
    _op(model, graph, "READ_VARIABLE", [handle], [before])
    _op(model, graph, "ADD", [before, source], [result], schema().AddOptionsT())
    _op(model, graph, "ASSIGN_VARIABLE", [handle, result], [])
    zeros = _tensor(model, start, "zeros", (1, 4), np.zeros((1, 4)))
    _op(model, start, "ASSIGN_VARIABLE", [_handle(model, start), zeros], [])
    model.subgraphs.append(start)
    return _finished(model, graph, [source], [result])


MODELS = {"variable-tensors": fused_lstm, "resource-variables": memory}


def _empty() -> tuple[Any, Any]:
    model, graph = schema().ModelT(), schema().SubGraphT()
    model.version, model.buffers, model.operatorCodes = 3, [schema().BufferT()], []
    graph.name, graph.tensors, graph.operators = b"main", [], []
    model.subgraphs = [graph]
    return model, graph


def _tensor(
    model: Any, graph: Any, name: str, shape: tuple[int, ...], values: Any = None, kind: str = "FLOAT32"
) -> int:
    tensor = schema().TensorT()
    tensor.name, tensor.shape, tensor.hasRank = name.encode(), np.array(shape, np.int32), True
    tensor.type = getattr(schema().TensorType, kind)
    tensor.buffer = 0 if values is None else add_buffer(model, np.asarray(values, np.float32))
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _handle(model: Any, graph: Any, name: str = "memory") -> int:
    handle = _tensor(model, graph, "handle", (), kind="RESOURCE")
    options = schema().VarHandleOptionsT()
    options.container, options.sharedName = b"", name.encode()
    _op(model, graph, "VAR_HANDLE", [], [handle], options)
    return handle


def _op(model: Any, graph: Any, name: str, inputs: Any, outputs: Any, options: Any = None) -> None:
    op = schema().OperatorT()
    op.opcodeIndex = op_code(model, name)
    op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    if options is not None:
        op.builtinOptions = options
        op.builtinOptionsType = getattr(schema().BuiltinOptions, type(options).__name__.removesuffix("T"))
    graph.operators.append(op)


def _finished(model: Any, graph: Any, inputs: list[int], outputs: list[int]) -> bytes:
    graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    return pack(model)


class StateNet:
    """A float graph over (1, 4) with variables that start as zeros."""

    def __init__(self) -> None:
        self._model, self._graph = _empty()
        self._names: list[str] = []
        once = schema().CallOnceOptionsT()
        once.initSubgraphIndex = 1
        _op(self._model, self._graph, "CALL_ONCE", [], [], once)

    def input(self, name: str) -> int:
        """Add an input or an activation."""
        return _tensor(self._model, self._graph, name, (1, 4))

    def variable(self, name: str) -> int:
        """Add a VAR_HANDLE."""
        if name not in self._names:
            self._names.append(name)
        return _handle(self._model, self._graph, name)

    def read(self, handle: int, name: str) -> int:
        """Add a READ_VARIABLE."""
        value = self.input(name)
        _op(self._model, self._graph, "READ_VARIABLE", [handle], [value])
        return value

    def assign(self, handle: int, value: int) -> None:
        """Add an ASSIGN_VARIABLE."""
        _op(self._model, self._graph, "ASSIGN_VARIABLE", [handle, value], [])

    def add(self, name: str, left: int, right: int) -> int:
        """Add an ADD."""
        result = self.input(name)
        _op(self._model, self._graph, "ADD", [left, right], [result], schema().AddOptionsT())
        return result

    def build(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Return the file."""
        start = schema().SubGraphT()
        start.name, start.tensors, start.operators = b"start", [], []
        start.inputs = start.outputs = np.zeros(0, np.int32)
        for name in self._names:
            zeros = _tensor(self._model, start, f"{name}_zeros", (1, 4), np.zeros((1, 4)))
            _op(self._model, start, "ASSIGN_VARIABLE", [_handle(self._model, start, name), zeros], [])
        self._model.subgraphs.append(start)
        return _finished(self._model, self._graph, inputs, outputs)
