"""Runs what leaves no bundle (check, compare, verify) on cells, side by side; one that fails stops no other.

The cells are nodes of a graph, as in a build, and the same processes run them. Of cells with one model the first goes
ahead: the others find its conversion in the cache.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from edgepack.convert.importers.registry import importer_for
from edgepack.errors import EdgepackError
from edgepack.project.cells import Cell, Project
from edgepack.project.events import Event, Happening
from edgepack.project.executors import LocalExecutor, Message
from edgepack.project.graph import Kind, Node
from edgepack.project.matrix import cache_url
from edgepack.project.node import Outcome, Report
from edgepack.project.plan import memory_of

R = TypeVar("R")


@dataclass(frozen=True)
class CellRun(Generic[R]):
    """The outcome of one cell.

    Attributes:
        cell: The cell.
        result: What the work returned, None when it failed.
        error: Why it failed.
    """

    cell: Cell
    result: R | None = None
    error: EdgepackError | None = None


@dataclass(frozen=True)
class CellTask(Generic[R]):
    """Work on one cell.

    Attributes:
        node: The cell's node.
        work: A function of a module, called with the cell, a receiver of lines about its progress, and the arguments.
        arguments: Keyword arguments.
    """

    node: Node
    work: Callable[..., R]
    arguments: Mapping[str, Any]

    def run(self, report: Report, inputs_folder: Path | None = None) -> Outcome:
        """Return the outcome of the work, with its result as `value`."""
        start = time.monotonic()
        try:
            value, error = self.work(self.node.cell, report, **self.arguments), None
        except EdgepackError as problem:
            value, error = None, problem
        return Outcome(self.node.id, error, seconds=time.monotonic() - start, value=value)


def run_cells(
    project: Project,
    kind: Kind,
    work: Callable[..., R],
    arguments: Callable[[Cell], Mapping[str, Any]],
    *,
    jobs: int = 0,
    on_event: Callable[[Event], None] = lambda event: None,
) -> tuple[CellRun[R], ...]:
    """Run work on each cell, and return an outcome for each, in the order of the project.

    Args:
        project: The project, or a selection of its cells.
        kind: What the work is.
        work: See `CellTask`.
        arguments: Returns the keyword arguments of the work on a cell.
        jobs: Cells that are worked on side by side; 0 for as many as the machine can hold.
        on_event: Called with each event.
    """
    tasks = [CellTask(node, work, arguments(node.cell)) for node in _nodes(project, kind)]
    nodes = [{"id": task.node.id, "kind": str(kind), "seconds": None} for task in tasks]
    on_event(Event(Happening.PLANNED, data={"cells": {str(kind): len(tasks)}, "nodes": nodes}))
    runs: dict[str, CellRun[R]] = {}
    cells = {task.node.id: cell for task, cell in zip(tasks, project.cells, strict=True)}
    noticed: set[str] = set()
    messages = LocalExecutor(jobs).run(tasks)
    try:
        for message in messages:
            cell = cells.get(message.node)
            if cell is None:
                # Each process finds out for itself that the shared cache cannot be used.
                if (what := message.text.partition(": ")[0]) not in noticed:
                    noticed.add(what)
                    on_event(Event(Happening.NOTICE, text=message.text))
                continue
            if message.outcome is not None:
                outcome = message.outcome
                runs[cell.id] = CellRun(cell, cast(R | None, outcome.value), outcome.error)
            for event in _events(message, cell):
                on_event(event)
    finally:
        messages.close()  # type: ignore[attr-defined]
    return tuple(runs[cell.id] for cell in project.cells)


def _nodes(project: Project, kind: Kind) -> list[Node]:
    """Return a node for each cell; those of a model that TensorFlow converts wait for the first of them."""
    url = cache_url(project)
    leaders: dict[Path, str] = {}
    nodes: list[Node] = []
    for cell in project.cells:
        own = replace(cell, options=replace(cell.options, model=replace(cell.options.model, cache_url=url)))
        name = f"{kind}:{cell.id}"
        tensorflow = kind != Kind.VERIFY and _needs_tensorflow(cell.path)
        ahead = (leaders[cell.path],) if tensorflow and cell.path in leaders else ()
        if tensorflow:
            leaders.setdefault(cell.path, name)
        trains = kind == Kind.COMPARE and bool(cell.options.train)
        memory = memory_of(_size(cell.path), tensorflow=tensorflow or trains)
        nodes.append(Node(name, kind, "", own, after=ahead, memory=memory, tensorflow=tensorflow))
    return nodes


def _needs_tensorflow(path: Path) -> bool:
    try:
        return importer_for(path).needs_tensorflow
    except EdgepackError:
        # Whoever reads the model says what is wrong with it.
        return False


def _size(path: Path) -> int:
    """Return the bytes of a model's file or folder, 0 where there is none."""
    try:
        return path.stat().st_size if path.is_file() else sum(file.lstat().st_size for file in path.rglob("*"))
    except OSError:
        return 0


def _events(message: Message, cell: Cell) -> list[Event]:
    outcome = message.outcome
    if outcome is None:
        return [Event(Happening(message.kind), message.node, cell.id, message.text)]
    error = outcome.error
    text = "" if error is None else error.message
    data: dict[str, Any] = {"executed": True, "ok": error is None, "seconds": round(outcome.seconds, 3)}
    state: dict[str, Any] = {"state": "done" if error is None else "failed"}
    if error is not None:
        state["error"] = error.to_json()
    return [
        Event(Happening.FINISHED, message.node, cell.id, text, {"kind": message.node.partition(":")[0], **data}),
        Event(Happening.CELL, "", cell.id, text, state),
    ]
