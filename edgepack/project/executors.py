"""Runs the nodes of a graph; here, in processes of this machine."""

import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgepack.errors import EdgepackError, TransformError
from edgepack.limits import machine_memory
from edgepack.project.cells import Project
from edgepack.project.graph import Frontier, Node
from edgepack.project.node import Outcome, Work
from edgepack.project.parts import Machine, machine_for
from edgepack.project.processes import LostError, NodeProcess

#: How often a node is tried whose process is lost: the second time may have been bad luck, the third is the node.
ATTEMPTS = 3

#: Share of the machine's memory that nodes may hold together.
MEMORY_SHARE = 0.75


@dataclass(frozen=True)
class Message:
    """What an executor reports about a node.

    Attributes:
        node: Id of the node; empty for a message about the executor.
        kind: `started`, `step`, `retried`, `finished` or `notice`.
        text: A line for people.
        outcome: How the node ended, for `finished`.
    """

    node: str
    kind: str
    text: str = ""
    outcome: Outcome | None = None


class Executor(Protocol):
    """Runs graphs.

    Attributes:
        remote: Whether nodes may run on machines that see the cache only.
    """

    remote: bool

    def machine(self, project: Project) -> Machine:
        """Return what the machines contribute to the bundles of a project."""
        ...

    def run(self, tasks: Sequence[Work]) -> Iterator[Message]:
        """Run every node and report what happens; closing the iterator stops all work."""
        ...

    def close(self) -> None:
        """Release what the executor holds."""
        ...


def default_jobs(nodes: Sequence[Node]) -> int:
    """Return how many nodes run side by side: as many as there are processors, and as the memory holds."""
    largest = max((node.memory for node in nodes), default=1) or 1
    return max(1, min(os.cpu_count() or 1, int(machine_memory() * MEMORY_SHARE) // largest))


def failed_needs(node: Node, failures: Mapping[str, EdgepackError]) -> Outcome | None:
    """Return the outcome of a node without whose needs it cannot run, None when they succeeded."""
    for name in node.needs:
        if name in failures:
            return Outcome(node.id, failures[name], executed=False)
    return None


def lost_too_often(node: Node, how: str) -> TransformError:
    """Return the error of a node whose process was lost each time."""
    return TransformError(
        f"the process that ran {node.id} ended {ATTEMPTS} times ({how})",
        hint="the machine may be out of memory: try --jobs 1, or a worker with more memory",
    )


class LocalExecutor:
    """Runs nodes in processes of this machine.

    Args:
        jobs: How many run side by side; 0 for as many as the machine can hold.
        env: Environment variables of the processes.
    """

    remote = False

    def machine(self, project: Project) -> Machine:
        """Return what this machine contributes to the bundles of a project."""
        return machine_for(project)

    def __init__(self, jobs: int = 0, env: Mapping[str, str] | None = None) -> None:
        self._jobs = jobs
        self._env = dict(env or {})

    def run(self, tasks: Sequence[Work]) -> Iterator[Message]:
        """Run every node; closing the iterator ends the processes."""
        run = _LocalRun(tasks, self._jobs or default_jobs([task.node for task in tasks]), self._env)
        try:
            yield from run.messages()
        finally:
            run.close()

    def close(self) -> None:
        """Do nothing: the processes end with each graph."""


class _LocalRun:
    """One graph on this machine.

    Each process has a thread that hands it tasks and passes its replies to one queue; everything is decided in the
    thread that reads this queue.
    """

    def __init__(self, tasks: Sequence[Work], jobs: int, env: Mapping[str, str]) -> None:
        self._tasks = {task.node.id: task for task in tasks}
        self._frontier = Frontier([task.node for task in tasks])
        self._left = len(tasks)
        self._messages: queue.Queue[tuple[_Slot, Message]] = queue.Queue()
        self._slots = [_Slot(env, self._messages) for _ in range(min(jobs, len(tasks)))]
        self._idle = list(self._slots)
        self._memory = int(machine_memory() * MEMORY_SHARE)
        self._held: dict[str, int] = {}
        self._failures: dict[str, EdgepackError] = {}
        self._attempts: dict[str, int] = {}

    def messages(self) -> Iterator[Message]:
        while True:
            yield from self._start_ready()
            if not self._left:
                return
            slot, message = self._messages.get()
            if message.kind == "lost":
                self._idle.append(slot)
                yield from self._try_again(message)
            elif message.kind == "finished":
                self._idle.append(slot)
                assert message.outcome is not None
                yield self._finish(self._tasks[message.node].node, message.outcome)
            else:
                yield message

    def close(self) -> None:
        threads = [threading.Thread(target=slot.close) for slot in self._slots]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _start_ready(self) -> Iterator[Message]:
        progress = True
        while progress:
            progress = False
            for node in self._frontier.ready():
                if (outcome := failed_needs(node, self._failures)) is not None:
                    self._frontier.take(node)
                    yield self._finish(node, outcome)
                    progress = True
                    break
                if not self._idle:
                    return
                # A node that is larger than the machine runs alone.
                if self._held and sum(self._held.values()) + node.memory > self._memory:
                    continue
                self._frontier.take(node)
                yield self._begin(node)

    def _begin(self, node: Node) -> Message:
        self._held[node.id] = node.memory
        self._idle.pop().start(self._tasks[node.id])
        return Message(node.id, "started")

    def _finish(self, node: Node, outcome: Outcome) -> Message:
        self._held.pop(node.id, None)
        self._left -= 1
        if outcome.error is not None:
            self._failures[node.id] = outcome.error
        self._frontier.finish(node)
        return Message(node.id, "finished", outcome=outcome)

    def _try_again(self, message: Message) -> Iterator[Message]:
        node = self._tasks[message.node].node
        self._attempts[node.id] = self._attempts.get(node.id, 1) + 1
        if self._attempts[node.id] > ATTEMPTS:
            yield self._finish(node, Outcome(node.id, lost_too_often(node, message.text)))
            return
        yield Message(node.id, "retried", f"its process ended ({message.text}): trying again")
        yield self._begin(node)


class _Slot:
    """A process and the thread that talks to it."""

    def __init__(self, env: Mapping[str, str], messages: "queue.Queue[tuple[_Slot, Message]]") -> None:
        self._process = NodeProcess(env)
        self._messages = messages
        self._tasks: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._started = False

    def start(self, task: Work) -> None:
        if not self._started:
            self._started = True
            self._thread.start()
        self._tasks.put(task)

    def close(self) -> None:
        self._tasks.put(None)
        self._process.close(at_once=True)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            node = task.node.id

            def report(line: str, node: str = node) -> None:
                self._messages.put((self, Message(node, "step", line)))

            def notice(line: str) -> None:
                self._messages.put((self, Message("", "notice", line)))

            try:
                outcome = self._process.run(task, report, notice)
            except LostError as error:
                self._messages.put((self, Message(node, "lost", str(error))))
                continue
            except Exception as error:
                # A bug in the node ends this node only.
                problem = EdgepackError(f"this is a bug in edgepack: {error}", hint="please report it with these lines")
                outcome = Outcome(node, problem)
            self._messages.put((self, Message(node, "finished", outcome=outcome)))
