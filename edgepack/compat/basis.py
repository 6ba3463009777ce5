"""What a placement is based on: the profile's facts about each op, by how they are known."""

from collections import Counter
from collections.abc import Collection, Sequence

from edgepack.profiles.model import OpTable, Source


class Knowledge:
    """The sources of an op table.

    Args:
        sources: The profile's sources.
        table: The op table.
    """

    def __init__(self, sources: Sequence[Source], table: OpTable) -> None:
        self._sources = {source.id: source for source in sources}
        self._table = table
        # That an op has no row says the source from which the table was written.
        rows = Counter(row.source for row in table.ops.values())
        self._usual = rows.most_common(1)[0][0] if rows else ""

    def of(self, op: str) -> str:
        """Return the `Basis` of what the table says about an op; empty when its source is unknown."""
        source = self._source(op)
        return source.level if source is not None else ""

    def texts(self, ops: Collection[str]) -> dict[str, str]:
        """Return the facts behind the placement of these ops, by `Basis`."""
        found = {source.id: source for op in sorted(ops) if (source := self._source(op)) is not None}
        texts: dict[str, list[str]] = {}
        for source in found.values():
            texts.setdefault(source.level, []).append(source.fact)
        return {level: " ".join(facts) for level, facts in sorted(texts.items())}

    def _source(self, op: str) -> Source | None:
        row = self._table.ops.get(op)
        return self._sources.get(row.source if row is not None else self._usual)
