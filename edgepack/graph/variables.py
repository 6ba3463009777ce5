"""Variables of a .tflite: those that are read but that nothing in the file ever writes."""

from collections.abc import Iterator

from edgepack.graph.model import Graph, Model


def unassigned_variables(model: Model) -> tuple[str, ...]:
    """Return the names of variables that a READ_VARIABLE reads and no ASSIGN_VARIABLE of any graph writes.

    The weights of such a model are not in the file: TFLiteConverter writes it when a Keras 3 model is given as the
    owner of a concrete function. The runtime reads memory that was never written, or fails.
    """
    assigned = {name for graph in model.graphs for name in _names(graph, "ASSIGN_VARIABLE")}
    read = {name: None for graph in model.graphs for name in _names(graph, "READ_VARIABLE")}
    return tuple(name for name in read if name not in assigned)


def _names(graph: Graph, op_name: str) -> Iterator[str]:
    """Yield the variable of each op of a kind, where a VAR_HANDLE of the same graph names it."""
    for op in graph.ops:
        if op.name != op_name or not op.inputs or op.inputs[0] not in graph.producers:
            continue
        handle = graph.ops[graph.producers[op.inputs[0]]]
        if handle.name == "VAR_HANDLE":
            container, name = (str(handle.options.get(key) or "") for key in ("container", "shared_name"))
            yield f"{container}/{name}" if container else name
