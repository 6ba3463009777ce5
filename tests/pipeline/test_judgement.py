"""Builds of a model whose second output value one int8 scale cannot represent: what is chosen, reported and refused."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import builders
import numpy as np
import pytest

from edgepack.cli.main import run
from edgepack.errors import AccuracyError
from edgepack.pipeline.build import build
from edgepack.pipeline.compare import compare
from edgepack.pipeline.options import BuildOptions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distance of up to thousands and an angle around 1 in one output of two values, with samples beside it."""
    folder = tmp_path_factory.mktemp("judged")
    net = builders.Net(5)
    x = net.tensor("x", (1, 8))
    hidden = net.tensor("hidden", (1, 16))
    net.op("FULLY_CONNECTED", [x, net.weights("w1", 16, 8), net.weights("b1", 16)], [hidden], fusedActivationFunction=1)
    place = net.tensor("place", (1, 2))
    kernel = net.random.normal(0, 1, (2, 16)) * [[1000.0], [1.0]]
    net.op("FULLY_CONNECTED", [hidden, net.constant("w2", kernel), net.weights("b2", 2)], [place])
    (folder / "place.tflite").write_bytes(net.build([x], [place], (["x"], ["place"])))
    samples = np.random.default_rng(1).normal(size=(120, 8)).astype(np.float32)
    np.savez(folder / "samples.npz", x=samples)
    return folder / "place.tflite"


@dataclass(frozen=True)
class Shown:
    """What a build of the command line printed, and the folder of its bundles."""

    out: str
    err: str
    folder: Path

    def manifest(self, target: str) -> dict:
        return json.loads((self.folder / f"place-{target}" / "manifest.json").read_text())


@pytest.fixture(scope="module")
def shown(model: Path) -> Shown:
    """A build for both targets, which share the samples and the calibration."""
    out, err = io.StringIO(), io.StringIO()
    folder = model.parent / "bundles"
    words = ["build", str(model), "-t", "cpu", "-t", "edgetpu", "--samples", str(model.parent / "samples.npz")]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert run([*words, "-o", str(folder)]) == 0
    return Shown(" ".join(out.getvalue().split()), " ".join(err.getvalue().split()), folder)


@pytest.mark.slow
def test_auto_leaves_int8_for_a_scheme_that_keeps_every_value(shown: Shown) -> None:
    """The CPU gets a file in which the angle is kept, and the reason names what int8 loses."""
    manifest = shown.manifest("cpu")
    assert manifest["quality"]["verdict"] == "sound"
    assert manifest["scheme"]["id"] != "int8"
    assert "column 1 of axis 1 of output 'place'" in manifest["ladder"][0]["why"]
    assert "column 1 of axis 1" in manifest["scheme"]["reason"]


@pytest.mark.slow
def test_the_only_scheme_is_judged_in_every_text(shown: Shown) -> None:
    """With int8 only, table, stderr, manifest and README state that the file is likely unusable, and why."""
    manifest = shown.manifest("edgetpu")
    assert manifest["quality"]["verdict"] == "unusable"
    assert manifest["quality"]["outputs"][0]["columns"] == [1]
    assert "LIKELY UNUSABLE: column 1 of axis 1 of output 'place'" in shown.out
    readme = (shown.folder / "place-edgetpu" / "README.md").read_text().replace("\\_", "_")
    for text in (" ".join(manifest["warnings"]), readme, shown.err):
        assert "this file is likely unusable: column 1 of axis 1 of output" in text
        # The Edge TPU has one scale per weight tensor of FULLY_CONNECTED, and the output has one for both values.
        # Both lose about as much; which of them loses more depends on the draw.
        named = text[text.index("what hurts most in int8: the ") :]
        assert "which alone leave" in named
        assert "the output 'place' of FULLY_CONNECTED" in named
        assert "the weights of FULLY_CONNECTED 'place'" in named
        assert "what would help: give column 1 of axis 1 an output of its own" in text


@pytest.mark.slow
def test_strict_refuses_the_file(model: Path, shown: Shown, tmp_path: Path) -> None:
    """--strict makes the loss exit code 8, keeps the figures in the result and writes nothing."""
    assert shown.out
    options = BuildOptions(samples=str(model.parent / "samples.npz"), out=tmp_path, strict=True)
    result = build(model, ["edgetpu"], options).results[0]
    assert isinstance(result.error, AccuracyError)
    assert result.error.exit_code == 8
    assert "likely unusable" in result.error.message
    assert "what would help" in result.error.hint
    assert result.quality is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_compare_judges_the_same_files(model: Path, shown: Shown) -> None:
    """`compare` notes the same loss of the int8 file, and none of the others."""
    assert shown.out
    results = compare(model, ["cpu"], samples=str(model.parent / "samples.npz")).results
    lost = {entry.scheme: [note for note in entry.notes if "likely unusable" in note] for entry in results}
    assert "column 1 of axis 1 of output 'place'" in lost.pop("int8")[0]
    assert set(map(len, lost.values())) == {0}
    assert {entry.scheme: entry for entry in results}["int8"].to_json()["quality"]["verdict"] == "unusable"


@pytest.mark.slow
def test_strict_refuses_what_was_not_measured(model: Path, tmp_path: Path) -> None:
    """Without samples nothing is known, so --strict refuses every scheme but the unchanged float model."""
    result = build(model, ["cpu"], BuildOptions(scheme="float16", out=tmp_path, strict=True)).results[0]
    assert isinstance(result.error, AccuracyError)
    assert "nothing was measured" in result.error.message
