"""The state of a run as its events tell it: what is done, what runs, how fast, how long it will take."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from edgepack.project.events import Event, Happening

#: Seconds that a node is expected to take as long as none of its kind has ended.
_GUESS = {"convert": 20.0, "search": 20.0, "build": 10.0, "check": 3.0, "compare": 30.0, "verify": 2.0}


@dataclass(frozen=True)
class Running:
    """A node that runs.

    Attributes:
        node: Its id.
        since: When it started, in seconds of the clock.
        step: What it reported last.
    """

    node: str
    since: float
    step: str = ""


class Progress:
    """Follows the events of a run.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.start = clock()
        self.cells = 0
        self.done = 0
        self.failed = 0
        self.running: dict[str, Running] = {}
        self._left: dict[str, tuple[str, float | None]] = {}
        self._took: dict[str, list[float]] = {}
        self._most_running = 1

    def handle(self, event: Event) -> None:
        """Take an event into account."""
        if event.kind == Happening.PLANNED:
            self.cells = sum(event.data["cells"].values())
            self._left = {node["id"]: (node["kind"], node["seconds"]) for node in event.data["nodes"]}
        elif event.kind == Happening.STARTED:
            self.running[event.node] = Running(event.node, self._clock())
            self._most_running = max(self._most_running, len(self.running))
        elif event.kind == Happening.STEP and event.node in self.running:
            running = self.running[event.node]
            self.running[event.node] = Running(running.node, running.since, event.text.strip())
        elif event.kind == Happening.FINISHED:
            self.running.pop(event.node, None)
            self._left.pop(event.node, None)
            if event.data.get("executed") and event.data.get("ok"):
                self._took.setdefault(event.data["kind"], []).append(event.data["seconds"])
        elif event.kind == Happening.CELL:
            self.done += 1
            self.failed += event.data["state"] == "failed"

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self.start

    @property
    def rate(self) -> float:
        """Cells per minute since the start."""
        return 60.0 * self.done / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def left(self) -> float:
        """Estimate of the seconds until the end: what the nodes took in the last run, else nodes of their kind in this.

        Nodes are taken to run side by side as many as have done so.
        """
        total = 0.0
        for node, (kind, seconds) in self._left.items():
            took = self._took.get(kind)
            expected = seconds or (sum(took) / len(took) if took else _GUESS[kind])
            running = self.running.get(node)
            total += expected if running is None else max(0.0, expected - (self._clock() - running.since))
        return total / max(1, min(self._most_running, len(self._left)))
