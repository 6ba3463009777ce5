"""State that an op keeps in a variable tensor, written as resource variables and ops without a state.

A compiler that refuses both can be given the model without resource variables (`edgepack.graph.external_state`), but
not without the state of a fused op. An SVDF and an LSTM of one step are steps of a stream, so that the state lives on
from run to run as it does in the fused op; a longer LSTM is a whole sequence, which `unrolled-lstm` starts from zeros.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import pack, unpack, write_true_versions
from edgepack.graph.new_parts import new_operator, new_tensor
from edgepack.graph.read import schema
from edgepack.repair.graph_edits import Draft, Edit, rewritten
from edgepack.repair.lstm_steps import read_lstm
from edgepack.repair.rewrite_search import Rewrite

CODE = "explicit-state"


@dataclass(frozen=True)
class _Variable:
    """A variable that an edit adds: its name and the shape of its float32 value, zeros before the first run."""

    name: str
    shape: tuple[int, ...]


def explicit_states(tflite: bytes) -> tuple[bytes, tuple[Rewrite, ...]]:
    """Write SVDF and LSTM of one step as ops without a state, which is read from variables and assigned to them.

    Args:
        tflite: A float model; others are returned as they are.

    Returns:
        The file, the same bytes where there is nothing to do, and the rewrites.
    """
    model = read_model(tflite)
    if not model.is_float:
        return tflite, ()
    found = [one for op in model.main.ops if (one := _svdf(model.main, op) or _lstm(model.main, op)) is not None]
    if not found:
        return tflite, ()
    edits = [edit for edit, _ in found]
    file = rewritten(tflite, model, edits)
    file = write_true_versions(_initialized(file, [variable for _, own in found for variable in own]))
    ops = [model.main.ops[edit.removed[-1]] for edit in edits]
    return file, tuple(
        Rewrite(CODE, op.label, op.index, model.main.output_name(op), edit.message, True, 0)
        for op, edit in zip(ops, edits, strict=True)
    )


def _svdf(graph: Graph, op: Op) -> tuple[Edit, list[_Variable]] | None:
    """Return SVDF of one sample as FULLY_CONNECTED, a shift of the memory, and DEPTHWISE_CONV_2D along it.

    The equations are those of tensorflow/lite/kernels/internal/reference/svdf.h.
    """
    if op.name != "SVDF" or len(op.inputs) != 5 or len(op.outputs) != 1:
        return None
    x, out = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    features, along = (graph.tensors[index].data for index in op.inputs[1:3])
    bias = graph.tensors[op.inputs[3]].data if op.inputs[3] >= 0 else None
    rank = int(op.options.get("rank", 1))
    activation = str(op.options.get("fused_activation", "NONE"))
    if features is None or along is None or (op.inputs[3] >= 0 and bias is None) or rank < 1:
        return None
    filters, memory = along.shape
    units = filters // rank
    if x.is_dynamic or x.shape != (1, features.shape[1]) or out.shape != (1, units) or units * rank != filters:
        return None
    draft, variable = Draft(graph, out.name), _Variable(f"{out.name}/state", (1, memory, 1, filters))
    before, handle = _read(draft, variable)
    new = draft.then("FULLY_CONNECTED", [x.index, draft.constant(features), draft.constant(np.zeros(filters))],
                     (1, filters))  # fmt: skip
    joined = draft.then("RESHAPE", [new, draft.constant((1, 1, 1, filters), "INT32")], (1, 1, 1, filters),
                        new_shape=[1, 1, 1, filters])  # fmt: skip
    if memory > 1:
        size = (1, memory - 1, 1, filters)
        cut = [before, draft.constant((0, 1, 0, 0), "INT32"), draft.constant(size, "INT32")]
        joined = draft.then("CONCATENATION", [draft.then("SLICE", cut, size), joined], variable.shape, axis=1)
    draft.op("ASSIGN_VARIABLE", [handle, joined], [])
    last = rank == 1
    taps = np.ascontiguousarray(along.T).reshape(1, memory, 1, filters)
    offset = np.zeros(filters) if bias is None or not last else bias
    filtered = draft.then(
        "DEPTHWISE_CONV_2D", [joined, draft.constant(taps), draft.constant(offset)], (1, 1, 1, filters),
        padding="VALID", stride_w=1, stride_h=1, depth_multiplier=1,
        fused_activation=activation if last else "NONE",
    )  # fmt: skip
    flat = draft.constant((1, filters), "INT32")
    if last:
        draft.op("RESHAPE", [filtered, flat], [out.index], new_shape=[1, filters])
    else:
        filtered = draft.then("RESHAPE", [filtered, flat], (1, filters), new_shape=[1, filters])
        # Sums of `rank` filters each, as a product with zeros and ones.
        sums = np.repeat(np.eye(units, dtype=np.float32), rank, axis=1)
        offset = np.zeros(units) if bias is None else bias
        draft.op("FULLY_CONNECTED", [filtered, draft.constant(sums), draft.constant(offset)], [out.index],
                 fused_activation=activation)  # fmt: skip
    message = f"SVDF written as ops without a state; its memory of {memory} steps is kept in a variable"
    return draft.edit(CODE, [op.index], message), [variable]


def _lstm(graph: Graph, op: Op) -> tuple[Edit, list[_Variable]] | None:
    layer = read_lstm(graph, op)
    if layer is None or layer.steps != 1:
        return None
    draft = Draft(graph, layer.out.name)
    variables = [_Variable(f"{layer.out.name}/{part}", (1, layer.units)) for part in ("hidden", "cell")]
    (hidden, first), (cell, second) = (_read(draft, variable) for variable in variables)
    for handle, value in zip((first, second), layer.write(draft, (hidden, cell)), strict=True):
        draft.op("ASSIGN_VARIABLE", [handle, value], [])
    message = "an LSTM of one step written as ops without a state; hidden state and cell are kept in variables"
    return draft.edit(CODE, [op.index], message), variables


def _read(draft: Draft, variable: _Variable) -> tuple[int, int]:
    """Add the ops that read a variable; return its value and its handle."""
    handle = draft.then("VAR_HANDLE", [], (), "RESOURCE", container="", shared_name=variable.name)
    return draft.then("READ_VARIABLE", [handle], variable.shape), handle


def _initialized(tflite: bytes, variables: Iterable[_Variable]) -> bytes:
    """Return a file with a CALL_ONCE in front of all ops that sets variables to zeros."""
    file = unpack(tflite)
    graph = schema().SubGraphT()
    graph.name, graph.tensors, graph.operators = b"initial_state", [], []
    graph.inputs = graph.outputs = np.zeros(0, np.int32)

    for variable in variables:
        handle = new_tensor(file, graph, f"{variable.name}/handle", (), dtype="RESOURCE")
        values = np.zeros(variable.shape, np.float32)
        zeros = new_tensor(file, graph, f"{variable.name}/zeros", variable.shape, values)
        graph.operators += [
            new_operator(file, "VAR_HANDLE", [], [handle], container="", shared_name=variable.name),
            new_operator(file, "ASSIGN_VARIABLE", [handle, zeros], []),
        ]
    file.subgraphs.append(graph)
    main = file.subgraphs[0]
    once = new_operator(file, "CALL_ONCE", [], [], init_subgraph_index=len(file.subgraphs) - 1)
    main.operators = [once, *main.operators]
    return pack(file)
