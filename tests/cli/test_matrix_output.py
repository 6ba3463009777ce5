"""The plan and the results of a project fit a terminal, and `--json` separates events from the document."""

import json
from pathlib import Path

import pytest
from builders import classifier

from edgepack.cli import output
from edgepack.cli.matrix import build_cells
from edgepack.cli.matrix_progress import duration
from edgepack.pipeline.options import BuildOptions
from edgepack.project.cells import Cell, Project
from edgepack.project.events import Event, Happening
from edgepack.project.progress import Progress


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "net.tflite").write_bytes(classifier())
    options = BuildOptions(out=tmp_path / "out")
    cells = (
        Cell("net", tmp_path / "net.tflite", "android-gpu", "", options),
        Cell("missing", tmp_path / "missing.tflite", "cpu", "", options),
    )
    return Project(tmp_path / "edgepack.toml", "zoo", tmp_path / "out", "", cells)


def run(project: Project, *, dry_run: bool = False, as_json: bool = False) -> int:
    return build_cells(project, dry_run=dry_run, jobs=1, scheduler="", fail_fast=False, as_json=as_json)


def test_a_project_on_the_command_line(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run shows every cell with its reason, a run its results, and the exit code is that of the failed cell."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(project.path.parent)
    assert run(project, dry_run=True) == 2
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "net/android-gpu  build         never built" in shown
    assert "missing/cpu      cannot build  model: " in shown
    assert "2 cells: 1 to build, 0 to write, 0 up to date" in shown
    assert not project.out.exists()

    code = run(project, as_json=True)
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    events = [json.loads(line) for line in captured.err.splitlines()]
    assert [(entry["cell"], entry["ok"]) for entry in document["results"]] == [
        ("net/android-gpu", True),
        ("missing/cpu", False),
    ]
    assert code == document["error"]["code"] != 0
    assert [event["event"] for event in events][0 :: len(events) - 1] == ["planned", "ended"]
    assert document["results"][0]["scheme"] == "float16"

    assert run(project) == code
    captured = capsys.readouterr()
    assert max(map(len, captured.out.splitlines())) <= 80
    assert "net/android-gpu  up to date  float16" in captured.out
    assert "catalog: out/index.html" in captured.out
    assert "[1/2] " in captured.err or "[2/2] " in captured.err

    assert run(project, dry_run=True, as_json=True) == code
    plan = json.loads(capsys.readouterr().out)
    assert (plan["results"][0]["id"], plan["results"][0]["state"]) == ("net/android-gpu", "current")


def test_time_left() -> None:
    """The estimate takes what nodes took last time, then what those of this run took, shared by those that run."""
    now = [0.0]
    progress = Progress(lambda: now[0])
    nodes = [{"id": f"build:{name}", "kind": "build", "seconds": known} for name, known in (("a", 30.0), ("b", None))]
    progress.handle(Event(Happening.PLANNED, data={"cells": {"build": 2}, "nodes": nodes}))
    progress.handle(Event(Happening.STARTED, "build:a"))
    now[0] = 10.0
    assert progress.left == 20.0 + 10.0
    progress.handle(
        Event(Happening.FINISHED, "build:a", data={"kind": "build", "executed": True, "ok": True, "seconds": 10.0})
    )
    progress.handle(Event(Happening.CELL, cell="a", data={"state": "built"}))
    assert (progress.done, progress.rate, progress.left) == (1, 6.0, 10.0)
    assert [duration(seconds) for seconds in (7.2, 185, 7385)] == ["7 s", "3:05", "2:03:05"]


def test_names_of_strangers_cannot_steer_a_terminal() -> None:
    """Control characters are replaced; colors and line ends stay."""
    assert (
        output.safe("a\x1b]0;title\x07b\x1b[2Jc\x1b[31md\x9b\n\t")
        == "a\ufffd]0;title\ufffdb\ufffd[2Jc\x1b[31md\ufffd\n\t"
    )
