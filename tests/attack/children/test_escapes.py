"""Hostile code in a child reaches no outside file, process, network, kernel object, nor its parent."""

import dataclasses
import enum
import os
import pickle
import subprocess
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from edgepack import confinement, messages
from edgepack.child import ChildException, ChildTimeout, Worker
from edgepack.errors import UsageError
from edgepack.job import Job
from edgepack.schemes import get_scheme

MODULES = [
    *(f"edgepack.convert.{name}" for name in ("child", "mlir_quantize", "open_shapes")),
    *("edgepack.bundle.golden", "edgepack.pipeline.jobs", "edgepack.training.api"),
]

linux = pytest.mark.skipif(
    not confinement.landlock_version() or not confinement.has_seccomp(),
    reason="Landlock or seccomp is not offered here",
)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@linux
def test_nothing_outside_is_reached(worker: Worker, victim: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    """Every attempt is refused, and the files and the process that were attacked are as before."""
    own = tmp_path / "own"
    own.write_text("text")
    assert worker.call("escapes:attempt_all", os.getpid(), victim.pid, tmp_path) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    assert own.read_text() == "text"
    assert victim.poll() is None


@linux
def test_quiet_changes_change_nothing(worker: Worker, victim: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    """What Landlock does not cover reports success and changes nothing: modes, times, priorities, processors."""
    own = tmp_path / "own"
    own.write_text("text")

    def state() -> tuple[object, ...]:
        file = own.stat()
        return (
            file.st_mode, file.st_mtime_ns, os.getpriority(os.PRIO_PROCESS, victim.pid),
            os.sched_getaffinity(victim.pid), os.sched_getscheduler(victim.pid),
        )  # fmt: skip

    before = state()
    worker.call("escapes:change_quietly", own, victim.pid)
    assert state() == before


def test_computing_is_possible(worker: Worker) -> None:
    """Threads, own files, own limits, own signals and randomness work."""
    assert worker.call("escapes:compute") == [4] * 6


@linux
def test_the_limit_on_cpu_time_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that computes without end on many processors ends by its CPU time, before the wall time."""
    monkeypatch.setattr("edgepack.limits.cpu_seconds", lambda seconds: 0.1)
    with Worker() as own, pytest.raises(ChildTimeout, match="limit on CPU time"):
        own.call("escapes:spin", timeout=60)


def test_a_reply_runs_nothing(tmp_path: Path) -> None:
    """A reply that names a function is refused before the function is called, and the next call works."""
    marker = tmp_path / "marker"
    with Worker() as own:
        # The name of a function, and one that walks from a module of edgepack to another module's function.
        for place in (
            ("os", "mkdir"),
            ("edgepack.files", "os.mkdir"),
            ("builtins", "eval"),
            ("edgepack.child", "Worker"),
        ):
            with pytest.raises(ChildException, match="not plain data"):
                own.call("escapes:reply_that_calls", *place, marker)
        assert not marker.exists()
        with pytest.raises(ChildException, match="reply claims"):
            own.call("escapes:endless_reply")
        with pytest.raises(ChildException, match="reply cannot be read"):
            own.call("escapes:raw_reply", b"\x80\x04K\x01.")
        assert own.call("math:sqrt", 4) == 2


def test_plain_data_is_accepted() -> None:
    """What children return: values, arrays and scalars of any type, paths, dataclasses, enums, errors."""
    from ml_dtypes import bfloat16

    error = UsageError("wrong", hint="right", details={"a": 1})
    values = [
        {"a": (1, 2.5, None, b"x", {1}, frozenset({2}), complex(1))}, Path("a/b"), get_scheme("int8"), float("inf"),
        np.arange(6).reshape(2, 3).T, np.float32(1), np.array(["a"]), np.array([{"a": 1}], object), np.dtype("i4"),
        np.ones(2, bfloat16), np.bool_(True),
    ]  # fmt: skip
    kind, back = messages.load_reply(pickle.dumps(("ok", values), protocol=5))
    assert kind == "ok" and repr(back) == repr(values)
    copy = messages.load_reply(pickle.dumps(("error", error), protocol=5))[1]
    assert (type(copy), copy.message, copy.hint, copy.details) == (UsageError, "wrong", "right", {"a": 1})


def test_every_job_returns_plain_data() -> None:
    """The declared result of each job consists of what a reply may contain."""
    jobs = {
        name: value
        for module in MODULES
        for name, value in vars(import_module(module)).items()
        if isinstance(value, Job)
    }
    assert len(jobs) > 15
    seen: set[object] = set()

    def check(kind: object, place: str) -> None:
        for part in typing.get_args(kind):
            check(part, place)
        if typing.get_origin(kind) is not None or kind in seen or kind in {typing.Any, Ellipsis, None}:
            return
        seen.add(kind)
        assert isinstance(kind, type), (place, kind)
        if dataclasses.is_dataclass(kind):
            hints = typing.get_type_hints(kind)
            for field in dataclasses.fields(kind):
                check(hints[field.name], f"{place}, {kind.__name__}.{field.name}")
        else:
            plain = kind.__module__ in {"builtins", "numpy", "pathlib"} or issubclass(kind, enum.Enum)
            assert plain or hasattr(kind, "_fields"), (place, kind)

    for name, job in jobs.items():
        check(typing.get_type_hints(job.function)["return"], name)
