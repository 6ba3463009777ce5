"""Rewrites of ops with which a compiler writes no file at all, although the rest of the model would run.

They are tried only where a target refuses a whole file: the ops that they produce are no better than those that they
replace. Only rounding differs.
"""

from edgepack.graph import Graph, Op, Tensor
from edgepack.repair.graph_edits import Draft, Edit
from edgepack.repair.lstm_steps import read_lstm

#: Ranks that accelerators refuse for these ops and the runtime's kernels compute; a RESHAPE to the first may still run
#: on the accelerator.
_HOST_RANKS = (5, 6)

#: Ops that compute each value by itself, so that a shape with further axes of size 1 changes nothing.
_ELEMENTWISE = frozenset({"ELU", "GELU", "ROUND", "SELECT", "SELECT_V2"})

#: Position of the constant with the axis, and the option with it, of ops that work along one axis.
_AXIS_INPUT = {"CUMSUM": 1}
_AXIS_OPTION = {"GATHER": "axis"}

#: Most steps of a recurrent layer that is written out: 12 ops each.
_MAX_STEPS = 64


def rewrite_on_host(graph: Graph, op: Op) -> list[Edit]:
    """ELU, GELU, ROUND, SELECT, CUMSUM, GATHER in float: the same op at rank 5 or 6, which stays on the host."""
    known = op.name in _ELEMENTWISE or op.name in _AXIS_INPUT or op.name in _AXIS_OPTION
    if not known or len(op.outputs) != 1 or not op.inputs or op.options.get("batch_dims"):
        return []
    out = graph.tensors[op.outputs[0]]
    count = len(op.inputs) if op.name in _ELEMENTWISE else 1
    data = [graph.tensors[index] if index >= 0 else None for index in op.inputs[:count]]
    if any(not _is_static(tensor) for tensor in (*data, out)) or out.dtype != "FLOAT32":
        return []
    if op.name in _ELEMENTWISE and any(tensor is not None and tensor.shape != out.shape for tensor in data):
        return []
    ranks = [rank for rank in _HOST_RANKS if rank > max(tensor.rank for tensor in data if tensor is not None)]
    return [edit for rank in ranks if (edit := _at_rank(graph, op, [t for t in data if t is not None], rank))]


def _at_rank(graph: Graph, op: Op, data: list[Tensor], rank: int) -> Edit | None:
    """Return the op with axes of size 1 in front of its data, None where its axis is not known."""
    out, added = graph.tensors[op.outputs[0]], rank - data[0].rank
    draft = Draft(graph, out.name)
    inputs = [_reshaped(draft, tensor, rank) for tensor in data]
    options = dict(op.options)
    if op.name in _AXIS_INPUT:
        axis = graph.tensors[op.inputs[1]].integers if op.inputs[1] >= 0 else None
        if axis is None or axis.size != 1:
            return None
        inputs.append(draft.constant(_moved(int(axis.ravel()[0]), added), "INT32"))
    elif op.name in _AXIS_OPTION:
        options["axis"] = _moved(int(op.options.get("axis", 0)), added)
        inputs.extend(op.inputs[1:])
    shape = (1,) * added + out.shape
    result = draft.then(op.name, inputs, shape, **options)
    draft.op("RESHAPE", [result, draft.constant(out.shape, "INT32")], [out.index], new_shape=list(out.shape))
    return draft.edit("kept-on-host", [op.index], f"{op.name} written at rank {len(shape)}, which stays on the host")


def rewrite_sequence_lstm(graph: Graph, op: Op) -> list[Edit]:
    """UNIDIRECTIONAL_SEQUENCE_LSTM of one sequence: its steps, from a state of zeros, as ops without variables."""
    layer = read_lstm(graph, op)
    # One step is a part of a stream, whose state does not start from zeros in each inference.
    if layer is None or not 1 < layer.steps <= _MAX_STEPS:
        return []
    draft = Draft(graph, graph.tensors[op.outputs[0]].name)
    layer.write(draft)
    message = f"an LSTM written as its {layer.steps} steps, each inference from a state of zeros"
    return [draft.edit("unrolled-lstm", [op.index], message)]


def rewrite_subtraction(graph: Graph, op: Op) -> list[Edit]:
    """SUB: ADD of the negative, which is a constant or MUL by -1; the result is the same to the last bit."""
    if op.name != "SUB" or len(op.inputs) != 2 or len(op.outputs) != 1 or min(op.inputs) < 0:
        return []
    left, right, out = (graph.tensors[index] for index in (*op.inputs, op.outputs[0]))
    if {tensor.dtype for tensor in (left, right, out)} != {"FLOAT32"} or right.is_dynamic:
        return []
    draft = Draft(graph, out.name)
    values = right.data
    if values is not None:
        negative = draft.constant(-values)
    else:
        negative = draft.then("MUL", [right.index, draft.constant(-1.0)], right.shape)
    fused = op.options.get("fused_activation", "NONE")
    draft.op("ADD", [left.index, negative], [out.index], fused_activation=fused)
    return [draft.edit("negative-sum", [op.index], "SUB written as ADD of the negative")]


def _reshaped(draft: Draft, tensor: Tensor, rank: int) -> int:
    shape = (1,) * (rank - tensor.rank) + tensor.shape
    return draft.then(
        "RESHAPE", [tensor.index, draft.constant(shape, "INT32")], shape, tensor.dtype, new_shape=list(shape)
    )


def _moved(axis: int, added: int) -> int:
    """Return an axis after axes were added in front; a negative one counts from the last and stays."""
    return axis if axis < 0 else axis + added


def _is_static(tensor: Tensor | None) -> bool:
    return tensor is not None and not tensor.is_dynamic and 0 < tensor.rank < _HOST_RANKS[-1] and tensor.elements > 0
