"""`edgepack init`: what is in a folder is in the file, and the file can be read, whatever the names are."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack.cli.main import run
from edgepack.convert import FloatModel
from edgepack.convert.importers import registry
from edgepack.convert.importers.base import Conversion, Importer
from edgepack.project.draft import draft_text, make_draft, quoted
from edgepack.project.reader import read_project
from edgepack.project.scan import Findings, FoundModel, FoundSamples, Role, scan

REPOSITORY = Path(__file__).resolve().parents[2]
DIGITS = REPOSITORY / "tests" / "data" / "digits_float.tflite"
EXAMPLES = REPOSITORY / "examples" / "digits"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as people have it: models of all formats, data, and much that is neither."""
    for name in (
        "models/kws",
        "models/saved",
        "data/val/cat",
        "data/val/dog",
        "data/icons",
        ".git",
        "venv",
        "out/a-cpu",
    ):
        (tmp_path / name).mkdir(parents=True)
    shutil.copyfile(DIGITS, tmp_path / "models/digits.tflite")
    shutil.copyfile(DIGITS, tmp_path / "models/digits_edgetpu.tflite")
    shutil.copyfile(DIGITS, tmp_path / "models/kws/kws.tflite")
    shutil.copyfile(EXAMPLES / "digits.keras", tmp_path / "models/digits.keras")
    (tmp_path / "models/saved/saved_model.pb").write_bytes(b"\x08\x01")
    (tmp_path / "models/broken.h5").write_bytes(b"nothing")
    for hidden in (".git", "venv", "out/a-cpu"):
        shutil.copyfile(DIGITS, tmp_path / hidden / "hidden.tflite")
    shutil.copyfile(EXAMPLES / "samples.npz", tmp_path / "models/kws/samples.npz")
    shutil.copyfile(EXAMPLES / "labels.txt", tmp_path / "data/labels.txt")
    (tmp_path / "requirements.txt").write_text("numpy\n")
    for number in range(4):
        for kind in ("val/cat", "val/dog"):
            (tmp_path / "data" / kind / f"{number}.png").touch()
    (tmp_path / "data/icons/logo.png").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outcome(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = run([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_models_samples_and_labels_are_found(folder: Path) -> None:
    """All formats and class folders; nothing in bundles, environments, hidden folders and behind links."""
    found = scan(folder)
    assert [(model.path.as_posix(), model.format) for model in found.models] == [
        ("models/digits.keras", "keras"),
        ("models/digits.tflite", "tflite"),
        ("models/saved", "saved_model"),
        ("models/kws/kws.tflite", "tflite"),
    ]
    assert found.samples == [
        FoundSamples(Path("data/val"), Role.EVAL, labelled=True),
        FoundSamples(Path("models/kws/samples.npz"), Role.SAMPLES, labelled=False),
    ]
    assert found.labels == [Path("data/labels.txt")]
    assert ["broken.h5" in note or "digits_edgetpu" in note for note in found.notes] == [True, True]


class NetFolder(Importer):
    """A plugin's format: a folder with net.cfg; any other folder makes it fail."""

    id = "netfolder"
    title = "a folder with net.cfg"

    def recognizes(self, path: Path, head: bytes) -> bool:
        return bool((path / "net.cfg").read_text())

    def convert(self, conversion: Conversion) -> FloatModel:
        raise NotImplementedError


def test_folders_of_plugins_are_models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that is a folder is found by its importer, and nothing is searched for inside."""
    installed = registry._installed()
    plugged = replace(installed, importers=(*installed.importers, NetFolder()))
    monkeypatch.setattr(registry, "_installed", lambda: plugged)
    (folder / "models/net").mkdir()
    (folder / "models/net/net.cfg").write_text("layers")
    shutil.copyfile(DIGITS, folder / "models/net/part.tflite")
    found = {model.path.as_posix(): model.format for model in scan(folder).models}
    assert found.get("models/net") == "netfolder"
    assert "models/net/part.tflite" not in found
    assert len(found) == 5


def test_the_file_is_what_was_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The written file is read back: names are unique, samples belong to the model beside them, labels to all."""
    code, document = outcome(capsys, "init", "-t", "cpu", "-t", "hexagon@SM8550", "--schema")
    assert (code, document["files"]) == (0, ["edgepack.toml", "edgepack.schema.json"])
    project = read_project(folder / "edgepack.toml")
    assert [cell.id for cell in project.cells if cell.target == "cpu"] == [
        "digits/cpu", "digits-tflite/cpu", "saved/cpu", "kws/cpu",
    ]  # fmt: skip
    assert {cell.soc for cell in project.cells} == {"", "SM8550"}
    samples = {cell.model: cell.options.samples for cell in project.cells if cell.options.samples}
    assert samples == {"kws": str(folder / "models/kws/samples.npz")}
    assert {cell.options.eval for cell in project.cells} == {str(folder / "data/val")}
    assert {cell.options.labels for cell in project.cells} == {folder / "data/labels.txt"}
    text = (folder / "edgepack.toml").read_text(encoding="utf-8")
    assert text.startswith("#:schema ./edgepack.schema.json\n")
    assert str(folder) not in text


def test_no_file_is_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A project file, or a schema that is another one, stays; nothing is written then."""
    (folder / "edgepack.schema.json").write_text("mine")
    code, document = outcome(capsys, "init", "--schema")
    assert (code, "exists already" in document["error"]["message"]) == (2, True)
    assert not (folder / "edgepack.toml").exists()
    assert outcome(capsys, "init")[0] == 0
    before = (folder / "edgepack.toml").read_bytes()
    assert outcome(capsys, "init", "-t", "edgetpu")[0] == 2
    assert (folder / "edgepack.toml").read_bytes() == before
    (folder / "edgepack.toml").unlink()
    (folder / "edgepack.toml").symlink_to(folder / "elsewhere.toml")
    assert outcome(capsys, "init")[0] == 2
    assert not (folder / "elsewhere.toml").exists()


def test_a_folder_without_models_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty file would help nobody; the error says what is read, and what was left out and why."""
    (tmp_path / "net.h5").write_bytes(b"nothing")
    code, document = outcome(capsys, "init", str(tmp_path))
    assert (code, "net.h5" in document["error"]["message"]) == (2, True)
    assert outcome(capsys, "init", str(tmp_path / "none"))[0] == 2
    assert outcome(capsys, "init", str(tmp_path), "-t", "edgetp")[0] == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "net.h5"]


def test_names_that_no_file_can_contain_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is not UTF-8 has no form in TOML; escape sequences in names do not reach the terminal."""
    shutil.copyfile(DIGITS, os.fsencode(tmp_path) + b"/\xff.tflite")
    shutil.copyfile(DIGITS, tmp_path / "\x1b[31m\n[[model]]\x7f.tflite")
    assert run(["init", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out
    assert "not valid UTF-8" in captured.out
    (cell,) = read_project(tmp_path / "edgepack.toml").cells
    assert cell.path.exists()


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\x00"), min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."}
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: Path(*parts))


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    models=st.lists(PATHS, min_size=1, max_size=5, unique=True),
    samples=st.lists(st.tuples(PATHS, st.sampled_from(Role)), max_size=4),
    labels=st.lists(PATHS, max_size=2),
    name=NAMES,
)
def test_any_name_gives_a_file_that_can_be_read(
    drawn: Path,
    models: list[Path],
    samples: list[tuple[Path, Role]],
    labels: list[Path],
    name: str,
) -> None:
    """Quotes, line feeds and brackets in names stay names: the file has the models that were found, and no others."""
    found = Findings(
        [FoundModel(path, "tflite") for path in models],
        [FoundSamples(path, role, labelled=True) for path, role in samples],
        labels,
    )
    file = drawn / "edgepack.toml"
    text = draft_text(make_draft(name, found, ["hexagon@SM8550", "cpu"]), ["cpu"])
    file.write_text(text, encoding="utf-8", newline="\n")
    project = read_project(file)
    assert project.name == name
    assert [cell.path for cell in project.cells[::2]] == [file.parent / path for path in models]


def test_texts_are_quoted() -> None:
    """Characters that TOML does not allow in a text are escaped."""
    assert quoted('a"\\\n\x7fé') == '"a\\"\\\\\\n\\u007fé"'
