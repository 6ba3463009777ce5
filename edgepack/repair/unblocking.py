"""Rewrites of ops with which a compiler writes no file at all, although the rest of the model would run.

They are tried only where a target refuses a whole file: the ops that they produce are no better than those that they
replace. Only rounding differs.
"""

import math

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, Tensor
from edgepack.repair.graph_edits import Draft, Edit

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
    if op.name != "UNIDIRECTIONAL_SEQUENCE_LSTM" or len(op.inputs) < 20 or len(op.outputs) != 1:
        return []
    extra = [index for index in (*op.inputs[9:12], *op.inputs[16:18], *op.inputs[20:24]) if index >= 0]
    clips = any(op.options.get(name) for name in ("cell_clip", "proj_clip", "diagonal_recurrent_tensors"))
    if extra or clips or op.options.get("fused_activation", "TANH") != "TANH":
        return []
    x, out = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    parts = [_values(graph, index) for index in (*op.inputs[1:9], *op.inputs[12:16])]
    if any(part is None for part in parts) or not _is_static(x) or not _is_static(out) or x.rank != 3 or out.rank != 3:
        return []
    weights, recurrent, bias = (np.concatenate([p for p in parts[i : i + 4] if p is not None]) for i in (0, 4, 8))
    steps, units = math.prod(x.shape[:2]), recurrent.shape[1]
    if 1 not in x.shape[:2] or steps > _MAX_STEPS or out.shape != (*x.shape[:2], units):
        return []
    if x.shape[1 if op.options.get("time_major") else 0] != 1:
        return []
    draft = Draft(graph, out.name)
    flat = draft.then("RESHAPE", [x.index, draft.constant((steps, x.shape[2]), "INT32")], (steps, x.shape[2]),
                      new_shape=[steps, x.shape[2]])  # fmt: skip
    products = draft.then("FULLY_CONNECTED", [flat, draft.constant(weights), draft.constant(bias)], (steps, 4 * units))
    matrix, zeros = draft.constant(recurrent), draft.constant(np.zeros(4 * units))
    shape, size = (1, units), draft.constant((1, units), "INT32")
    starts = [draft.constant((0, gate * units), "INT32") for gate in range(4)]
    hidden = cell = -1
    outputs: list[int] = []
    for step in range(steps):
        gates = products
        if steps > 1:
            # SLICE and not SPLIT: ai-edge-quantizer leaves a SPLIT in float of which a part is not read.
            part = [products, draft.constant((step, 0), "INT32"), draft.constant((1, 4 * units), "INT32")]
            gates = draft.then("SLICE", part, (1, 4 * units))
        if hidden >= 0:
            fed = draft.then("FULLY_CONNECTED", [hidden, matrix, zeros], (1, 4 * units))
            gates = draft.then("ADD", [gates, fed], (1, 4 * units))
        enter = draft.then("LOGISTIC", [draft.then("SLICE", [gates, starts[0], size], shape)], shape)
        proposed = draft.then("TANH", [draft.then("SLICE", [gates, starts[2], size], shape)], shape)
        leave = draft.then("LOGISTIC", [draft.then("SLICE", [gates, starts[3], size], shape)], shape)
        new = draft.then("MUL", [enter, proposed], shape)
        if cell >= 0:
            forget = draft.then("LOGISTIC", [draft.then("SLICE", [gates, starts[1], size], shape)], shape)
            new = draft.then("ADD", [draft.then("MUL", [forget, cell], shape), new], shape)
        cell = new
        hidden = draft.then("MUL", [leave, draft.then("TANH", [cell], shape)], shape)
        outputs.append(hidden)
    joined = draft.then("CONCATENATION", outputs, (steps, units), axis=0) if steps > 1 else hidden
    draft.op("RESHAPE", [joined, draft.constant(out.shape, "INT32")], [out.index], new_shape=list(out.shape))
    message = f"an LSTM written as its {steps} steps, each inference from a state of zeros"
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


def _values(graph: Graph, index: int) -> npt.NDArray[np.float32] | None:
    tensor = graph.tensors[index] if index >= 0 else None
    return tensor.data if tensor is not None and tensor.dtype == "FLOAT32" else None
