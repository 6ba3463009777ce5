"""Lowering of ops that run other subgraphs: CALL, IF, WHILE, STABLEHLO_COMPOSITE.

A WHILE whose condition is known while the graph is traced, such as the loop over the time steps of a GRU, is unrolled,
so that gradients pass through it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgepack.graph import NUMPY_DTYPES, Graph
from edgepack.quantize.ptq.lowering.call import Call, NotLoweredError, Value
from edgepack.quantize.ptq.lowering.lazy import tf

#: Ops that an unrolled loop may execute: about two seconds of tracing.
_MOST_UNROLLED_OPS = 10_000

#: Executes one op.
Execute = Callable[[Call], list[Value]]


def initial_values(graph: Graph) -> dict[int, Value]:
    """Return the values of a graph's constants, and zeros for its variables."""
    fixed = {}
    for tensor in graph.tensors:
        if tensor.data is not None:
            fixed[tensor.index] = Value(np.asarray(tensor.data))
        elif tensor.is_variable and tensor.raw is None and tensor.dtype in NUMPY_DTYPES:
            fixed[tensor.index] = Value(np.zeros(tensor.shape, NUMPY_DTYPES[tensor.dtype]))
    for index in graph.inputs:
        fixed.pop(index, None)
    return fixed


def _run_graph(call: Call, number: int, operands: Sequence[Value | None], execute: Execute) -> list[Value]:
    """Return the outputs of a subgraph."""
    if not 0 < number < len(call.graphs):
        raise NotLoweredError(f"{call.op.label} runs subgraph {number}")
    graph = call.graphs[number]
    state: dict[int, Value | None] = {**initial_values(graph)}
    state.update(zip(graph.inputs, operands, strict=True))
    for op in graph.ops:
        if any(index >= 0 and index not in state for index in op.inputs):
            raise NotLoweredError(f"{op.label} in subgraph {number} lacks an operand")
        values = tuple(state[index] if index >= 0 else None for index in op.inputs)
        inner = Call(op, values, graph.op_inputs(op), graph.op_outputs(op), call.batch, call.graphs)
        state.update(zip(op.outputs, execute(inner), strict=True))
    results = [state.get(index) for index in graph.outputs]
    return [value for value in results if value is not None]


def call_graph(call: Call, execute: Execute) -> list[Value]:
    """Lower CALL."""
    return _run_graph(call, int(call.option("subgraph", 0)), call.operands, execute)


def composite(call: Call, execute: Execute) -> list[Value]:
    """Lower STABLEHLO_COMPOSITE by its decomposition."""
    return _run_graph(call, int(call.option("decomposition_subgraph_index", 0)), call.operands, execute)


def if_else(call: Call, execute: Execute) -> list[Value]:
    """Lower IF; where the condition depends on the sample, both branches run and each sample takes its own."""
    branches = [int(call.option(f"{name}_subgraph_index", 0)) for name in ("then", "else")]
    condition = call.operands[0]
    if condition is not None and condition.static is not None:
        return _run_graph(call, branches[0 if condition.static.any() else 1], call.operands[1:], execute)
    first, second = (_run_graph(call, branch, call.operands[1:], execute) for branch in branches)
    chosen = tf.reshape(call.batched(0), [call.batch])
    return [Value(_choose(call, chosen, a, b), True) for a, b in zip(first, second, strict=True)]


def _choose(call: Call, chosen: Any, first: Value, second: Value) -> Any:
    tensors = [value.tensor if value.batched else tf.convert_to_tensor(value.tensor)[None] for value in (first, second)]
    if tensors[0].shape[1:] != tensors[1].shape[1:]:
        raise NotLoweredError("the branches of IF give different shapes")
    return tf.where(tf.reshape(chosen, [call.batch, *[1] * (tensors[0].shape.rank - 1)]), *tensors)


def unrolled_while(call: Call, execute: Execute) -> list[Value]:
    """Lower WHILE by unrolling it."""
    condition, body = (int(call.option(f"{name}_subgraph_index", 0)) for name in ("cond", "body"))
    state: list[Value] = [value for value in call.operands if value is not None]
    size = len(call.graphs[body].ops) if 0 < body < len(call.graphs) else 0
    for _ in range(_MOST_UNROLLED_OPS // max(1, size) + 1):
        (again,) = _run_graph(call, condition, state, execute)
        if again.static is None:
            raise NotLoweredError("the number of iterations of WHILE depends on the inputs")
        if not again.static.any():
            return state
        state = _run_graph(call, body, state, execute)
    raise NotLoweredError("WHILE has too many iterations")


CONTROL: dict[str, Callable[[Call, Execute], list[Value]]] = {
    "CALL": call_graph,
    "IF": if_else,
    "STABLEHLO_COMPOSITE": composite,
    "WHILE": unrolled_while,
}
