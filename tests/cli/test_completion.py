"""Shell completion: what a shell gets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgepack.choices import CompilePolicy
from edgepack.cli.completion import model_names, target_ids, values_of

REPOSITORY = Path(__file__).resolve().parents[2]


def complete(line: str, folder: Path) -> list[str]:
    """What bash gets for the last word of a line."""
    words = line.split(" ")
    environment = {
        **os.environ, "PYTHONPATH": str(REPOSITORY), "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
        "_EDGEPACK_COMPLETE": "complete_bash",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "edgepack"], capture_output=True, text=True, env=environment, cwd=folder, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_gets_commands_options_and_values(tmp_path: Path) -> None:
    """Commands, options and values; a word that nothing fits is left to the shell, which completes files."""
    assert complete("edgepack che", tmp_path) == ["check"]
    assert complete("edgepack check --require", tmp_path) == ["--require-full"]
    assert complete("edgepack targets show an", tmp_path) == ["android-gpu"]
    assert complete("edgepack check mod", tmp_path) == []


def test_targets_and_fixed_values() -> None:
    """Targets with `all`, and the values that an option accepts."""
    assert {"cpu", "edgetpu", "all"} <= set(target_ids(""))
    assert target_ids("edge") == ["edgetpu"]
    assert values_of(CompilePolicy)("") == ["auto", "require", "never"]


def test_models_are_the_project_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, or the stems of paths; a project file with faults completes nothing, and raises nothing."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "edgepack.toml"
    assert model_names("") == []
    file.write_text('[[model]]\npath = "a/keyword.tflite"\n[[model]]\npath = "x.tflite"\nname = "person"\n')
    assert model_names("") == ["keyword", "person"]
    assert model_names("p") == ["person"]
    for faulty in ("[[model", "model = 3", "model = [3]", "[[model]]\nname = 4"):
        file.write_text(faulty)
        assert model_names("x") == []
