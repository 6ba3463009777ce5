"""The catalog: entries with relative paths, changes since the run before, and a page that a real browser shows."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import browse

from edgepack.errors import ConversionError
from edgepack.pipeline.options import BuildOptions
from edgepack.project.catalog import catalog_page, read_catalog, write_catalog
from edgepack.project.cells import Cell, Project
from edgepack.project.graph import Plan
from edgepack.project.outcomes import CellResult, MatrixResult


def project_in(folder: Path) -> Project:
    options = BuildOptions(out=folder / "out")
    cells = tuple(
        Cell(model, folder / f"{model}.tflite", target, soc, options)
        for model in ("kws", "a <b>&'\"</b>")
        for target, soc in (("cpu", ""), ("hexagon", "SM8550"))
    )
    return Project(folder / "edgepack.toml", "zoo", folder / "out", "", cells)


def result_of(cell: Cell, **figures: Any) -> CellResult:
    """A built cell with a bundle on disk."""
    bundle = cell.options.out / f"{len(cell.model)}-{cell.target}"
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "manifest.json").write_text("{}")
    size = figures.get("bytes", 1000)
    document = {
        "scheme": figures.get("scheme", "int8"),
        "model": {"bytes": size, "sha256": f"{size}", "path": "model.tflite"},
        "summary": {"total": 12, "accelerator": 10, "host": 2, "unsupported": 0, "partitions": 1},
        "quality": {"top1": figures.get("top1", 90.0), "snr_db": 30.0, "verdict": "sound"},
        "warnings": ["a <i>warning</i>"],
    }
    return CellResult(cell, "built", bundle=bundle, document=document)


def run(project: Project, results: list[CellResult]) -> dict[str, dict[str, Any]]:
    write_catalog(project, MatrixResult(Plan((), ()), tuple(results)))
    return read_catalog(project.out / "index.json")


def test_changes_are_those_since_the_run_before(tmp_path: Path) -> None:
    """A cell is new, then unchanged, then has its former figures, then fails; a bundle that is gone leaves no entry."""
    project = project_in(tmp_path)
    cell, other = project.cells[0], project.cells[1]
    (project.out / "compare").mkdir(parents=True)
    (project.out / "compare" / "kws.html").write_text("")
    assert run(project, [result_of(cell), result_of(other)])[cell.id]["before"] is None
    assert run(project, [result_of(cell)])[cell.id]["before"] == {}
    changed = run(project, [result_of(cell, bytes=900, top1=91.5)])
    assert changed[cell.id]["before"] == {"bytes": 1000, "top1": 90.0, "sha256": "1000"}
    assert changed[other.id]["scheme"] == "int8"
    assert (changed[cell.id]["compare"], changed[cell.id]["bundle"]) == ("compare/kws.html", "3-cpu")
    failed = CellResult(cell, "failed", error=ConversionError("no <model>"))
    shutil.rmtree(tmp_path / "out" / "3-hexagon")
    entries = run(project, [failed])
    assert entries.keys() == {cell.id} and entries[cell.id]["error"] == "no <model>"
    assert entries[cell.id]["before"]["state"] == "ok"


def test_paths_are_relative_and_equal_runs_give_equal_files(tmp_path: Path) -> None:
    """No absolute path is in the files, and the folder's place changes no byte."""
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        project = project_in(tmp_path / name)
        results = [result_of(cell) for cell in project.cells]
        run(project, results)
        run(project, results)
        written.append([(project.out / file).read_bytes() for file in ("index.json", "index.html")])
    assert written[0] == written[1]
    assert str(tmp_path).encode() not in b"".join(written[0])


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 99, "cells": []}', '{"format": 1, "cells": [1]}'])
def test_a_foreign_index_is_no_run_before(tmp_path: Path, text: str) -> None:
    """An index.json that is damaged or of another form counts as none, and is replaced."""
    project = project_in(tmp_path)
    project.out.mkdir()
    (project.out / "index.json").write_text(text)
    entries = run(project, [result_of(project.cells[0])])
    assert entries[project.cells[0].id]["before"] is None


SCRIPT = """() => {
  const shown = () => [...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden);
  const names = () => shown().map((row) => row.cells[3].textContent);
  const first = names();
  document.querySelectorAll('th button')[3].click();
  const up = names();
  document.querySelectorAll('th button')[3].click();
  const down = names();
  const search = document.querySelector('input[type=search]');
  search.value = 'SM8550 kws';
  search.dispatchEvent(new Event('input'));
  const found = names();
  return {first, up, down, found, wide: document.documentElement.scrollWidth > innerWidth,
          markup: document.querySelectorAll('tbody b, tbody i').length,
          paper: getComputedStyle(document.body).backgroundColor};
}"""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (500, True)], ids=["desktop-light", "phone-dark"])
def test_a_browser_shows_sorts_and_filters(tmp_path: Path, width: int, dark: bool) -> None:
    """Nothing is wider than the screen, names are text, columns sort by value, and the filter takes several words."""
    project = project_in(tmp_path)
    sizes = (1000, 20_000, 500, 3_000)
    results = [result_of(cell, bytes=size) for cell, size in zip(project.cells, sizes, strict=True)]
    results[3] = replace(results[3], state="failed", error=ConversionError("no <b>model</b> " + "x" * 300))
    write_catalog(project, MatrixResult(Plan((), ()), tuple(results)))
    page = browse((project.out / "index.html").read_text(), tmp_path, width, SCRIPT, dark=dark)
    assert page["wide"] is False and page["markup"] == 0
    assert page["up"] == ["500 B", "1.0 kB", "3.0 kB", "20.0 kB"]
    assert sorted(page["first"]) == sorted(page["up"]) and page["down"] == page["up"][::-1]
    assert page["found"] == ["20.0 kB"]
    assert page["paper"] == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


def test_an_empty_catalog_is_a_page() -> None:
    """A project without bundles gives a page that says so."""
    assert "0 bundles" in catalog_page("zoo", [])
