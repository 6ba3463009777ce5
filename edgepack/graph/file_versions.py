"""Operator versions of a whole file, as TFLiteConverter writes them."""

from edgepack.graph.memo import Memo
from edgepack.graph.model import Model
from edgepack.graph.versions import op_version


def file_versions(model: Model, memo: Memo | None = None) -> dict[tuple[int, int], int]:
    """Return the version of every op as TFLiteConverter writes it, keyed by (subgraph, op index).

    TFLiteConverter keeps one operator code per builtin: every op of a kind has the highest version that one needs.
    """
    get = (memo or Memo()).about
    own = {(n, o.index): (o.label, get("version", op_version, g, o)) for n, g in enumerate(model.graphs) for o in g.ops}
    highest: dict[str, int] = {}
    for label, needed in own.values():
        highest[label] = max(needed, highest.get(label, 1))
    return {key: highest[label] for key, (label, _) in own.items()}
