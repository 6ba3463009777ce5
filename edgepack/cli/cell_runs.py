"""`check`, `compare` and `verify` of a project: its cells side by side, with their progress."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from edgepack.cli.matrix_progress import shown
from edgepack.cli.subjects import Selection

if TYPE_CHECKING:
    from edgepack.project.cells import Cell
    from edgepack.project.graph import Kind
    from edgepack.project.run import CellRun

R = TypeVar("R")


def run_shown(
    selection: Selection,
    kind: "Kind",
    work: Callable[..., R],
    arguments: "Callable[[Cell], Mapping[str, Any]]",
    jobs: int,
    *,
    as_json: bool,
) -> "tuple[CellRun[R], ...]":
    """Run work on the cells of a selection while its progress is on stderr; see `edgepack.project.run.run_cells`."""
    from edgepack.project.run import run_cells

    project = replace(selection.project, cells=selection.cells)
    with shown(as_json=as_json) as show:
        return run_cells(project, kind, work, arguments, jobs=jobs, on_event=show)
