"""Fuse a softmax that old converters wrote as REDUCE_MAX, SUB, EXP, SUM, DIV. Exact up to rounding."""

import numpy as np

from edgepack.graph import Graph, Op
from edgepack.graph.op_layout import is_linear, producer_named
from edgepack.repair.graph_edits import Draft, Edit


def rewrite_softmax(graph: Graph, op: Op) -> list[Edit]:
    """DIV of EXP by its SUM along the last axis, with or without the maximum subtracted before: SOFTMAX.

    The same with SUM's reciprocal as MUL is not looked for: no converter writes it.
    """
    if op.name != "DIV" or len(op.inputs) != 2 or not is_linear(op):
        return []
    powers = producer_named(graph, op.inputs[0], "EXP")
    total = producer_named(graph, op.inputs[1], "SUM")
    if powers is None or total is None or total.inputs[0] != op.inputs[0] or not _along_last_axis(graph, total):
        return []
    removed = [powers, total, op]
    source = powers.inputs[0]
    shifted = producer_named(graph, source, "SUB")
    if shifted is not None and is_linear(shifted):
        largest = producer_named(graph, shifted.inputs[1], "REDUCE_MAX")
        if largest is not None and largest.inputs[0] == shifted.inputs[0] and _along_last_axis(graph, largest):
            removed += [shifted, largest]
            source = shifted.inputs[0]
    if not _only_inside(graph, removed, op):
        return []
    x, out = graph.tensors[source], graph.tensors[op.outputs[0]]
    if x.dtype != "FLOAT32" or x.is_constant or x.is_dynamic or not 1 <= x.rank <= 4 or x.shape != out.shape:
        return []
    draft = Draft(graph, out.name)
    draft.op("SOFTMAX", [source], [out.index], beta=1.0)
    names = ", ".join(graph.ops[i].name for i in sorted(o.index for o in removed))
    return [draft.edit("softmax", [o.index for o in removed], f"{names} written as SOFTMAX")]


def _along_last_axis(graph: Graph, op: Op) -> bool:
    """Return whether a reduction runs over the last axis only and keeps it with size 1."""
    axes, rank = graph.tensors[op.inputs[1]].data, graph.tensors[op.inputs[0]].rank
    if axes is None or axes.size != 1 or not rank or int(np.ravel(axes)[0]) % rank != rank - 1:
        return False
    return bool(op.options.get("keep_dims"))


def _only_inside(graph: Graph, removed: list[Op], last: Op) -> bool:
    """Return whether the results of all removed ops but the last are read by removed ops alone."""
    inside = {op.index for op in removed}
    return all(
        index not in graph.outputs and set(graph.consumers.get(index, ())) <= inside
        for op in removed
        if op is not last
        for index in op.outputs
    )
