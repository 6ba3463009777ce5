"""check, compare and verify of a project run side by side in processes; what one of them does concerns no other."""

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import classifier

from edgepack.errors import UsageError
from edgepack.pipeline.options import BuildOptions
from edgepack.project.cells import Cell, Project
from edgepack.project.events import Event, Happening
from edgepack.project.graph import Kind
from edgepack.project.matrix import build_matrix
from edgepack.project.run import run_cells


@pytest.fixture
def three(tmp_path: Path) -> Project:
    """Three models."""
    cells = []
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.tflite").write_bytes(classifier())
        cells.append(Cell(name, tmp_path / f"{name}.tflite", "cpu", "", BuildOptions(out=tmp_path / "out")))
    return Project(tmp_path / "edgepack.toml", "zoo", tmp_path / "out", "", tuple(cells))


def misbehave(cell: Cell, report: Callable[[str], None], *, folder: Path) -> str:
    """Fail, or end the process at the first attempt."""
    report("working")
    if cell.model == "one":
        raise UsageError("refused", hint="no")
    if cell.model == "two" and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    warnings.warn("the shared cache is not used", stacklevel=1)
    return f"{cell.model} in {os.getpid()}"


def test_a_failure_and_a_lost_process_concern_their_cell_only(
    three: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost process is replaced, each cell has its result in the order of the project, and warnings arrive once."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    events: list[Event] = []
    found = run_cells(three, Kind.CHECK, misbehave, lambda cell: {"folder": tmp_path}, jobs=2, on_event=events.append)
    assert [run.cell.model for run in found] == ["one", "two", "three"]
    assert (found[0].result, str(found[0].error)) == (None, "refused")
    values = [str(run.result) for run in found[1:]]
    assert [value.split()[0] for value in values] == ["two", "three"]
    assert str(os.getpid()) not in " ".join(values)
    kinds = [event.kind for event in events]
    assert kinds.count(Happening.RETRIED) == 1
    assert kinds.count(Happening.CELL) == 3
    assert [event.text for event in events if event.kind == Happening.NOTICE] == ["the shared cache is not used"]


def test_a_dead_shared_cache_is_one_warning_of_a_build(three: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process finds out for itself; the user reads it once, and the bundles are built."""
    monkeypatch.setenv("EDGEPACK_CACHE_URL", "file:///proc/none/cache")
    events: list[Event] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result: Any = build_matrix(three, jobs=2, on_event=events.append)
    assert result.error is None
    told = [event.text for event in events if event.kind == Happening.NOTICE] + [str(one.message) for one in caught]
    assert len([text for text in told if "shared cache" in text]) == 1, told
