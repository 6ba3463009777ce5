"""A build with limits tries candidate after candidate on real files, and reports each trial."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgepack.bundle.verify import verify
from edgepack.errors import AccuracyError, TransformError, UsageError
from edgepack.graph import read_model
from edgepack.pipeline.build import build
from edgepack.pipeline.options import BuildOptions, TargetOptions
from edgepack.pipeline.results import TargetResult
from edgepack.training.report import gzip_size

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "digits"
FLOAT = ROOT / "tests" / "data" / "digits_float.tflite"


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests: their builds search the same ranges on the same samples."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _one_cache(own_cache: Path, searches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPACK_CACHE_DIR", str(searches))


@pytest.fixture(scope="module")
def dim(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Samples far darker than real ones: int8 calibrated on them clips every real one, at any effort."""
    path = tmp_path_factory.mktemp("samples") / "dim.npz"
    with np.load(EXAMPLES / "eval.npz") as data:
        x = data[data.files[0]]
    np.savez(path, x=(0.02 * x[:20]).astype(np.float32))
    return str(path)


def search(target: str, /, out: Path, lines: list[str], **more: object) -> TargetResult:
    options = BuildOptions(
        out=out,
        name="digits",
        **{"samples": str(EXAMPLES / "samples.npz"), "eval": str(EXAMPLES / "eval.npz"), **more},  # type: ignore[arg-type]
    )
    (result,) = build(FLOAT, [target], options, report=lines.append).results
    return result


@pytest.mark.slow
def test_rung_after_rung_until_one_holds(tmp_path: Path, dim: str) -> None:
    """Where int8 loses too much at every effort, the CPU keeps single ops in float; every trial is in the manifest."""
    lines: list[str] = []
    entry = search("cpu", tmp_path, lines, samples=dim, max_drop=1.0)
    assert entry.error is None
    assert [(step["rung"], step["tried"], step["holds"]) for step in entry.ladder] == [
        ("int8, effort low", True, False),
        ("int8, effort medium", True, False),
        ("int8, effort high", True, False),
        ("int8, effort high, single ops in float", True, True),
    ]
    assert entry.scheme == "int8"
    assert "first candidate" in entry.reason
    assert all(
        step["top1"] < step["top1_float"] - 1.0 and "more than 1 points are lost" in step["why"]
        for step in entry.ladder[:3]
    )
    assert [line.split(":")[1].strip() for line in lines] == [step["rung"] for step in entry.ladder]
    assert not any(str(ROOT) in step["why"] for step in entry.ladder)
    assert all(f"{step['bytes']} bytes" in line for step, line in zip(entry.ladder, lines, strict=True))
    assert entry.bundle is not None
    assert verify(entry.bundle).problems == ()
    manifest = json.loads((entry.bundle / "manifest.json").read_text())
    assert manifest["ladder"] == list(entry.ladder)
    assert entry.improvements is not None
    kept = entry.improvements["mixed"]["kept"]
    assert 0 < len(kept) < entry.improvements["mixed"]["ops"]
    assert f"{len(kept)} of {entry.improvements['mixed']['ops']} ops in float" in manifest["calibration"]["method"]
    assert entry.model is not None
    assert manifest["ladder"][-1]["bytes"] == len(entry.model)
    assert manifest["ladder"][-1]["gzip_bytes"] == gzip_size(entry.model)


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Three digits over each other, to calibrate on and to measure on: hard to tell apart, so that rounding shows."""
    folder = tmp_path_factory.mktemp("blurred")
    random = np.random.default_rng(0)
    with np.load(EXAMPLES / "eval.npz") as data:
        x = data["x"]
    for name, count in (("samples", 60), ("eval", 600)):
        chosen = random.integers(0, len(x), (3, count))
        np.savez(folder / f"{name}.npz", x=x[chosen].mean(axis=0).astype(np.float32))
    return str(folder / "samples.npz"), str(folder / "eval.npz")


@pytest.mark.slow
def test_single_ops_in_int16_on_a_hexagon_that_computes_it(tmp_path: Path, blurred: tuple[str, str]) -> None:
    """Where int8 loses too much, v73 gets single ops in int16; v68 has no such candidate.

    The Hexagon runs them but for those that its compiler refuses in int16, and these have the reason.

    The limit is a little below what int8 loses, whatever that is.
    """
    samples, unseen = blurred
    same: dict[str, object] = {"samples": samples, "eval": unseen, "scheme": "int8", "effort": "high"}
    plain = search("hexagon", tmp_path / "plain", [], **same)
    assert plain.quality is not None
    assert plain.quality.drop is not None
    assert plain.quality.drop > 0.2
    same["max_drop"] = plain.quality.drop - 0.1
    older = search("hexagon", tmp_path / "older", [], **same, target=TargetOptions(socs=("SM8350",)))
    assert isinstance(older.error, AccuracyError)
    assert not any("int16" in step["rung"] for step in older.ladder)
    entry = search("hexagon", tmp_path / "newer", [], **same, target=TargetOptions(socs=("SM8550",)))
    assert entry.error is None
    assert [(step["rung"], step["holds"]) for step in entry.ladder] == [
        ("int8, effort high", False),
        ("int8, effort high, single ops in int16", True),
    ]
    assert entry.scheme == "int8"
    assert entry.improvements is not None
    mixed = entry.improvements["mixed"]
    assert mixed["kept_as"] == "int16"
    assert f"{len(mixed['kept'])} of {mixed['ops']} ops in int16" in "".join(entry.warnings)
    assert entry.report is not None
    left = [op for op in entry.report.ops if op.placement.value == "host"]
    assert len(left) < len(entry.report.ops) / 2
    assert {reason.code for op in left for reason in op.reasons} <= {"dtype-combination", "fused-activation"}
    assert entry.model is not None
    graph = read_model(entry.model).main
    kinds = {graph.tensors[op.outputs[0]].dtype for op in graph.ops if op.name != "QUANTIZE"}
    assert kinds == {"INT8", "INT16"}
    assert {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)} == {"INT8"}
    assert entry.bundle is not None
    assert verify(entry.bundle).problems == ()


@pytest.mark.slow
def test_none_holds(tmp_path: Path, dim: str) -> None:
    """Exit code 8, no bundle, the figures of the nearest trial, and what was not tried because data is missing."""
    lines: list[str] = []
    entry = search("edgetpu", tmp_path, lines, samples=dim, max_drop=1.0)
    assert isinstance(entry.error, AccuracyError)
    assert entry.error.exit_code == 8
    assert entry.bundle is None
    assert list(tmp_path.iterdir()) == []
    best = entry.error.details["best"]
    assert best in entry.ladder
    assert best["top1"] == max(step["top1"] for step in entry.ladder if step["tried"])
    assert best["rung"] in entry.error.message
    assert f"{best['top1']:.2f}" in entry.error.message
    # A .tflite cannot be trained, whatever samples there are.
    assert {step["why"] for step in entry.ladder if step["scheme"] == "int8-qat"} == {
        next(step["why"] for step in entry.ladder if step["rung"] == "qat")
    }
    (line,) = [line for line in lines if "only a .keras" in line]
    assert line.startswith("edgetpu: qat; prune+qat, 50 % zeros; ")
    # Every file is likely unusable: no limit is offered under which one would be accepted.
    assert "--max-drop" not in entry.error.hint


@pytest.mark.slow
def test_size_asks_for_fewer_bits_and_not_for_effort(tmp_path: Path) -> None:
    """A size that float16 exceeds and int8 meets: the GPU's third choice is taken, larger files are not produced."""
    entry = search("android-gpu", tmp_path, [], max_size=30_000)
    assert entry.error is None
    tried = {step["rung"]: step["tried"] for step in entry.ladder}
    assert tried["float16"]
    assert not tried["float32"]
    assert entry.scheme == "int8"
    assert entry.model is not None
    assert len(entry.model) <= 30_000 < entry.ladder[0]["bytes"]


@pytest.mark.slow
def test_a_size_no_file_has(tmp_path: Path) -> None:
    """Too small a size ends with exit code 8 as well, without candidates that could not help."""
    entry = search("cpu", tmp_path, [], max_size=1000)
    assert isinstance(entry.error, AccuracyError)
    assert "--max-size 1000" in entry.error.message
    assert not any(step["tried"] for step in entry.ladder if "effort high" in step["rung"])


def test_training_alone_of_a_file_that_cannot_be_trained(tmp_path: Path) -> None:
    """A .tflite and --scheme int8-qat leave no candidate at all: the error says so, and no bundle is written."""
    entry = search("edgetpu", tmp_path, [], scheme="int8-qat", train=str(EXAMPLES / "eval.npz"), max_drop=1.0)
    assert isinstance(entry.error, TransformError)
    assert ".keras" in entry.error.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_scale_per_tensor(tmp_path: Path) -> None:
    """--per-tensor leaves no weight tensor with more than one scale; training cannot do that, with a clear error."""
    entry = search("cpu", tmp_path, [], scheme="int8", per_tensor=True)
    assert entry.error is None
    assert entry.model is not None
    scales = [t.quantization.scale.size for t in read_model(entry.model).main.tensors if t.quantization is not None]
    assert scales
    assert max(scales) == 1
    with pytest.raises(UsageError, match="per channel"):
        search("cpu", tmp_path, [], scheme="int8-qat", per_tensor=True)


@pytest.mark.slow
def test_training_when_accuracy_asks(tmp_path: Path, dim: str) -> None:
    """Where int8 loses too much at every effort and the target supports nothing else, the model is trained."""
    with np.load(EXAMPLES / "eval.npz") as data:
        np.savez(tmp_path / "train.npz", x=data["x"][:300], y=data["y"][:300])
        np.savez(tmp_path / "eval.npz", x=data["x"][300:], y=data["y"][300:])
    options = BuildOptions(
        out=tmp_path,
        samples=dim,
        train=str(tmp_path / "train.npz"),
        eval=str(tmp_path / "eval.npz"),
        epochs=2,
        max_drop=3.0,
    )
    (entry,) = build(EXAMPLES / "digits.keras", ["edgetpu"], options).results
    assert entry.error is None
    assert entry.scheme == "int8-qat"
    assert [(step["rung"], step["tried"]) for step in entry.ladder] == [
        ("int8, effort low", True),
        ("int8, effort medium", True),
        ("int8, effort high", True),
        ("qat", True),
    ]
    assert entry.bundle is not None
    assert verify(entry.bundle).problems == ()
    assert "candidate 4 | qat" in (entry.bundle / "README.md").read_text()
