"""Runs the nodes of a graph on a Dask cluster.

The whole graph is handed to the scheduler, which knows each node's dependencies, memory and tools. What travels is
small: inputs and bundles go through the cache. A scheduler that is lost is waited for, and gets the nodes again that
have not finished; what has finished is found in the cache.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgepack.errors import EdgepackError, ToolMissingError, UsageError
from edgepack.limits import machine_memory
from edgepack.project.cells import Project
from edgepack.project.cluster_resources import (
    MEMORY,
    TENSORFLOW,
    compiler_resource,
    declared_resources,
    largest_resource,
    resources_of,
)
from edgepack.project.cluster_worker import TOPIC, run_on_worker
from edgepack.project.executors import (
    ATTEMPTS,
    MEMORY_SHARE,
    Message,
    lost_too_often,
)
from edgepack.project.graph import Node
from edgepack.project.node import Outcome, Work
from edgepack.project.parts import Machine, compiler_of, machine_for

#: `distributed.Client` and `distributed.Future`: half of their methods have no types.
Client = Any
Future = Any

#: Value of --scheduler for a cluster of this machine.
LOCAL = "local"

#: Seconds until a scheduler has to answer, at the start and after it was lost.
ANSWER_SECONDS = 300.0
#: Seconds between two looks at the scheduler when nothing happens.
_POLL = 1.0
#: Seconds that nodes wait for a worker that can hold them; clusters that grow on demand take minutes.
_WORKER_SECONDS = 600.0


def import_distributed() -> Any:
    """Return the package `distributed`.

    Raises:
        ToolMissingError: It is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise ToolMissingError(
            "--scheduler needs the package 'distributed'", hint="pip install 'edgepack[cluster]'"
        ) from error
    return distributed


class DaskExecutor:
    """Runs nodes on the workers of a Dask scheduler.

    Args:
        address: Address of the scheduler, such as `tcp://10.0.0.1:8786`, or `local` for a cluster of this machine.
        jobs: Workers of a local cluster; 0 for as many as the machine can hold.
        env: Environment variables of the workers of a local cluster.
    """

    remote = True

    def __init__(self, address: str, jobs: int = 0, env: Mapping[str, str] | None = None) -> None:
        self._distributed = import_distributed()
        self._address = address
        self._jobs = jobs
        self._env = dict(env or {})
        self._cluster: Any = None
        self._client: Client = None

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        client, self._client = self._client, None
        cluster, self._cluster = self._cluster, None
        for closing in (client, cluster):
            if closing is not None:
                # A scheduler that is gone does not say goodbye.
                with contextlib.suppress(Exception):
                    closing.close(timeout=5)

    def machine(self, project: Project) -> Machine:
        """Return what the workers contribute to the bundles of a project: that of the first one that answers.

        Each worker compares itself with it before it builds.
        """
        compilers = {compiler_resource(name) for name in map(compiler_of, project.cells) if name}
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            client = self._connect()
            try:
                wait_for_workers(client)
                # A worker with the compilers, where there is one: others never get nodes that need them.
                resources = {name: 1 for name in compilers if largest_resource(client, name)}
                machine: Machine = client.submit(machine_for, project, pure=False, resources=resources).result()
                return machine
            except _lost_errors():
                # The scheduler, or the worker again and again, was lost in the meantime.
                if time.monotonic() > end:
                    raise
                self._forget()
                time.sleep(_POLL)

    def run(self, tasks: Sequence[Work]) -> Iterator[Message]:
        """Run every node; closing the iterator cancels what has not started."""
        run = _ClusterRun(tasks, self._connect, self._forget)
        try:
            yield from run.messages()
        finally:
            run.cancel()

    def _forget(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close(timeout=1)

    def _connect(self) -> Client:
        """Return the connection, made anew when there is none; wait for a scheduler that does not answer.

        Raises:
            ToolMissingError: No scheduler answers.
        """
        if self._client is not None:
            return self._client
        if self._address == LOCAL and self._cluster is None:
            self._cluster = self._start_cluster()
        address = self._cluster.scheduler_address if self._cluster is not None else self._address
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                self._client = self._distributed.Client(address, timeout=10, set_as_default=False)
                return self._client
            except ValueError as error:
                raise UsageError(f"--scheduler: {error}", hint="give an address such as tcp://10.0.0.1:8786") from error
            except (OSError, TimeoutError) as error:
                if time.monotonic() > end:
                    raise ToolMissingError(
                        f"no scheduler answers at {address}", hint="start one with `dask scheduler`"
                    ) from error
                time.sleep(1)

    def _start_cluster(self) -> Any:
        jobs = self._jobs or max(1, min(os.cpu_count() or 1, int(machine_memory() * MEMORY_SHARE) >> 30))
        memory = int(machine_memory() * MEMORY_SHARE)
        with _environment(self._env):
            return self._distributed.LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                resources={MEMORY: memory // jobs, TENSORFLOW: 1},
                # The processes of nodes are not the worker's, whose own memory stays small.
                memory_limit=0,
                dashboard_address=None,
                silence_logs=50,
            )


def wait_for_workers(client: Client) -> None:
    """Wait until there is a worker.

    Raises:
        ToolMissingError: There is none for a long time.
    """
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError as error:
        raise ToolMissingError(
            "the scheduler has no workers", hint="start one with `dask worker ADDRESS --nthreads 1`"
        ) from error


def _lost_errors() -> tuple[type[BaseException], ...]:
    """Return what distributed raises when the scheduler or the worker of a result is lost."""
    distributed = import_distributed()
    killed: type[BaseException] = distributed.scheduler.KilledWorker
    return (OSError, RuntimeError, asyncio.CancelledError, concurrent.futures.CancelledError, killed)


class _ClusterRun:
    """One graph on a cluster."""

    def __init__(self, tasks: Sequence[Work], connect: Callable[[], Client], forget: Callable[[], None]) -> None:
        self._tasks = {task.node.id: task for task in tasks}
        self._connect = connect
        self._forget = forget
        # Keys of this run: a scheduler that still has results of an earlier one must not answer with them.
        self._run = secrets.token_hex(4)
        self._outcomes: dict[str, Outcome] = {}
        self._attempts: dict[str, int] = {}
        self._futures: dict[str, Future] = {}
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._round = 0
        self._lost = False
        #: Nodes whose dependency failed with its workers: they are submitted once that one is running again.
        self._blocked: set[str] = set()

    def messages(self) -> Iterator[Message]:
        client = self._submit_again()
        waiting_since = time.monotonic()
        while len(self._outcomes) < len(self._tasks):
            self._submit_blocked(client)
            try:
                kind, value = self._events.get(timeout=_POLL)
            except queue.Empty:
                if self._lost or not _answers(client):
                    yield Message("", "notice", "the scheduler does not answer: waiting for it")
                    client = self._submit_again()
                    yield Message("", "notice", "connected to the scheduler again")
                    waiting_since = time.monotonic()
                elif time.monotonic() - waiting_since > _WORKER_SECONDS:
                    yield from self._refuse_impossible(client)
                    waiting_since = time.monotonic()
                continue
            waiting_since = time.monotonic()
            if kind == "event":
                yield value
                continue
            yield from self._end(value)

    def cancel(self) -> None:
        for future in self._futures.values():
            with contextlib.suppress(Exception):
                future.cancel()
        self._futures.clear()

    def _submit_again(self) -> Client:
        """Connect anew where the scheduler was lost, and hand over every node that has not ended; return the client."""
        while True:
            if self._round:
                self._forget()
            client = self._connect()
            self._lost = False
            try:
                wait_for_workers(client)
                self._submit(client)
            except _lost_errors():
                # Lost again in the meantime.
                time.sleep(_POLL)
                continue
            return client

    def _submit(self, client: Client) -> None:
        """Hand over every node that has not ended, with those that it waits for."""
        self._futures.clear()
        self._blocked.clear()
        self._round += 1
        with contextlib.suppress(Exception):
            client.subscribe_topic(TOPIC, self._receive)
        declared = declared_resources(client)
        for task in self._tasks.values():
            if task.node.id not in self._outcomes:
                self._submit_one(client, task, declared)

    def _submit_one(self, client: Client, task: Work, declared: frozenset[str]) -> None:
        node = task.node
        needs = {name: self._outcomes.get(name) or self._futures.get(name) for name in node.needs}
        after = [self._futures[name] for name in node.after if name in self._futures and name not in self._outcomes]
        attempt = self._attempts.get(node.id, 1)
        future = client.submit(
            run_on_worker,
            task,
            self._run,
            needs,
            after,
            key=f"edgepack-{self._run}-{self._round}-{attempt}-{node.id}",
            resources={name: amount for name, amount in resources_of(node).items() if name in declared},
            retries=0,
        )
        self._futures[node.id] = future
        round_ = self._round
        future.add_done_callback(lambda done: self._events.put(("done", (round_, node.id, done))))

    def _receive(self, event: Any) -> None:
        _, message = event
        if isinstance(message, dict) and message.get("run") == self._run:
            self._events.put(("event", Message(message["node"], message["kind"], message["text"])))

    def _end(self, value: tuple[int, str, Future]) -> Iterator[Message]:
        round_, name, ended = value
        future: Future = self._futures.get(name)
        if round_ != self._round or name in self._outcomes or ended is not future:
            return
        node = self._tasks[name].node
        if future.status == "finished":
            try:
                outcome: Outcome = future.result(timeout=30)
            except (Exception, asyncio.CancelledError):
                # Lost between its end and now, with its worker or with the scheduler.
                if not _answers(self._connect()):
                    self._lost = True
                    return
                yield from self._try_again(node, "its result was lost")
                return
            if outcome.retry:
                yield from self._try_again(node, "".join(outcome.lines[-1:]))
                return
            yield self._finish(node, outcome)
        elif future.status == "error":
            error = future.exception(timeout=30)
            if type(error).__name__ == "KilledWorker" and getattr(error, "task", future.key) != future.key:
                self._blocked.add(name)
            elif type(error).__name__ == "KilledWorker":
                yield from self._try_again(node, "its workers were killed")
            elif isinstance(error, EdgepackError):
                yield self._finish(node, Outcome(name, error))
            else:
                problem = EdgepackError(f"this is a bug in edgepack: {type(error).__name__}: {error}")
                yield self._finish(node, Outcome(name, problem))
        else:
            # Cancelled or lost, together with the scheduler.
            self._lost = True

    def _finish(self, node: Node, outcome: Outcome) -> Message:
        self._outcomes[node.id] = outcome
        return Message(node.id, "finished", outcome=outcome)

    def _try_again(self, node: Node, how: str) -> Iterator[Message]:
        self._attempts[node.id] = self._attempts.get(node.id, 1) + 1
        if self._attempts[node.id] > ATTEMPTS:
            yield self._finish(node, Outcome(node.id, lost_too_often(node, how)))
            return
        yield Message(node.id, "retried", f"{how}: trying again")
        client = self._connect()
        self._submit_one(client, self._tasks[node.id], declared_resources(client))

    def _submit_blocked(self, client: Client) -> None:
        for name in sorted(self._blocked):
            node = self._tasks[name].node
            pending = [self._futures[other] for other in (*node.needs, *node.after) if other in self._futures]
            if all(future.status in {"pending", "finished"} for future in pending):
                self._blocked.discard(name)
                self._submit_one(client, self._tasks[name], declared_resources(client))

    def _refuse_impossible(self, client: Client) -> Iterator[Message]:
        """End the nodes that no worker can hold, after they have waited long for one."""
        declared = declared_resources(client)
        for name, task in self._tasks.items():
            if name in self._outcomes:
                continue
            for resource, amount in resources_of(task.node).items():
                if resource in declared and largest_resource(client, resource) < amount:
                    problem = ToolMissingError(
                        f"no worker has {resource}={amount:g}, which {name} needs",
                        hint="start one with `dask worker ADDRESS --resources ...` (docs/guides/many-machines.md)",
                    )
                    yield self._finish(task.node, Outcome(name, problem, executed=False))
                    break


def _answers(client: Client) -> bool:
    return bool(client.status == "running" and client.scheduler is not None)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
