"""What happens in a run: for progress on a terminal, for logs, and as JSON lines for programs."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Happening(StrEnum):
    """Kinds of events."""

    #: The run starts: how many cells are to be built, written and left alone.
    PLANNED = "planned"
    #: A node starts.
    STARTED = "started"
    #: A node reports a step.
    STEP = "step"
    #: A process that ran a node was lost, and the node starts again.
    RETRIED = "retried"
    #: A node ended.
    FINISHED = "finished"
    #: The bundle of a cell is in its place, or its build failed.
    CELL = "cell"
    #: Something about the run as a whole, such as a scheduler that does not answer.
    NOTICE = "notice"
    #: The run ended.
    ENDED = "ended"


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        kind: What happened.
        node: Id of the node, empty where none is concerned.
        cell: Id of the cell, empty where none is concerned.
        text: A sentence for people.
        data: Further values, JSON-serializable.
    """

    kind: Happening
    node: str = ""
    cell: str = ""
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the line of `--json`."""
        document: dict[str, Any] = {"event": str(self.kind)}
        for name in ("node", "cell", "text"):
            if value := getattr(self, name):
                document[name] = value
        return {**document, **self.data}
