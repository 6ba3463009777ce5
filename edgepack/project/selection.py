"""Selects cells by what the user writes after a command: names of models, ids of cells, and patterns of both."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from edgepack.errors import UsageError
from edgepack.profiles.faults import did_you_mean
from edgepack.project.cells import Cell, Project


def select_cells(project: Project, names: Sequence[str]) -> tuple[Cell, ...]:
    """Return the cells that names select, in the order of the file; all of them without names.

    Args:
        project: The project.
        names: Names of models (`kws`), ids of cells (`kws/edgetpu`, `kws/hexagon@SM8550`), or patterns of both with
            `*`, `?` and `[...]`.

    Raises:
        UsageError: A name selects nothing.
    """
    for name in names:
        if not matches(project, name):
            known = dict.fromkeys(text for cell in project.cells for text in (cell.model, cell.id))
            models = list(dict.fromkeys(cell.model for cell in project.cells))
            listed = ", ".join(models[:8]) + (f" and {len(models) - 8} more" if len(models) > 8 else "")
            raise UsageError(
                f"'{name}' is no model and no cell of '{project.path.name}'{did_you_mean(name, known)}",
                hint=f"models are: {listed}; a cell is MODEL/TARGET or MODEL/TARGET@CHIP; * and ? stand for any text",
            )
    if not names:
        return project.cells
    return tuple(cell for cell in project.cells if any(_selects(name, cell) for name in names))


def matches(project: Project, name: str) -> bool:
    """Return whether a name selects a cell of the project."""
    return any(_selects(name, cell) for cell in project.cells)


def _selects(name: str, cell: Cell) -> bool:
    """Return whether a name selects a cell; only one with a slash concerns targets."""
    return fnmatchcase(cell.id, name) if "/" in name else fnmatchcase(cell.model, name)
