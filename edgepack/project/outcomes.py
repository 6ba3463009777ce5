"""What a run of a project returns: the end of each cell, and its JSON form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.errors import EdgepackError
from edgepack.project.cells import Cell
from edgepack.project.graph import Plan


@dataclass(frozen=True)
class CellResult:
    """The end of one cell.

    Attributes:
        cell: The cell.
        state: `current`, `cached` or `built` for a bundle that is there, `failed` otherwise, `stopped` for a cell that
            --fail-fast left out.
        reason: Why it was built or written.
        bundle: The bundle's folder, None when there is none.
        document: What the build reported: an entry of `results` of `build --json`.
        notes: Assumptions about model and samples, and options without effect.
        source: `{format, bytes, sha256}` of the user's model.
        error: Why it failed.
        seconds: Duration of the build.
    """

    cell: Cell
    state: str
    reason: str = ""
    bundle: Path | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    error: EdgepackError | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `results` of a project's `build --json`."""
        return {
            **self.document,
            "cell": self.cell.id,
            "model_name": self.cell.model,
            "target": self.cell.target,
            "soc": self.cell.soc,
            "state": self.state,
            "rebuilt_because": self.reason,
            "ok": self.state not in {"failed", "stopped"},
            "error": None if self.error is None else self.error.to_json(),
            "bundle": None if self.bundle is None else str(self.bundle),
            "notes": list(self.notes),
            "source": dict(self.source),
        }


@dataclass(frozen=True)
class MatrixResult:
    """The end of a run.

    Attributes:
        plan: What was to be done.
        results: One entry per cell, in the order of the project.
        executed: Number of nodes that ran; those whose result was in the cache do not count.
    """

    plan: Plan
    results: tuple[CellResult, ...]
    executed: int = 0

    @property
    def error(self) -> EdgepackError | None:
        """The worst failure, None when every cell has its bundle: the one with the lowest exit code, the earliest."""
        errors = [result.error for result in self.results if result.error is not None]
        return min(errors, key=lambda error: error.exit_code, default=None)
