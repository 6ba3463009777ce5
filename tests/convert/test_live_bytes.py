"""A live model has the same bytes in every process, whatever was traced there before, so that its digest is a key."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_loops_and_branches_have_the_same_bytes(tmp_path: Path) -> None:
    """What TensorFlow numbers per process, the graph names; the saved model computes the same."""
    reports = []
    for others in (0, 40):
        folder = tmp_path / str(others)
        folder.mkdir()
        command = [sys.executable, str(Path(__file__).parent / "loop_modules.py"), str(folder), str(others)]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        reports.append(json.loads(done.stdout))
    assert reports[0] == reports[1]
    assert [same for _, same in reports[0].values()] == [True, True, True]
