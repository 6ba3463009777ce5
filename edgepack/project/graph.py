"""The graph of a project: nodes of work, and what each waits for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgepack.project.cells import Cell


class Kind(StrEnum):
    """What a node does."""

    #: Converts a model that several cells build from.
    CONVERT = "convert"
    #: Searches for the quantized file of several cells that differ in the chip only.
    SEARCH = "search"
    #: Builds the bundle of one cell.
    BUILD = "build"
    #: Reports where the ops of one cell run.
    CHECK = "check"
    #: Compares the schemes of one model.
    COMPARE = "compare"
    #: Verifies the bundle of one cell.
    VERIFY = "verify"


class State(StrEnum):
    """What has to be done for a cell."""

    #: The bundle is in its place, unchanged since it was written.
    CURRENT = "current"
    #: The bundle is in the cache and has to be written.
    CACHED = "cached"
    #: The bundle has to be built.
    BUILD = "build"


@dataclass(frozen=True)
class Node:
    """A piece of work that is done once. Its result is a cache entry, so that whoever needs it finds it there.

    Attributes:
        id: `KIND:NAME`, unique in a graph.
        kind: What it does.
        key: Key of its cache entry.
        cell: The cell that it builds; of shared work, the first of those that need it.
        needs: Ids of nodes without whose success it fails.
        after: Ids of nodes that it waits for, whether they succeed or not: what they leave in the cache saves it work.
        memory: Estimate of the bytes that it holds.
        tensorflow: Whether TensorFlow has to be installed where it runs.
        compiler: Id of the vendor's compiler that it runs, empty for none.
    """

    id: str
    kind: Kind
    key: str
    cell: Cell
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    memory: int = 0
    tensorflow: bool = False
    compiler: str = ""


@dataclass(frozen=True)
class PlannedCell:
    """A cell, and what has to be done for it.

    Attributes:
        cell: The cell.
        key: Key of the cache entry with its bundle.
        state: What has to be done.
        reason: Why, in a few words; empty for a bundle that is current.
        parts: What the bundle depends on: a digest or a short text for each part.
    """

    cell: Cell
    key: str
    state: State
    reason: str
    parts: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """A project's cells and the work that they need.

    Attributes:
        cells: In the order of the project.
        nodes: In an order in which every node comes after those that it waits for.
    """

    cells: tuple[PlannedCell, ...]
    nodes: tuple[Node, ...]

    def count(self, state: State) -> int:
        """Return the number of cells in a state."""
        return sum(cell.state == state for cell in self.cells)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `build --dry-run --json`."""
        nodes = {node.cell.id: node.id for node in self.nodes if node.kind == Kind.BUILD}
        return {
            "cells": [
                {
                    "id": planned.cell.id,
                    "model": planned.cell.model,
                    "target": planned.cell.target,
                    "soc": planned.cell.soc,
                    "state": str(planned.state),
                    "reason": planned.reason,
                    "node": nodes.get(planned.cell.id),
                }
                for planned in self.cells
            ],
            "nodes": [
                {
                    "id": node.id,
                    "kind": str(node.kind),
                    "cell": node.cell.id,
                    "needs": list(node.needs),
                    "after": list(node.after),
                    "memory": node.memory,
                    "tensorflow": node.tensorflow,
                    "compiler": node.compiler,
                }
                for node in self.nodes
            ],
        }


class Frontier:
    """Which nodes of a graph can run now, the first in the graph's order first.

    Args:
        nodes: The graph.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = tuple(nodes)
        self._places = {node.id: place for place, node in enumerate(nodes)}
        self._waiting = {
            node.id: {name for name in (*node.needs, *node.after) if name in self._places} for node in nodes
        }
        self._dependents: dict[str, list[str]] = {}
        for name, others in self._waiting.items():
            for other in others:
                self._dependents.setdefault(other, []).append(name)
        self._ready = [place for place, node in enumerate(nodes) if not self._waiting[node.id]]

    def ready(self) -> Iterator[Node]:
        """Iterate over the nodes that can run."""
        return (self._nodes[place] for place in sorted(self._ready))

    def take(self, node: Node) -> None:
        """Remove a node that was started."""
        self._ready.remove(self._places[node.id])

    def finish(self, node: Node) -> None:
        """Let those run that waited for a node only."""
        for name in self._dependents.get(node.id, ()):
            self._waiting[name].discard(node.id)
            if not self._waiting[name]:
                self._ready.append(self._places[name])
