"""The notebook of the documentation runs, and shows what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOK = REPOSITORY / "docs" / "tutorial.ipynb"


@pytest.mark.slow
def test_the_notebook_gives_its_stored_outputs(own_cache: Path) -> None:
    """Every cell runs in a fresh process with an empty cache, and prints what is stored."""
    done = subprocess.run(
        [sys.executable, "scripts/run_notebook", "--check", str(NOTEBOOK)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


def test_the_notebook_is_complete() -> None:
    """Every code cell was run in order; no output holds an error, a path of a machine or a script."""
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    text = json.dumps([cell["outputs"] for cell in code])
    assert "<svg" in text
    for word in ('"error"', "/tmp/", "/home/", "<script"):
        assert word not in text
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
