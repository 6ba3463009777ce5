"""Small models with state: a fused LSTM, whose variable tensors hold it, and a memory in a resource variable."""

from typing import Any

import numpy as np

from edgepack.graph.edit import add_buffer, op_code, pack
from edgepack.graph.read import schema

UNITS, FEATURES, STEPS = 3, 2, 4


def fused_lstm(units: int = UNITS) -> bytes:
    """Return an LSTM over (1, 4, 2), with the input `x` and the outputs of all steps as `y`."""
    random = np.random.default_rng(3)
    model, graph = _empty()
    source = _tensor(model, graph, "x", (1, STEPS, FEATURES))
    inputs = np.full(24, -1, np.int32)
    inputs[0] = source
    for first, shape in ((1, (units, FEATURES)), (5, (units, units)), (12, (units,))):
        for gate in range(4):
            inputs[first + gate] = _tensor(model, graph, f"w{first + gate}", shape, random.normal(size=shape))
    for place in (18, 19):
        inputs[place] = _tensor(model, graph, f"state{place}", (1, units))
        graph.tensors[inputs[place]].isVariable = True
    result = _tensor(model, graph, "y", (1, STEPS, units))
    options = schema().UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema().ActivationFunctionType.TANH
    _op(model, graph, "UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [result], options)
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


def _handle(model: Any, graph: Any) -> int:
    handle = _tensor(model, graph, "handle", (), kind="RESOURCE")
    options = schema().VarHandleOptionsT()
    options.container, options.sharedName = b"", b"memory"
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
