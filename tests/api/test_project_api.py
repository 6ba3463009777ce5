"""A project is built from Python as from the command line, cell by cell, and one failure stops nothing."""

from pathlib import Path

import pytest
from builders import classifier

import edgepack

FILE = """\
[defaults]
targets = ["cpu", "android-gpu"]
[[model]]
path = "one.tflite"
[[model]]
path = "missing.tflite"
targets = ["cpu"]
"""


def test_a_project_is_built(tmp_path: Path) -> None:
    """Each cell has its result; names select; a second call finds everything; `load_project` has the same cells."""
    (tmp_path / "one.tflite").write_bytes(classifier())
    (tmp_path / "edgepack.toml").write_text(FILE)
    told: list[str] = []
    result = edgepack.build_project(tmp_path, jobs=2, progress=told.append)
    assert [(entry.cell, entry.state, entry.ok) for entry in result] == [
        ("one/cpu", "built", True),
        ("one/android-gpu", "built", True),
        ("missing/cpu", "failed", False),
    ]
    assert (result.ok, len(result), result.executed) == (False, 3, 2)
    with pytest.raises(edgepack.EdgepackError, match=r"missing\.tflite' does not exist"):
        result.raise_for_error()
    bundle = result["one/cpu"].bundle
    assert bundle is not None
    assert edgepack.verify(bundle, progress=False).ok
    assert "one/cpu: built" in told
    assert "missing/cpu: model: &#39;" in result._repr_html_()
    assert result.to_json()["results"][0]["cell"] == "one/cpu"
    assert result.catalog.name == "index.html"

    again = edgepack.build_project(tmp_path / "edgepack.toml", "one/*", progress=False)
    assert ([entry.state for entry in again], again.ok, again.executed) == (["current", "current"], True, 0)
    assert [cell.id for cell in edgepack.load_project(tmp_path).cells] == [entry.cell for entry in result]
    with pytest.raises(edgepack.EdgepackError, match="no results for the cell 'two/cpu'"):
        result["two/cpu"]
