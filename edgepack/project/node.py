"""The work of one node, in the process that runs it.

A node finds its inputs by digest and leaves its result in the cache. Whoever runs it looks there first, so that a node
that was lost with its worker, or that two schedulers were given, is not run again once it has finished.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from edgepack.cache import open_cache
from edgepack.cache_claims import Claim
from edgepack.choices import CompilePolicy
from edgepack.digests import Snapshot
from edgepack.errors import EdgepackError, ModelFileError, ToolMissingError
from edgepack.pipeline.build import build_target
from edgepack.pipeline.context import prepare
from edgepack.pipeline.float_model import convert_model
from edgepack.pipeline.options import BuildOptions
from edgepack.pipeline.session import Session
from edgepack.profiles.registry import get_target
from edgepack.project.cells import Cell
from edgepack.project.graph import Kind, Node
from edgepack.project.parts import Machine, describe_machine, inputs_of, is_function
from edgepack.project.store import Store, StoredBundle
from edgepack.samples.source import SampleSource

#: Environment variable with a file to which each finished node appends a line: its key, process and seconds.
JOURNAL = "EDGEPACK_NODE_JOURNAL"

#: Receives a line about the current step.
Report = Callable[[str], None]


class Work(Protocol):
    """What a process can run and an executor can schedule; it travels pickled."""

    @property
    def node(self) -> Node:
        """Where it is in the graph."""
        ...

    def run(self, report: Report, inputs_folder: Path | None = None) -> "Outcome":
        """Do it; see `run_node`."""
        ...


@dataclass(frozen=True)
class Task:
    """A node, with all that a process needs to run it.

    Attributes:
        node: The node.
        inputs: Snapshot of each file and folder that it reads, by path.
        machine: What the bundle's key was computed from; a worker that differs refuses the node.
        remote: Read inputs from the cache rather than from their paths.
    """

    node: Node
    inputs: Mapping[Path, Snapshot]
    machine: Machine
    remote: bool = False

    def run(self, report: Report, inputs_folder: Path | None = None) -> "Outcome":
        """Run the node; see `run_node`."""
        return run_node(self, report, inputs_folder=inputs_folder)


@dataclass(frozen=True)
class Outcome:
    """The end of a node.

    Attributes:
        node: Id of the node.
        error: Why it failed, None for success.
        executed: False when its result was in the cache already.
        seconds: Duration.
        lines: What it reported, for the log.
        stages: Seconds of each stage of a build.
        document: Of a failed build, what was known of its result.
        retry: The failure concerns the process, not the work: another process may succeed.
        value: What work returned that leaves nothing in the cache; the bundle where the cache cannot be written.
    """

    node: str
    error: EdgepackError | None = None
    executed: bool = True
    seconds: float = 0.0
    lines: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)
    retry: bool = False
    value: Any = None


def run_node(task: Task, report: Report, *, inputs_folder: Path | None = None) -> Outcome:
    """Run a node unless its result is in the cache.

    Args:
        task: The node.
        report: Called with each line about its progress.
        inputs_folder: Where a remote worker keeps inputs.

    Returns:
        Its outcome; a failure of the work is part of it.
    """
    start = time.monotonic()
    lines: list[str] = []
    value: StoredBundle | None = None

    def note(line: str) -> None:
        lines.append(line)
        report(line)

    store = Store(open_cache(url=task.node.cell.options.model.cache_url))
    node = task.node
    try:
        # Not the key itself, which the step of a conversion claims.
        with Claim(store.cache.root, f"node-{node.key}"):
            # A damaged entry is removed by the attempt to read it.
            if store.cache.get(node.key) is not None:
                return Outcome(node.id, executed=False, seconds=time.monotonic() - start, lines=("in the cache",))
            _require_equal(task)
            with _located(task, store, inputs_folder) as cell:
                outcome = _WORK[node.kind](node, cell, store, note)
                if outcome.error is None:
                    _require_untouched(task)
                    if isinstance(outcome, _Built):
                        store.put_bundle(node.key, outcome.bundle)
                    elif node.kind == Kind.SEARCH:
                        store.put_done(node.key)
                    # The result is stored before anyone learns that the node has ended.
                    store.cache.finish()
                    if isinstance(outcome, _Built) and not task.remote and not store.has(node.key):
                        # A disk that is full, or a folder that cannot be written.
                        value = outcome.bundle
            seconds = time.monotonic() - start
            _write_journal(node, seconds)
    except EdgepackError as error:
        outcome, seconds = _Work(error=error), time.monotonic() - start
    return Outcome(node.id, outcome.error, True, seconds, tuple(lines), outcome.stages, outcome.document, value=value)


@dataclass(frozen=True)
class _Work:
    """What a node's function returns."""

    error: EdgepackError | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Built(_Work):
    bundle: StoredBundle = field(default_factory=lambda: StoredBundle({}, {}))


def _convert(node: Node, cell: Cell, store: Store, note: Report) -> _Work:
    with Session(cell.options.model, note) as session:
        convert_model(session, cell.path)
    return _Work()


def _search(node: Node, cell: Cell, store: Store, note: Report) -> _Work:
    """Take the search to its end without compiler and bundle. The cells fail as it does, and report it."""
    options = replace(cell.options, dry_run=True, compile=CompilePolicy.NEVER, segments=0, co_compile=())
    with Session(options.model, note) as session:
        context = prepare(cell.path, options, session, note)
        result = build_target(context, get_target(cell.target))
    return _Work(result.error, result.seconds)


def _build(node: Node, cell: Cell, store: Store, note: Report) -> _Work:
    delivered: dict[str, bytes] = {}

    def deliver(files: Mapping[str, bytes], destination: Path) -> None:
        delivered.update(files)

    with Session(cell.options.model, note) as session:
        context = prepare(cell.path, cell.options, session, note)
        result = build_target(context, get_target(cell.target), deliver)
        notes, source = context.notes, asdict(context.source)
    for warning in result.warnings:
        note(f"warning: {warning}")
    # Times differ from build to build, and the place from project to project: neither belongs into the entry.
    document = {"result": {**result.to_json(), "bundle": None, "seconds": {}}, "notes": list(notes), "source": source}
    if result.error is not None:
        return _Work(result.error, result.seconds, document)
    return _Built(None, result.seconds, document, StoredBundle(delivered, document))


_WORK: Mapping[Kind, Callable[[Node, Cell, Store, Report], _Work]] = {
    Kind.CONVERT: _convert,
    Kind.SEARCH: _search,
    Kind.BUILD: _build,
}


def _require_equal(task: Task) -> None:
    """Refuse to work for a client whose edgepack, packages, targets or compiler would give another result."""
    node, theirs = task.node, task.machine
    ours = describe_machine({node.cell.target}, {node.compiler} - {""})
    if ours.edgepack != theirs.edgepack:
        raise ToolMissingError(
            f"the worker has edgepack {ours.edgepack}, the client {theirs.edgepack}",
            hint="install the same version of edgepack on every machine",
        )
    names = sorted(
        name for name in {*ours.packages, *theirs.packages} if _version(ours, name) != _version(theirs, name)
    )
    if names:
        different = ", ".join(f"{name} {_version(ours, name)} (client: {_version(theirs, name)})" for name in names)
        raise ToolMissingError(f"the worker has {different}", hint="install the same packages on every machine")
    if ours.targets.get(node.cell.target) != theirs.targets.get(node.cell.target):
        raise ToolMissingError(
            f"the target {node.cell.target} of the worker has another profile than the client's",
            hint="install the same version of the package that provides it on every machine",
        )
    if node.compiler and ours.compilers.get(node.compiler) != theirs.compilers.get(node.compiler):
        raise ToolMissingError(
            f"the worker has the compiler {node.compiler} {ours.compilers.get(node.compiler) or '(not installed)'}, "
            f"expected {theirs.compilers.get(node.compiler) or 'none'}",
            hint="install the same compiler on every machine",
        )


def _version(machine: Machine, name: str) -> str:
    return machine.packages.get(name) or "none"


@contextmanager
def _located(task: Task, store: Store, folder: Path | None) -> Iterator[Cell]:
    """Return the cell with the paths that its inputs have on this machine.

    Raises:
        EdgepackError: An input is not in the cache, or changed since the plan was made.
    """
    cell = task.node.cell
    if not task.remote or folder is None:
        _require_untouched(task)
        yield cell
        return
    places = {path: store.get_input(snapshot.digest, path.name, folder) for path, snapshot in task.inputs.items()}
    try:
        yield relocate(cell, places)
    except EdgepackError as error:
        text = error.message
        for path, place in places.items():
            text = text.replace(str(place), str(path))
        raise type(error)(text, hint=error.hint, details=error.details) from error


def relocate(cell: Cell, places: Mapping[Path, Path]) -> Cell:
    """Return a cell that reads its inputs elsewhere.

    Args:
        cell: The cell.
        places: New path of each input by its own path.
    """

    def move(path: Path | None) -> Path | None:
        return None if path is None else places[path]

    def move_source(source: SampleSource) -> SampleSource:
        return str(places[Path(source)]) if isinstance(source, str) and source and not is_function(source) else source

    options: BuildOptions = replace(
        cell.options,
        # The bundle is named like the user's file.
        samples=move_source(cell.options.samples),
        eval=move_source(cell.options.eval),
        train=move_source(cell.options.train),
        labels=move(cell.options.labels),
        metadata=move(cell.options.metadata),
        co_compile=tuple(places[path] for path in cell.options.co_compile),
    )
    return replace(cell, path=places[cell.path], options=options)


def _require_untouched(task: Task) -> None:
    if task.remote:
        return
    for entry in inputs_of(task.node.cell):
        snapshot = task.inputs.get(entry.path)
        if snapshot is None or not snapshot.untouched():
            raise ModelFileError(
                f"'{entry.path}' changed after the build had started",
                hint="run the command again when nothing writes to it",
            )


def _write_journal(node: Node, seconds: float) -> None:
    if path := os.environ.get(JOURNAL):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, f"{node.key} {node.id} {os.getpid()} {seconds:.3f}\n".encode())
        finally:
            os.close(descriptor)
