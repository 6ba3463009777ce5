"""`edgepack train`: files and a document come out, or an error that says what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "digits"
MODEL = EXAMPLES / "digits.keras"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run edgepack in a process of its own, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "edgepack", "train", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "80"},
    )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([MODEL, "--recipe", "qta"], 2, "unknown recipe 'qta'"),
        ([MODEL, "--recipe", "prune", "--sparsity", "1.5"], 2, "--sparsity"),
        ([MODEL, "--recipe", "prune", "--pattern", "4:2"], 2, "unknown pattern '4:2'"),
        ([MODEL, "--io", "int4"], 2, "--io: expected float32, int8 or uint8, got 'int4'"),
        ([REPOSITORY / "tests" / "data" / "digits_float.tflite"], 4, "only a Keras model can be trained"),
        ([EXAMPLES], 4, "is a folder, and only a Keras model can be trained"),
        (["nothing.keras"], 2, "'nothing.keras' does not exist"),
    ],
    ids=["recipe", "sparsity", "pattern", "io", "tflite", "folder", "nothing"],
)
def test_errors(tmp_path: Path, arguments: list, code: int, text: str) -> None:
    """What cannot work ends with the documented exit code and a hint, before anything is converted or written."""
    done = run(*arguments, "--data", EXAMPLES / "eval.npz", "-o", tmp_path / "out", "--json")
    assert done.returncode == code, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["command"], found["ok"]) == ("train", False)
    assert text in found["error"]["message"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_train(tmp_path: Path) -> None:
    """Data without labels is refused; with labels the files are written once, and again only with --force."""
    refused = run(MODEL, "--data", EXAMPLES / "samples.npz", "-o", tmp_path / "out", "--json")
    assert refused.returncode == 2
    error = json.loads(refused.stdout)["error"]
    assert error["kind"] == "samples"
    assert "'samples.npz' have no labels" in error["message"]

    stored = np.load(EXAMPLES / "eval.npz")
    (x,) = [stored[name] for name in stored.files if stored[name].ndim == 4]
    for name, part in (("train", slice(0, 300)), ("test", slice(300, 450))):
        np.savez(tmp_path / f"{name}.npz", x=x[part], y=stored["y"][part])
    asked = [MODEL, "--data", tmp_path / "train.npz", "--validation", tmp_path / "test.npz", "--epochs", "1"]
    first = run(*asked, "-o", tmp_path / "out.tflite", "--json")
    assert first.returncode == 0, first.stdout + first.stderr
    (result,) = json.loads(first.stdout)["results"]
    assert result["model"] == str(tmp_path / "out.tflite")
    assert result["scheme"] == "int8-qat"
    assert result["quality"]["top1"] >= result["quality"]["top1_float"] - 1
    assert result["report"]["gzip_bytes"] < 0.5 * result["float_gzip_bytes"]
    assert result["history"][0]["stage"] == "qat"
    data = (tmp_path / "out.tflite").read_bytes()
    assert len(data) == result["report"]["bytes"]
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == {key: value for key, value in result.items() if key in written}
    assert str(tmp_path) not in (tmp_path / "out.json").read_text()

    again = run(*asked, "-o", tmp_path / "out.tflite")
    assert again.returncode == 2
    assert "is already there" in again.stderr
    forced = run(*asked, "-o", tmp_path / "out.tflite", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "top-1" in forced.stdout
    assert "per channel" in forced.stdout
    # The same training comes from the cache, byte for byte.
    assert (tmp_path / "out.tflite").read_bytes() == data
    assert {file.name for file in tmp_path.iterdir()} == {"out.tflite", "out.json", "train.npz", "test.npz"}
