"""Builds the cells of a project: plan, run the graph, put each bundle into its place as soon as it is there.

A cell that fails does not stop the others. Whatever ends the run, what was finished is in the cache and in the output
folder, and the next run goes on from there.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack.cache import Cache, open_cache
from edgepack.digests import Snapshot
from edgepack.errors import BundleError, EdgepackError, UsageError
from edgepack.pipeline.build import write_signed
from edgepack.pipeline.option_validation import bundle_folder, validate_build
from edgepack.profiles.registry import get_target
from edgepack.project.cells import Cell, Project
from edgepack.project.events import Event, Happening
from edgepack.project.executors import Executor, LocalExecutor, Message
from edgepack.project.facts import gather
from edgepack.project.graph import Kind, Node, Plan, PlannedCell, State
from edgepack.project.logs import CellLogs
from edgepack.project.node import Outcome, Task
from edgepack.project.outcomes import CellResult, MatrixResult
from edgepack.project.parts import Machine, inputs_of, volatile_reason
from edgepack.project.plan import make_plan
from edgepack.project.records import Record, Records, mark_of
from edgepack.project.store import Store, StoredBundle

OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Prepared:
    """A plan with what a run needs beside it.

    Attributes:
        plan: The plan.
        snapshots: Snapshot of each input, by path.
        machine: Where the cells are built.
        errors: Errors of cells that cannot be built as they are described, by their ids.
        notes: Notes about options without effect, by the cell's id.
    """

    plan: Plan
    snapshots: Mapping[Path, Snapshot]
    machine: Machine
    errors: Mapping[str, EdgepackError]
    notes: Mapping[str, tuple[str, ...]]


def cache_url(project: Project) -> str:
    """Return the URL of the shared cache: the cells' own, else the environment's, else the project's."""
    urls = (cell.options.model.cache_url for cell in project.cells)
    own = next(filter(None, urls), "")
    return own or os.environ.get("EDGEPACK_CACHE_URL", "").strip() or project.cache


def plan_matrix(project: Project, *, machine: Machine | None = None) -> Prepared:
    """Return what has to be done for a project. Nothing is built or written.

    Args:
        project: The project, or a selection of its cells.
        machine: Where the cells are built; None for this machine.

    Raises:
        UsageError: Two cells would be written to the same folder.
    """
    store = Store(open_cache(url=cache_url(project)))
    return _prepare(project, store, Records(project.out), machine, ask_shared=True)


def _prepare(
    project: Project, store: Store, records: Records, machine: Machine | None, *, ask_shared: bool = False
) -> Prepared:
    """Return the plan of a project, with `ask_shared` by what the shared cache lists.

    A build does not ask: names prove nothing, and it finds out when it reads the entries.
    """
    facts, snapshots, errors = gather(project, store, records, machine)
    notes: dict[str, tuple[str, ...]] = {}
    for cell in project.cells:
        if cell.id in errors:
            continue
        try:
            notes[cell.id] = tuple(
                validate_build([get_target(cell.target)], replace(cell.options, force=True), cell.path)
            )
        except EdgepackError as error:
            errors[cell.id] = error
    plan = make_plan(project, facts)
    if ask_shared and store.cache.remote is not None:
        keys = {planned.key for planned in plan.cells if planned.state == State.BUILD}
        shared = store.cache.remote.present(keys | {node.key for node in plan.nodes})
        facts = replace(facts, shared=shared)
        plan = make_plan(project, facts)
        store.cache.remote.emit()
    # A cell that cannot be built has no node, and nothing is done for it alone.
    sound = replace(project, cells=tuple(cell for cell in project.cells if cell.id not in errors))
    nodes = make_plan(sound, facts).nodes if errors else plan.nodes
    return Prepared(Plan(plan.cells, nodes), snapshots, facts.machine, errors, notes)


def build_matrix(
    project: Project,
    *,
    jobs: int = 0,
    executor: Executor | None = None,
    fail_fast: bool = False,
    on_event: OnEvent | None = None,
) -> MatrixResult:
    """Build every cell of a project that is not up to date.

    Args:
        project: The project, or a selection of its cells.
        jobs: Nodes that run side by side on this machine; 0 for as many as it can hold.
        executor: Runs the nodes; None for processes of this machine.
        fail_fast: Stop at the first failure, and leave the cells that are not finished.
        on_event: Called with each event.

    Raises:
        UsageError: Two cells would be written to the same folder, or the output folder cannot be written.
    """
    with _cache_of_run(project, executor) as (cells, cache):
        chosen = executor or LocalExecutor(jobs, {"EDGEPACK_CACHE_DIR": str(cache.root.absolute())})
        run = _Run(replace(project, cells=cells), Store(cache), chosen, on_event or (lambda event: None), fail_fast)
        return run.run()


@contextmanager
def _cache_of_run(project: Project, executor: Executor | None) -> Iterator[tuple[tuple[Cell, ...], Cache]]:
    """Return the cells and the cache; a project with `--no-cache` gets an empty cache that lasts as long as the run."""
    if all(cell.options.model.cache for cell in project.cells):
        yield project.cells, open_cache(url=cache_url(project))
        return
    if executor is not None and executor.remote:
        raise UsageError("--no-cache: results come back from a cluster through the cache", hint="leave it out")
    folder = Path(tempfile.mkdtemp(prefix="edgepack-matrix-"))
    try:
        options = [replace(cell.options, model=replace(cell.options.model, cache=True)) for cell in project.cells]
        cells = tuple(replace(cell, options=own) for cell, own in zip(project.cells, options, strict=True))
        yield cells, Cache(folder, limit=0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Run:
    """One run of a project."""

    def __init__(self, project: Project, store: Store, executor: Executor, on_event: OnEvent, fail_fast: bool) -> None:
        self._project = project
        self._store = store
        self._executor = executor
        self._on_event = on_event
        self._fail_fast = fail_fast
        self._records = Records(project.out)
        self._logs = CellLogs(project.out)
        self._results: dict[str, CellResult] = {}
        self._executed = 0
        self._noticed: set[str] = set()

    def run(self) -> MatrixResult:
        start = time.monotonic()
        # Where the bundles are built decides their keys.
        machine = self._executor.machine(self._project) if self._executor.remote else None
        self._prepared = _prepare(self._project, self._store, self._records, machine)
        plan = self._prepared.plan
        self._cells = _cells_of_nodes(plan)
        self._planned = {planned.cell.id: planned for planned in plan.cells}
        self._announce(plan)
        for planned in plan.cells:
            if (error := self._prepared.errors.get(planned.cell.id)) is not None:
                self._fail(planned, error)
            elif planned.state != State.BUILD:
                self._deliver(planned, str(planned.state))
            if self._fail_fast and self._failed():
                break
        else:
            self._run_nodes(plan.nodes)
        results = tuple(self._result(planned) for planned in plan.cells)
        result = MatrixResult(plan, results, self._executed)
        counts: dict[str, int] = {}
        for entry in results:
            counts[entry.state] = counts.get(entry.state, 0) + 1
        self._emit(Happening.ENDED, data={**counts, "nodes": self._executed, "seconds": _rounded(start)})
        return result

    def _announce(self, plan: Plan) -> None:
        counts = {str(state): plan.count(state) for state in State}
        # Durations of the last builds say how long this one takes.
        known = {name: record.seconds for name, record in self._records.by_cell.items() if record.seconds}
        nodes = [{"id": node.id, "kind": str(node.kind), "seconds": known.get(node.cell.id)} for node in plan.nodes]
        self._emit(Happening.PLANNED, data={"cells": counts, "nodes": nodes})

    def _result(self, planned: PlannedCell) -> CellResult:
        return self._results.get(planned.cell.id) or CellResult(planned.cell, "stopped", planned.reason)

    def _failed(self) -> bool:
        return any(result.error is not None for result in self._results.values())

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _run_nodes(self, nodes: Sequence[Node]) -> None:
        tasks = [self._task(node) for node in nodes if self._can_travel(node)]
        if not tasks:
            return
        # Workers look for the inputs there.
        self._store.cache.finish()
        messages = self._executor.run(tasks)
        names = {node.id: node for node in nodes}
        try:
            for message in messages:
                self._handle(message, names.get(message.node))
                if self._fail_fast and self._failed():
                    break
        finally:
            messages.close()  # type: ignore[attr-defined]

    def _can_travel(self, node: Node) -> bool:
        """Refuse what only this machine can do: samples that a function of the user yields."""
        if not self._executor.remote or volatile_reason(node.cell) != "samples from a function":
            return True
        error = UsageError(
            f"{node.cell.id}: samples from a function exist on this machine only",
            hint="write them to an .npz, or build this cell without --scheduler",
        )
        self._fail(self._planned[node.cell.id], error)
        return False

    def _task(self, node: Node) -> Task:
        paths = [entry.path for entry in inputs_of(node.cell)]
        inputs = {path: self._prepared.snapshots[path] for path in paths}
        if self._executor.remote:
            for snapshot in inputs.values():
                self._store.put_input(snapshot)
            inputs = {path: replace(snapshot, marks=()) for path, snapshot in inputs.items()}
        # The steps of a node find their results where the project's are.
        model = replace(node.cell.options.model, cache_url=cache_url(self._project))
        cell = replace(node.cell, options=replace(node.cell.options, model=model))
        return Task(replace(node, cell=cell), inputs, self._prepared.machine, self._executor.remote)

    def _handle(self, message: Message, node: Node | None) -> None:
        if node is None:
            # Each process finds out for itself that the shared cache cannot be used.
            if (what := message.text.partition(": ")[0]) not in self._noticed:
                self._noticed.add(what)
                self._emit(Happening.NOTICE, text=message.text)
            return
        cells = self._cells[node.id]
        for cell in cells:
            self._logs.write(cell, f"{node.id}: {message.text or message.kind}")
        if message.kind == "finished":
            assert message.outcome is not None
            self._finish(node, message.outcome)
        else:
            self._emit(Happening(message.kind), node.id, node.cell.id, message.text)

    def _finish(self, node: Node, outcome: Outcome) -> None:
        self._executed += outcome.executed
        error = outcome.error
        data: dict[str, Any] = {"kind": str(node.kind), "executed": outcome.executed, "ok": error is None}
        data["seconds"] = round(outcome.seconds, 3)
        self._emit(Happening.FINISHED, node.id, node.cell.id, "" if error is None else error.message, data)
        if node.kind != Kind.BUILD:
            return
        planned = self._planned[node.cell.id]
        if error is not None:
            self._fail(planned, error, outcome)
        else:
            self._deliver(planned, "built", outcome)

    # -- cells -------------------------------------------------------------------------------------------------------

    def _deliver(self, planned: PlannedCell, state: str, outcome: Outcome | None = None) -> None:
        """Put a bundle from the cache into its place."""
        cell = planned.cell
        record = self._records.by_cell.get(cell.id)
        seconds = outcome.seconds if outcome is not None else record.seconds if record is not None else 0.0
        try:
            bundle = self._store.get_bundle(planned.key)
            if bundle is None and outcome is not None and isinstance(outcome.value, StoredBundle):
                bundle = outcome.value
            if bundle is None:
                raise BundleError(
                    f"the bundle of {cell.id} is not in the cache any more",
                    hint="run the command again; on a cluster, workers and client need the same cache",
                )
            destination = bundle_folder(cell.path, cell.target, cell.options)
            if planned.state != State.CURRENT:
                write_signed(bundle.files, destination, replace(cell.options, force=True))
                self._record(Record(cell.id, planned.key, planned.parts, mark_of(destination), "", round(seconds, 3)))
        except EdgepackError as error:
            self._fail(planned, error, outcome)
            return
        document = bundle.document
        stages = outcome.stages if outcome is not None else {}
        self._add(
            CellResult(
                cell,
                state,
                planned.reason,
                destination,
                {**document["result"], "seconds": {name: round(value, 3) for name, value in stages.items()}},
                (*document["notes"], *self._prepared.notes.get(cell.id, ())),
                document["source"],
                None,
                seconds,
            )
        )

    def _fail(self, planned: PlannedCell, error: EdgepackError, outcome: Outcome | None = None) -> None:
        document = outcome.document if outcome is not None else {}
        seconds = outcome.seconds if outcome is not None else 0.0
        self._record(Record(planned.cell.id, planned.key, planned.parts, "", error.kind, round(seconds, 3)))
        self._add(
            CellResult(
                planned.cell,
                "failed",
                planned.reason,
                None,
                document.get("result", {}),
                (*document.get("notes", ()), *self._prepared.notes.get(planned.cell.id, ())),
                document.get("source", {}),
                error,
                seconds,
            )
        )

    def _add(self, result: CellResult) -> None:
        self._results[result.cell.id] = result
        error = result.error
        self._logs.finish(result.cell.id, result.state, error, str(result.document.get("scheme", "")))
        data: dict[str, Any] = {"state": result.state, "reason": result.reason}
        if error is not None:
            data["error"] = error.to_json()
        self._emit(Happening.CELL, "", result.cell.id, "" if error is None else error.message, data)

    def _record(self, record: Record) -> None:
        try:
            self._records.add(record)
        except OSError as error:
            place = self._project.out
            raise UsageError(f"cannot write '{place}': {error.strerror or error}") from error

    def _emit(
        self, kind: Happening, node: str = "", cell: str = "", text: str = "", data: dict[str, Any] | None = None
    ) -> None:
        self._on_event(Event(kind, node, cell, text, data or {}))


def _rounded(start: float) -> float:
    return round(time.monotonic() - start, 3)


def _cells_of_nodes(plan: Plan) -> dict[str, list[str]]:
    """Return the ids of the cells that each node works for, by the node's id."""
    waiting: dict[str, dict[str, None]] = {node.id: {} for node in plan.nodes}
    for node in plan.nodes:
        for name in (*node.needs, *node.after):
            waiting.get(name, {})[node.cell.id] = None
    return {
        node.id: [node.cell.id] if node.kind == Kind.BUILD else list(waiting[node.id]) or [node.cell.id]
        for node in plan.nodes
    }
