"""`edgepack train`: it writes a model and a report, or ends with an error that has a hint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgepack.cli.main import run as run_in_process

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
        ([MODEL, "--recipe", "qta"], 2, "--recipe: expected qat, prune, "),
        ([MODEL, "--recipe", "prune", "--sparsity", "1.5"], 2, "--sparsity"),
        ([MODEL, "--recipe", "prune", "--pattern", "4:2"], 2, "--pattern: expected 2:4 or block, got '4:2'"),
        ([MODEL, "--io", "int4"], 2, "--io: expected float32, int8 or uint8, got 'int4'"),
        ([REPOSITORY / "tests" / "data" / "digits_float.tflite"], 4, "only a Keras model can be trained"),
        ([EXAMPLES], 4, "is a folder, and only a Keras model can be trained"),
        (["nothing.keras"], 2, "'nothing.keras' does not exist"),
    ],
    ids=["recipe", "sparsity", "pattern", "io", "tflite", "folder", "nothing"],
)
def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list, code: int, text: str) -> None:
    """A request that cannot work ends with the documented exit code before anything is converted or written."""
    words = ["train", *arguments, "--data", EXAMPLES / "eval.npz", "-o", tmp_path / "out", "--json"]
    assert run_in_process([*map(str, words)]) == code
    document = json.loads(capsys.readouterr().out)
    assert (document["command"], document["ok"]) == ("train", False)
    assert text in document["error"]["message"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_train(tmp_path: Path) -> None:
    """Data without labels is refused; existing files are replaced only with --force."""
    refused = run(MODEL, "--data", EXAMPLES / "samples.npz", "-o", tmp_path / "out", "--json")
    assert refused.returncode == 2
    error = json.loads(refused.stdout)["error"]
    assert error["kind"] == "samples"
    assert "'samples.npz' have no labels" in error["message"]

    stored = np.load(EXAMPLES / "eval.npz")
    (x,) = [stored[name] for name in stored.files if stored[name].ndim == 4]
    for name, part in (("train", slice(0, 300)), ("test", slice(300, 450))):
        np.savez(tmp_path / f"{name}.npz", x=x[part], y=stored["y"][part])
    arguments = [MODEL, "--data", tmp_path / "train.npz", "--validation", tmp_path / "test.npz", "--epochs", "1"]
    first = run(*arguments, "-o", tmp_path / "out.tflite", "--json")
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

    again = run(*arguments, "-o", tmp_path / "out.tflite")
    assert again.returncode == 2
    assert "already exists" in " ".join(again.stderr.split())
    forced = run(*arguments, "-o", tmp_path / "out.tflite", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "top-1" in forced.stdout
    assert "per channel" in forced.stdout
    # The repeated training is read from the cache: the bytes are equal.
    assert (tmp_path / "out.tflite").read_bytes() == data
    assert {file.name for file in tmp_path.iterdir()} == {"out.tflite", "out.json", "train.npz", "test.npz"}
