"""Runs work on cells one after another; a cell that fails does not stop the others."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgepack.project.cells import Cell

R = TypeVar("R")


@dataclass(frozen=True)
class CellRun(Generic[R]):
    """The outcome of one cell.

    Attributes:
        cell: The cell.
        result: What the work returned, None when it failed.
        error: Why it failed. Another exception than an `EdgepackError` is a bug.
    """

    cell: Cell
    result: R | None = None
    error: Exception | None = None


def run_cells(cells: Iterable[Cell], work: Callable[[Cell], R]) -> tuple[CellRun[R], ...]:
    """Run work on each cell, and return an outcome for each.

    Args:
        cells: The cells.
        work: Called with each cell; an interrupt ends the loop, any other exception is the outcome of its cell.
    """
    runs = []
    for cell in cells:
        try:
            runs.append(CellRun(cell, work(cell)))
        except Exception as error:
            runs.append(CellRun[R](cell, error=error))
    return tuple(runs)
