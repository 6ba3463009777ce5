"""A project is built by real processes: each node once, failures on their own, the same bytes as a single build."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from builders import classifier, two_in_two_out

from edgepack.pipeline.build import build
from edgepack.pipeline.options import BuildOptions
from edgepack.project.cells import Cell, Project
from edgepack.project.events import Event
from edgepack.project.matrix import build_matrix, plan_matrix
from edgepack.project.node import JOURNAL


@pytest.fixture
def described(tmp_path: Path) -> Project:
    """Two models for two targets, and a file that is no model."""
    (tmp_path / "one.tflite").write_bytes(classifier())
    (tmp_path / "two.tflite").write_bytes(two_in_two_out())
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    options = BuildOptions(out=tmp_path / "out")
    cells = [
        Cell(name, tmp_path / f"{name}.tflite", target, "", options)
        for name, targets in (("one", ("cpu", "android-gpu")), ("broken", ("cpu",)), ("two", ("cpu",)))
        for target in targets
    ]
    return Project(tmp_path / "edgepack.toml", "zoo", tmp_path / "out", "", tuple(cells))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_project_is_built_once(described: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node runs once; a failure stops no other cell; the bundles are those of single builds."""
    journal = tmp_path / "journal"
    monkeypatch.setenv(JOURNAL, str(journal))
    events: list[Event] = []
    result = build_matrix(described, jobs=2, on_event=events.append)

    assert [entry.state for entry in result.results] == ["built", "built", "failed", "built"]
    assert result.error is not None and result.error.exit_code == 3
    keys = [line.split()[0] for line in journal.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 3
    out = described.out
    single = build(described.cells[0].path, ["cpu"], BuildOptions(out=tmp_path / "single"))
    assert single.error is None
    assert contents(out / "one-cpu") == contents(tmp_path / "single" / "one-cpu")
    assert "failed: " in (out / "logs" / "broken-cpu.log").read_text()
    for event in events:
        json.dumps(event.to_json())
    assert events[0].data["cells"] == {"current": 0, "cached": 0, "build": 4}
    assert {event.cell for event in events if event.kind == "cell"} == {cell.id for cell in described.cells}

    # Again: nothing runs but what failed, and nothing is written.
    before = contents(out)
    times = {path: path.stat().st_mtime_ns for path in (out / "one-cpu").rglob("*")}
    again = build_matrix(described, jobs=1)
    assert [entry.state for entry in again.results] == ["current", "current", "failed", "current"]
    assert [entry.reason for entry in again.results] == ["", "", "failed last time: model-file", ""]
    assert times == {path: path.stat().st_mtime_ns for path in (out / "one-cpu").rglob("*")}
    assert {name: data for name, data in before.items() if "logs" not in name and "cells" not in name}.items() <= (
        contents(out).items()
    )
    assert len(journal.read_text().splitlines()) == 3

    # A bundle that was removed comes back from the cache with the same bytes.
    kept = contents(out / "two-cpu")
    (out / "two-cpu" / "README.md").unlink()
    restored = build_matrix(described, jobs=1)
    assert restored.results[3].state == "cached"
    assert contents(out / "two-cpu") == kept
    document = restored.results[3].to_json()
    assert (document["ok"], document["cell"], document["error"]) == (True, "two/cpu", None)


def test_fail_fast_leaves_the_rest(described: Project) -> None:
    """The first failure ends the run; what is not finished is `stopped`."""
    cells = (described.cells[2], described.cells[0])
    result = build_matrix(replace(described, cells=cells), jobs=1, fail_fast=True)
    assert [entry.state for entry in result.results] == ["failed", "stopped"]


def test_a_plan_writes_nothing(described: Project) -> None:
    prepared = plan_matrix(described)
    assert [str(one.state) for one in prepared.plan.cells] == ["build"] * 4
    assert list(prepared.errors) == ["broken/cpu"]
    assert not described.out.exists()


CLIENT = """
import pickle, sys
from edgepack import interrupts
from edgepack.project.matrix import build_matrix
interrupts.raise_interrupted()
try:
    print("start", flush=True)
    project = pickle.loads(open(sys.argv[1], "rb").read())
    build_matrix(project, jobs=2, on_event=lambda event: print(event.kind, flush=True))
except interrupts.Interrupted:
    sys.exit(interrupts.exit_code())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupt_leaves_no_process(described: Project, tmp_path: Path, number: int, code: int) -> None:
    """Ctrl-C, SIGTERM and SIGKILL of the client end the processes of nodes and all that these have started."""
    import pickle

    sound = replace(described, cells=tuple(cell for cell in described.cells if cell.model != "broken"))
    (tmp_path / "project.pickle").write_bytes(pickle.dumps(sound))
    marker = f"EDGEPACK_TEST_RUN={tmp_path.name}-{number}"
    environment = {**os.environ, "EDGEPACK_TEST_RUN": f"{tmp_path.name}-{number}"}
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(tmp_path / "project.pickle")],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert client.stdout is not None
    for line in client.stdout:
        if line.strip() == "step":
            break
    client.send_signal(number)
    assert client.wait(30) == code
    client.stdout.close()
    end = time.monotonic() + 30
    while left := processes_with(marker):
        assert time.monotonic() < end, left
        time.sleep(0.1)
    # What was finished counts, and the rest is built.
    result = build_matrix(sound, jobs=2)
    assert result.error is None


def processes_with(variable: str) -> list[str]:
    """Return the processes whose environment has a variable."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("samples", ["/dev/zero", "/"])
def test_samples_that_cannot_be_read_fail_their_cells(described: Project, samples: str) -> None:
    """A device, or a folder of everything, is refused before it is read; other cells are built."""
    strange = replace(described.cells[0], model="strange", options=replace(described.cells[0].options, samples=samples))
    result = build_matrix(replace(described, cells=(strange, described.cells[3])))
    assert [entry.state for entry in result.results] == ["failed", "built"]
    assert result.results[0].error is not None
    assert "samples: '" in result.results[0].error.message


def test_a_cache_that_cannot_be_written_costs_time_only(described: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle then comes from the process that built it."""
    monkeypatch.setenv("EDGEPACK_CACHE_DIR", "/proc/none")
    result = build_matrix(replace(described, cells=(described.cells[3],)))
    assert result.error is None
    assert [entry.state for entry in result.results] == ["built"]
    assert (described.out / "two-cpu" / "manifest.json").is_file()
