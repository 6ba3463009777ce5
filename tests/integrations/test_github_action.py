"""The GitHub Action and the pre-commit hook, run as their hosts run them: the steps' own scripts on real files."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ACTION = REPOSITORY / "integrations" / "github-action"
HOOK = REPOSITORY / "integrations" / "pre-commit" / "check.py"
DIGITS = REPOSITORY / "tests" / "data" / "digits_float.tflite"


def run_action(folder: Path, **inputs: str) -> tuple[subprocess.CompletedProcess[str], str, Mapping[str, str]]:
    """Run the action's script in a folder; return the process, the summary and the outputs."""
    defaults = {"models": "*.tflite", "targets": "edgetpu", "command": "check", "arguments": "", "sarif": "reports"}
    environment = {f"EDGEPACK_{name.upper()}": value for name, value in {**defaults, **inputs}.items()}
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        (folder / name).write_text("")
        environment[name] = str(folder / name)
    done = subprocess.run(
        [sys.executable, ACTION / "run.py"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    outputs = dict(line.split("=", 1) for line in (folder / "GITHUB_OUTPUT").read_text().splitlines())
    return done, (folder / "GITHUB_STEP_SUMMARY").read_text(), outputs


def test_models_are_checked_with_summary_and_sarif(tmp_path: Path) -> None:
    """Each model of the patterns has a table and a SARIF file; a broken one ends none of the others."""
    shutil.copy(DIGITS, tmp_path / "a $(touch run) net.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    done, summary, outputs = run_action(tmp_path, targets="edgetpu, cpu")
    assert done.returncode == 3 and outputs == {"exit-code": "3"}, done.stderr
    assert "### `a $(touch run) net.tflite`" in summary and "| edgetpu | fits | int8 |" in summary
    assert "### `broken.tflite`" in summary and "exit code 3" in summary
    (report,) = (tmp_path / "reports").glob("*net.tflite.sarif")
    assert json.loads(report.read_text())["version"] == "2.1.0"
    assert not (tmp_path / "run").exists()


def test_wrong_inputs_say_what_is_expected(tmp_path: Path) -> None:
    """An unknown command and patterns without a file end with 2 and an annotation."""
    for inputs, expected in (({"command": "train"}, "expected check or build"), ({"models": "none*"}, "no path or")):
        done, _, _ = run_action(tmp_path, **inputs)
        assert done.returncode == 2 and f"::error::{next(iter(inputs))}: {expected}" in done.stdout


@pytest.mark.slow
def test_build_is_a_dry_run_with_a_summary(tmp_path: Path) -> None:
    """`command: build` measures without writing a bundle."""
    shutil.copy(DIGITS, tmp_path / "net.tflite")
    samples = REPOSITORY / "examples" / "digits" / "samples.npz"
    done, summary, _ = run_action(tmp_path, command="build", targets="cpu", arguments=f"--samples '{samples}'")
    assert done.returncode == 0, done.stderr
    assert "| cpu | built | int8 |" in summary
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["reports"]


def test_inputs_never_become_part_of_a_command() -> None:
    """The action's scripts contain no expression: text of a pull request reaches them as variables only."""
    text = (ACTION / "action.yml").read_text()
    runs = re.findall(r"^ +run: (.*)$", text, re.MULTILINE)
    assert len(runs) == 2 and not any("${{" in run for run in runs)
    declared = set(re.findall(r"inputs\.([a-z-]+)", text))
    defined = set(re.findall(r"^  ([a-z-]+):$", text[text.index("inputs:") : text.index("outputs:")], re.MULTILINE))
    assert declared == defined


def test_hook_checks_every_file(tmp_path: Path) -> None:
    """The hook runs `check` on each file and ends with the highest exit code."""
    shutil.copy(DIGITS, tmp_path / "net.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for files, code in ((["net.tflite"], 0), (["net.tflite", "broken.tflite"], 3), ([], 0)):
        command = [sys.executable, HOOK, "--target", "edgetpu", *files]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr
    text = (REPOSITORY / ".pre-commit-hooks.yaml").read_text()
    assert str(HOOK.relative_to(REPOSITORY)) in text and os.access(HOOK, os.X_OK)
