"""Broadcast values of SELECT_V2 that enter a compiled graph, written in the shape of the result by BROADCAST_TO.

Qualcomm's compiler validates such an op and then cannot create it, always in int16 and mostly in int8; a value that
another op of the graph computes is fine.
"""

import math

from edgepack.graph import Graph, Op, Tensor, read_model
from edgepack.graph.edit import pack, unpack, write_true_versions
from edgepack.repair.file_edits import FileEditor
from edgepack.repair.rewrite_search import Rewrite


def explicit_broadcasts(tflite: bytes, *, computed: bool = False) -> tuple[bytes, tuple[Rewrite, ...]]:
    """Broadcast the values of SELECT_V2 that are inputs of the model before the op; every value stays the same.

    Args:
        tflite: Any file.
        computed: Whether values that ops compute are broadcast as well: an op on the host may compute them.

    Returns:
        The file, the same bytes where there is nothing to do, and the rewrites, one for each SELECT_V2.
    """
    graph = read_model(tflite).main
    sites = {op.index: values for op in graph.ops if (values := _broadcast_inputs(graph, op, computed))}
    if not sites:
        return tflite, ()
    editor = FileEditor(unpack(tflite), graph)
    for index, positions in sites.items():
        out = graph.tensors[graph.ops[index].outputs[0]]
        for position in positions:
            editor.broadcast_input(index, position, out.shape)
    which = "that are not constant" if computed else "that are inputs of the model"
    message = f"broadcast values of SELECT_V2 {which} written by BROADCAST_TO"
    rewrites = (
        Rewrite("explicit-broadcast", graph.ops[i].label, i, graph.output_name(graph.ops[i]), message, True, 0)
        for i in sites
    )
    return write_true_versions(pack(editor.finish())), tuple(rewrites)


def _broadcast_inputs(graph: Graph, op: Op, computed: bool) -> list[int]:
    """Return the positions of values that are inputs of the model, or computed, with fewer elements than the result."""
    if op.name != "SELECT_V2" or len(op.inputs) != 3 or len(op.outputs) != 1 or min(op.inputs) < 0:
        return []
    out = graph.tensors[op.outputs[0]]
    values = [(position, graph.tensors[op.inputs[position]]) for position in (1, 2)]
    if out.is_dynamic or any(value.is_dynamic for _, value in values):
        return []
    return [
        position
        for position, value in values
        if (value.index in graph.inputs or (computed and _is_computed(graph, value)))
        and 1 < value.elements < math.prod(out.shape)
        and _broadcasts_to(value.shape, out.shape)
    ]


def _is_computed(graph: Graph, value: Tensor) -> bool:
    return value.index in graph.producers and graph.ops[graph.producers[value.index]].name != "BROADCAST_TO"


def _broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    padded = (1,) * (len(target) - len(shape)) + shape
    return len(padded) == len(target) and all(size in {1, to} for size, to in zip(padded, target, strict=True))
