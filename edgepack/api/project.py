"""`edgepack.load_project` and `edgepack.build_project`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack.api.progress import shown
from edgepack.api.results import Result, plain
from edgepack.api.types import ProgressLike
from edgepack.errors import EdgepackError, UsageError
from edgepack.pipeline.reports.document import document
from edgepack.project.cells import Project
from edgepack.project.events import Event, Happening
from edgepack.project.outcomes import CellResult
from edgepack.text import readable_size


@dataclass(frozen=True, repr=False, eq=False)
class BuiltCell(Result):
    """One cell of a project's build.

    Attributes:
        cell: `MODEL/TARGET` or `MODEL/TARGET@CHIP`.
        state: `current`, `cached` or `built` for a bundle that is there; `failed`; `stopped` for a cell that
            `fail_fast` left out.
        entry: Its entry of `results` in the JSON document.
        error: Why it failed.
        bundle: Folder of the bundle, None where there is none.
    """

    cell: str
    state: str
    entry: Mapping[str, Any]
    error: EdgepackError | None = None
    bundle: Path | None = None

    @property
    def ok(self) -> bool:
        """True when the bundle is there."""
        return self.bundle is not None

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `results` of `edgepack build --json`."""
        return plain(self.entry)

    def _summary(self) -> str:
        return f"{self.cell}: {self.state}"

    def _subject(self) -> str:
        return f"{self.cell}: "


@dataclass(frozen=True, repr=False, eq=False)
class ProjectResult(Result):
    """The build of a project: a sequence, also by the cell's id.

    Attributes:
        name: Name of the project.
        results: One entry per cell, in the order of the file.
        executed: Pieces of work that were done; results that were in the cache do not count.
        catalog: The page with all bundles.
        error: The worst failure, None when every cell has its bundle.
    """

    name: str
    results: tuple[BuiltCell, ...]
    executed: int
    catalog: Path
    error: EdgepackError | None = None

    def __iter__(self) -> Iterator[BuiltCell]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, key: int | str) -> BuiltCell:
        """Return the entry at an index, or that of a cell: `result["kws/edgetpu"]`.

        Raises:
            UsageError: The build had no such cell.
        """
        if isinstance(key, int):
            return self.results[key]
        found = next((entry for entry in self.results if entry.cell == key), None)
        if found is None:
            listed = ", ".join(entry.cell for entry in self.results[:8])
            raise UsageError(f"no results for the cell '{key}'", hint=f"the results are for: {listed}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the document of `edgepack build --json`."""
        entries = [entry.to_json() for entry in self.results]
        more = {"project": self.name, "executed": self.executed, "catalog": str(self.catalog.with_suffix(".json"))}
        return plain(document("build", entries, self.error, **more))

    def _summary(self) -> str:
        return f"{self.name}: {len(self.results)} bundles"

    def _repr_html_(self) -> str:
        from edgepack.api.html import render
        from edgepack.runtime.metrics import measured_accuracy

        rows = []
        for result in self.results:
            model, quality = (result.entry.get(key) or {} for key in ("model", "quality"))
            accuracy = measured_accuracy(quality)
            size = readable_size(model["bytes"]) if model else "–"
            scheme = str(result.entry.get("scheme") or "–")
            rows.append((result.cell, result.state, scheme, size, "–" if accuracy is None else accuracy.text))
        failures = [f"{entry.cell}: {entry.error.message}" for entry in self.results if entry.error is not None]
        return render("edgepack build", ("cell", "bundle", "scheme", "size", "top-1"), rows, notes=failures)


def load_project(path: str | os.PathLike[str] | None = None) -> Project:
    """Read a project file.

    `edgepack.build(cell.path, cell.target, options=cell.options)` builds one of its cells alone.

    Args:
        path: The file or its folder; None for the `edgepack.toml` in the current folder or the nearest one above.

    Raises:
        EdgepackError: There is no such file, or it has faults: the message has each with its line.
    """
    from edgepack.project.discovery import require_project
    from edgepack.project.reader import read_project

    return read_project(require_project(None if path is None else Path(path)))


def build_project(
    path: str | os.PathLike[str] | None = None,
    names: str | Sequence[str] = (),
    *,
    jobs: int = 0,
    scheduler: str = "",
    fail_fast: bool = False,
    progress: ProgressLike = None,
) -> ProjectResult:
    """Build every cell of a project that is not up to date, as `edgepack build` without a model does.

    Options are in the file: what a call of `build` has as keywords, the file has as keys.

    Args:
        path: The project file or its folder; None for the `edgepack.toml` in the current folder or above.
        names: Names of models, cells or patterns (`"kws"`, `"*/edgetpu"`); none for the whole project.
        jobs: Cells that are built side by side; 0 for as many as the machine holds.
        scheduler: Address of a Dask scheduler whose workers build, or `local` to start one.
        fail_fast: Stop at the first failure.
        progress: Called with a sentence about each step; False for silence, None to show it in a notebook or terminal.

    Returns:
        One entry per cell; a cell that fails has its error in its entry, and the others are built.

    Raises:
        EdgepackError: The file has faults, a name selects nothing, or the output folder cannot be written.
    """
    from edgepack.api.call import at_least, texts
    from edgepack.project.catalog import write_catalog
    from edgepack.project.cluster import DaskExecutor
    from edgepack.project.matrix import build_matrix
    from edgepack.project.selection import select_cells

    at_least("jobs", jobs, 0, whole=True)
    project = load_project(path)
    project = replace(project, cells=select_cells(project, texts(names)))
    executor = DaskExecutor(scheduler, jobs) if scheduler else None
    try:
        with shown(progress) as show:

            def tell(event: Event) -> None:
                if event.kind in {Happening.STEP, Happening.CELL, Happening.NOTICE}:
                    text = event.text or str(event.data.get("state", ""))
                    show(f"{event.cell}: {text.strip()}" if event.cell else text)

            result = build_matrix(project, jobs=jobs, executor=executor, fail_fast=fail_fast, on_event=tell)
    finally:
        if executor is not None:
            executor.close()
    catalog = write_catalog(project, result)
    return ProjectResult(project.name, tuple(map(_built, result.results)), result.executed, catalog, result.error)


def _built(result: CellResult) -> BuiltCell:
    return BuiltCell(result.cell.id, result.state, result.to_json(), result.error, result.bundle)
