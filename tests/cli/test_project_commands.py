"""Commands on a project: which cells a word selects, and that one failure stops nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgepack.cli.main import run

REPOSITORY = Path(__file__).resolve().parents[2]
DIGITS = REPOSITORY / "tests" / "data" / "digits_float.tflite"
EXAMPLES = REPOSITORY / "examples" / "digits"

FILE = f"""\
[defaults]
targets = ["cpu", "edgetpu"]
labels = "{(EXAMPLES / "labels.txt").as_posix()}"

[[model]]
path = "models/digits.tflite"

[[model]]
path = "models/missing.tflite"
targets = ["cpu"]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a project of a model and one that does not exist."""
    (tmp_path / "models").mkdir()
    shutil.copyfile(DIGITS, tmp_path / "models" / "digits.tflite")
    (tmp_path / "edgepack.toml").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def outcome(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the JSON document of a command."""
    code = run([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def cells(document: dict[str, Any]) -> list[str]:
    return [entry["cell"] for entry in document["results"]]


def message(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the error of a command that is refused as wrong usage."""
    code, document = outcome(capsys, *words)
    assert code == 2
    return document["error"]["message"] + " | " + document["error"]["hint"]


def test_check_works_on_the_whole_project(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every cell has a result, in any folder of the project; the model that is missing fails alone."""
    monkeypatch.chdir(project / "models")
    code, document = outcome(capsys, "check", "--sarif", "findings.sarif")
    assert cells(document) == ["digits/cpu", "digits/edgetpu", "missing/cpu"]
    assert [entry["compatible"] for entry in document["results"]] == [True, True, False]
    assert (code, document["ok"], document["project"]) == (2, False, project.name)
    assert "missing.tflite' does not exist" in document["results"][2]["error"]["message"]
    (found, absent) = json.loads(Path("findings.sarif").read_text())["runs"]
    assert found["artifacts"][0]["location"]["uri"] == "digits.tflite"
    assert (bool(found["results"]), absent["results"]) == (True, [])


def test_words_select_cells(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, cells and patterns select; -t replaces the targets of the file."""
    assert cells(outcome(capsys, "check", "digits")[1]) == ["digits/cpu", "digits/edgetpu"]
    assert cells(outcome(capsys, "check", "*/edge*")[1]) == ["digits/edgetpu"]
    code, document = outcome(capsys, "check", "dig*", "-t", "hexagon@SM8550", "--scheme", "float16")
    assert (code, cells(document), document["results"][0]["planned"]) == (0, ["digits/hexagon@SM8550"], "float16")


def test_paths_are_models(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path with the suffix of a model, or that starts like a path, is a model: the project file is not even read."""
    (project / "edgepack.toml").write_text("broken", encoding="utf-8")
    for path in ("models/digits.tflite", "./models/digits.tflite", str(project / "models/digits.tflite")):
        code, document = outcome(capsys, "check", path, "-t", "cpu")
        assert (code, [entry["target"] for entry in document["results"]]) == (0, ["cpu"])
        assert "cell" not in document["results"][0]
    assert "'other.tflite' does not exist" in message(capsys, "check", "other.tflite", "-t", "cpu")
    assert "no target given" in message(capsys, "check", "models/digits.tflite")
    assert "give -t hexagon --soc SM8550" in message(capsys, "check", "models/digits.tflite", "-t", "hexagon@SM8550")


def test_a_name_that_is_also_another_model_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`digits` may be a model of the project or a file: which one is not guessed."""
    shutil.copyfile(DIGITS, "digits")
    assert "give './digits' for the model" in message(capsys, "check", "digits", "-t", "cpu")
    assert outcome(capsys, "check", "./digits", "-t", "cpu")[0] == 0
    assert cells(outcome(capsys, "check", "digits", "-t", "cpu", "--project", ".")[1]) == ["digits/cpu"]
    shutil.copyfile(DIGITS, "other")
    code, document = outcome(capsys, "check", "other", "-t", "cpu")
    assert (code, "cell" in document["results"][0]) == (0, False)
    (project / "edgepack.toml").write_text("[[model]]\npath = 'digits'\ntargets = ['edgetpu']\n", encoding="utf-8")
    assert cells(outcome(capsys, "check", "digits")[1]) == ["digits/edgetpu"]


def test_what_cannot_be_meant_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    """Flags of one model, several paths, names that select nothing, and a command without a project."""
    assert "-t hexagon@SM8550" in message(capsys, "check", "--soc", "SM8550")
    assert "--name is for one model" in message(capsys, "build", "--name", "x")
    assert "'b.keras' is a path" in message(capsys, "build", "digits", "b.keras")
    assert "did you mean 'digits'" in message(capsys, "build", "digit")
    (project / "edgepack.toml").write_text("[[model]]\npath = 1", encoding="utf-8")
    assert "edgepack.toml:2: [[model]] number 1: path: expected a path" in message(capsys, "compare")
    assert "give './kws'" in message(capsys, "check", "kws")
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    assert "no MODEL given, and there is no edgepack.toml" in message(capsys, "check", "-t", "cpu")
    assert "no BUNDLE given" in message(capsys, "verify")
    assert "names need a project file" in message(capsys, "check", "a", "b")


def test_faults_are_lines_of_their_own(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal shows each fault on its line."""
    (project / "edgepack.toml").write_text("[defaults]\nsample = 1\n[[model]]\npath = 1\n", encoding="utf-8")
    assert run(["check"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: 'edgepack.toml' has 2 faults",
        "edgepack.toml:2: [defaults]: unknown key 'sample', did you mean 'samples'?",
        "edgepack.toml:4: [[model]] number 1: path: expected a path, got 1",
    ]


@pytest.mark.slow
def test_build_verify_and_compare_a_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bundles are in `out`, a second build finds them, verify finds them by the names of their cells."""
    samples = ["--samples", str(EXAMPLES / "samples.npz")]
    for state in ("built", "current"):
        code, document = outcome(capsys, "build", *samples, "--summary", "summary.md")
        assert (code, cells(document)) == (2, ["digits/cpu", "digits/edgetpu", "missing/cpu"])
        table = Path("summary.md").read_text()
        assert "| digits/edgetpu | " + state in table
        assert "**missing/cpu**: " in table and "(exit code 2)" in table
        assert [entry["bundle"] is not None for entry in document["results"]] == [True, True, False]
        assert [entry["state"] for entry in document["results"]] == [state, state, "failed"]
    bundles = {path.parent.name for path in (project / "out").glob("*/manifest.json")}
    assert bundles == {"digits-cpu", "digits-edgetpu"}
    manifest = json.loads((project / "out/digits-cpu/manifest.json").read_text())
    assert str(project) not in json.dumps(manifest)
    code, document = outcome(capsys, "verify", "digits")
    assert (code, cells(document), [entry["ok"] for entry in document["results"]]) == (
        0, ["digits/cpu", "digits/edgetpu"], [True, True],
    )  # fmt: skip
    (project / "out/digits-cpu/README.md").write_text("changed")
    code, document = outcome(capsys, "verify")
    assert (code, cells(document)) == (2, ["digits/cpu", "digits/edgetpu", "missing/cpu"])
    assert [entry.get("ok", False) for entry in document["results"]] == [False, True, False]
    code, document = outcome(capsys, "verify", "out/digits-edgetpu")
    assert (code, "cell" in document["results"][0]) == (0, False)
    code, document = outcome(capsys, "compare", *samples, "--html", "pages")
    assert code == 2
    assert {entry["model"] for entry in document["results"]} == {"digits"}
    assert [model["error"] is None for model in document["models"]] == [True, False]
    assert [path.name for path in (project / "pages").iterdir()] == ["digits.html"]


def test_a_path_needs_no_sound_project(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model without a suffix that exists is checked as a path, whatever faults a project file above has."""
    shutil.copyfile(DIGITS, project / "models" / "plain")
    (project / "edgepack.toml").write_text("[[model]]\ntargets = 3\n")
    monkeypatch.chdir(project / "models")
    code, document = outcome(capsys, "verify", "plain")
    assert code == 2 and "edgepack.toml" in document["error"]["message"]
    (project / "models" / "plain").unlink()
    (project / "models" / "plain").mkdir()
    (project / "models" / "plain" / "manifest.json").write_text("{}")
    code, document = outcome(capsys, "verify", "plain")
    assert code == 7
