"""Operator versions of a whole file, as TFLiteConverter writes them."""

from functools import partial

from edgepack.graph.memo import Memo
from edgepack.graph.model import Graph, Model, Op
from edgepack.graph.versions import op_version


def file_versions(model: Model, memo: Memo | None = None) -> dict[tuple[int, int], int]:
    """Return the version of every op as TFLiteConverter writes it, keyed by (subgraph, op index).

    TFLiteConverter keeps one operator code per builtin, so every op of a kind has the highest version that one of them
    needs.
    """
    version = op_version if memo is None else partial(_known_version, memo)
    own = {(n, op.index): (op.label, version(graph, op)) for n, graph in enumerate(model.graphs) for op in graph.ops}
    highest: dict[str, int] = {}
    for label, needed in own.values():
        highest[label] = max(needed, highest.get(label, 1))
    return {key: highest[label] for key, (label, _) in own.items()}


def _known_version(memo: Memo, graph: Graph, op: Op) -> int:
    kinds = tuple(memo.kind(tensor) for tensor in (*graph.op_inputs(op), *graph.op_outputs(op)))
    rest = ("version", op.label, len(op.inputs), op.version, kinds)
    return memo.get((op.options,), rest, lambda: op_version(graph, op))
