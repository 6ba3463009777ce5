"""Names of tensors that differ for a compiler which writes every special character as `_`."""

import re

from edgepack.graph import Graph, read_model
from edgepack.graph.edit import add_signature, set_tensor_names
from edgepack.repair.rewrite_search import Rewrite


def distinct_names(tflite: bytes) -> tuple[bytes, tuple[Rewrite, ...]]:
    """Rename tensors whose names differ in special characters only, or not at all.

    Inputs keep their names where they can, then outputs; names of a signature do not change, and a file without
    one gets one. Constants are left alone:
    they are no inputs or outputs of a partition.

    Args:
        tflite: Any file.

    Returns:
        The file, the same bytes where no name clashes, and what was renamed.
    """
    graph = read_model(tflite).main
    names = _new_names(graph)
    if not names:
        return tflite, ()
    renamed = [f"'{graph.tensors[index].name}' to '{name}'" for index, name in names.items()]
    shown = ", ".join(renamed[:3]) + (f" and {len(renamed) - 3} more" if len(renamed) > 3 else "")
    message = f"tensors renamed whose names are one to the compiler: {shown}"
    first = next(iter(names))
    return set_tensor_names(add_signature(tflite), names), (
        Rewrite("distinct-names", "", -1, graph.tensors[first].name, message, True, 0),
    )


def _new_names(graph: Graph) -> dict[int, str]:
    tensors = [tensor.index for tensor in graph.tensors if not tensor.is_constant]
    order = dict.fromkeys([index for index in (*graph.inputs, *graph.outputs) if index >= 0] + tensors)
    known: set[str] = set()
    # Tensors that keep their names come first, so that no new name takes one of theirs.
    clashing = []
    for index in order:
        written = _written(graph.tensors[index].name)
        if written in known:
            clashing.append(index)
        known.add(written)
    names: dict[int, str] = {}
    for index in clashing:
        name = graph.tensors[index].name or "tensor"
        number = 2
        while _written(f"{name}_{number}") in known:
            number += 1
        names[index] = f"{name}_{number}"
        known.add(_written(names[index]))
    return names


def _written(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name)
