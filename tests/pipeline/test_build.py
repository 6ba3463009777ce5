"""A build from end to end: every format, one conversion for all, vendor's compiler, kills, two at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgepack.bundle.verify import verify
from edgepack.cache import Cache
from edgepack.errors import QuantizationError
from edgepack.pipeline.build import build
from edgepack.pipeline.options import BuildOptions, ModelOptions
from edgepack.pipeline.results import BuildResult
from edgepack.pipeline.search import produce

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "digits"
FLOAT = REPOSITORY / "tests" / "data" / "digits_float.tflite"
TARGETS = ["cpu", "android-gpu", "edgetpu", "hexagon"]


def digits(out: Path, **more: object) -> BuildOptions:
    return BuildOptions(
        out=out,
        name="digits",
        samples=str(EXAMPLES / "samples.npz"),
        eval=str(EXAMPLES / "eval.npz"),
        labels=EXAMPLES / "labels.txt",
        force=True,
        **more,  # type: ignore[arg-type]
    )


def all_sound(result: BuildResult, targets: list[str] = TARGETS) -> None:
    """Every target was built and every bundle verifies."""
    assert [(entry.target, entry.error) for entry in result.results] == [(target, None) for target in targets]
    for entry in result.results:
        assert entry.bundle is not None
        assert verify(entry.bundle).problems == ()


@pytest.mark.slow
def test_one_conversion_and_one_calibration_serve_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four targets: the cache holds one conversion, one search per scale of dense weights, and one file per rule."""
    monkeypatch.setenv("EDGEPACK_CACHE_DIR", str(tmp_path / "cache"))
    all_sound(build(FLOAT, TARGETS, digits(tmp_path)))
    entries = Cache().usage().entries
    assert (entries["convert"], entries["improve"]) == (1, 2)
    # int8 with float io, int8 per tensor, int8 per channel, float16
    assert entries["quantize"] == 4


@pytest.mark.slow
def test_estimated_latency_has_the_same_words_everywhere(tmp_path: Path) -> None:
    """JSON, manifest and README show the check's estimate; targets without one, and pipelined segments, show none."""
    result = build(FLOAT, ["edgetpu", "cpu"], digits(tmp_path))
    all_sound(result, ["edgetpu", "cpu"])
    edgetpu, cpu = result.results
    assert edgetpu.report is not None
    assert edgetpu.report.estimates["latency"] == edgetpu.latency == edgetpu.to_json()["latency"]
    assert edgetpu.latency is not None
    assert f"Latency: {edgetpu.latency['text']}." in edgetpu.report.notes
    assert edgetpu.bundle is not None
    assert json.loads((edgetpu.bundle / "manifest.json").read_text())["latency"] == edgetpu.latency
    assert edgetpu.latency["text"] in (edgetpu.bundle / "README.md").read_text()
    assert cpu.bundle is not None
    assert cpu.to_json()["latency"] is None
    assert "latency" not in json.loads((cpu.bundle / "manifest.json").read_text())
    (pipelined,) = build(FLOAT, ["edgetpu"], digits(tmp_path, segments=2)).results
    assert (pipelined.error, pipelined.latency) == (None, None)


@pytest.mark.slow
def test_auto_leaves_a_scheme_that_loses_too_much(tmp_path: Path) -> None:
    """Where the first choice loses more than a point and another does not, auto takes the other, with the reason."""
    data = np.load(EXAMPLES / "eval.npz")
    np.savez(tmp_path / "black.npz", x=np.zeros((30, *data[data.files[0]].shape[1:]), np.float32))
    options = BuildOptions(out=tmp_path, samples=str(tmp_path / "black.npz"), eval=str(EXAMPLES / "eval.npz"))
    (entry,) = build(FLOAT, ["cpu"], options).results
    assert entry.error is None
    assert entry.scheme == "dynamic-range"
    assert "int8 loses" in entry.reason
    assert entry.quality is not None
    assert entry.quality.drop is not None
    assert entry.quality.drop <= 1.0


@pytest.mark.slow
def test_a_candidate_that_fails_is_a_trial_and_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the quantizer dies on int8, the next scheme is taken; reason, warnings and manifest name the failure."""
    monkeypatch.setattr(produce, "quantize_with_ptq", _die)
    (entry,) = build(FLOAT, ["cpu"], digits(tmp_path)).results
    assert entry.error is None
    assert entry.scheme == "dynamic-range"
    assert "int8 could not be produced" in entry.reason
    assert [(trial["scheme"], trial["tried"]) for trial in entry.ladder] == [("int8", False), ("dynamic-range", True)]
    assert any("int8" in warning and "native code died" in warning for warning in entry.warnings)
    assert entry.bundle is not None
    assert json.loads((entry.bundle / "manifest.json").read_text())["ladder"] == list(entry.ladder)
    assert verify(entry.bundle).problems == ()


@pytest.mark.slow
def test_a_build_ends_in_the_first_error_when_no_candidate_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Edge TPU runs int8 only: the quantizer's own error and exit code are the build's."""
    monkeypatch.setattr(produce, "quantize_with_ptq", _die)
    (entry,) = build(FLOAT, ["edgetpu"], digits(tmp_path)).results
    assert isinstance(entry.error, QuantizationError)
    assert entry.error.exit_code == 4
    assert "native code died" in entry.error.message
    assert entry.bundle is None


def _die(*_: object, **__: object) -> None:
    raise QuantizationError("native code died")


def test_a_failing_target_does_not_stop_the_others(tmp_path: Path) -> None:
    """All targets are tried; the first failure is the build's."""
    result = build(FLOAT, ["edgetpu", "cpu"], BuildOptions(out=tmp_path))
    assert result.results[0].error is not None
    assert result.results[1].error is None
    assert result.error is result.results[0].error
    assert [p.name for p in tmp_path.iterdir()] == ["digits_float-cpu"]


# -- the vendor's compiler -------------------------------------------------------------------------------------------


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for edgetpu_compiler, made from its recorded contract."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "compilers"))
    import edgetpu_standin

    (tmp_path / "bin").mkdir()
    program = Path(edgetpu_standin.install(tmp_path / "bin"))
    monkeypatch.setenv("EDGEPACK_EDGETPU_COMPILER", str(program))
    return program


def test_the_compiled_file_and_its_fallback_are_shipped(
    tmp_path: Path, standin: Path, monkeypatch: pytest.MonkeyPatch, shared_models: Path
) -> None:
    """With the compiler installed, the bundle holds the compiled file, the host file and the compiler's report."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", "success")
    model = shared_models / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    (entry,) = build(model, ["edgetpu"], BuildOptions(out=tmp_path, compile="require")).results
    assert entry.error is None
    assert entry.compile["status"] == "compiled"
    assert entry.compile["differences"] == []
    assert entry.bundle is not None
    manifest = json.loads((entry.bundle / "manifest.json").read_text())
    roles = {file["role"]: path for file in manifest["model"]["files"] for path in [file["path"]]}
    assert set(roles) == {"host", "compiled"}
    assert roles["compiled"].endswith("_edgetpu.tflite")
    assert manifest["model"]["runs"] == roles["compiled"]
    assert verify(entry.bundle).problems == ()


def test_a_compiler_that_fails_is_exit_code_6(
    tmp_path: Path, standin: Path, monkeypatch: pytest.MonkeyPatch, shared_models: Path
) -> None:
    """A failure of the compiler is translated and nothing is written."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", "large-activations")
    model = shared_models / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    (entry,) = build(model, ["edgetpu"], BuildOptions(out=tmp_path / "o")).results
    assert entry.error is not None
    assert entry.error.exit_code == 6
    assert entry.error.hint
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_model_that_xnnpack_refuses_still_runs_in_its_bundle(tmp_path: Path, shared_models: Path) -> None:
    """DeepLab's uint8 file fails under the default delegate; it is verified and loaded with plain kernels."""
    model = shared_models / "coral" / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    (entry,) = build(model, ["edgetpu"], BuildOptions(out=tmp_path, name="deeplab")).results
    assert entry.error is None
    assert entry.bundle is not None
    result = verify(entry.bundle)
    assert result.problems == ()
    assert result.golden
    process = subprocess.run(
        [sys.executable, "-m", "deeplab", "--self-test"],
        cwd=entry.bundle / "linux" / "src",
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr


# -- every format ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_keras_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded .keras builds for all targets; the second build needs no TensorFlow at all."""
    all_sound(build(EXAMPLES / "digits.keras", TARGETS, digits(tmp_path / "first")))
    poison = tmp_path / "poison"
    for package in ("tensorflow", "keras", "tf_keras"):
        (poison / package).mkdir(parents=True)
        (poison / package / "__init__.py").write_text("raise ImportError('TensorFlow must not be loaded')\n")
    monkeypatch.syspath_prepend(str(poison))
    all_sound(build(EXAMPLES / "digits.keras", TARGETS, digits(tmp_path / "second")))
    refused = build(EXAMPLES / "digits.keras", ["cpu"], digits(tmp_path / "first")).results
    assert refused[0].error is None
    with pytest.raises(Exception, match="TensorFlow must not be loaded"):
        build(EXAMPLES / "digits.keras", ["cpu"], digits(tmp_path / "third", model=ModelOptions(cache=False)))


@pytest.mark.slow
def test_saved_model_keeps_its_accuracy(tmp_path: Path, shared_models: Path) -> None:
    """Keyword spotting: int8 at least as good as TFLiteConverter's 27.5 dB, top-1 within 0.5 points of float."""
    data = np.load(shared_models / "mlperf-tiny" / "kws_samples.npz")
    np.savez(tmp_path / "s.npz", x=data["x"][:100])
    np.savez(tmp_path / "e.npz", x=data["x"][100:], y=data["y"][100:])
    options = BuildOptions(out=tmp_path, samples=str(tmp_path / "s.npz"), eval=str(tmp_path / "e.npz"), max_drop=1.0)
    result = build(shared_models / "mlperf-tiny" / "kws_saved_model", TARGETS, options)
    all_sound(result)
    for entry in result.results:
        assert entry.quality is not None
        assert entry.quality.drop is not None
        assert entry.quality.drop <= 0.5
        assert entry.quality.snr_db is not None
        assert entry.quality.snr_db > 27.5, entry.target
    int8 = result.results[0].model
    assert int8 is not None
    assert len(int8) < 54_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vww_96.h5", "pretrainedResnet.h5"])
def test_legacy_h5(tmp_path: Path, shared_models: Path, name: str) -> None:
    """Trained legacy .h5 models build for all targets; the manifest records random calibration."""
    options = BuildOptions(out=tmp_path, random_calibration=True)
    result = build(shared_models / "mlperf-tiny" / name, TARGETS, options)
    all_sound(result)
    edgetpu = result.results[2]
    assert edgetpu.bundle is not None
    assert json.loads((edgetpu.bundle / "manifest.json").read_text())["calibration"]["random"] is True
    assert edgetpu.report is not None
    assert edgetpu.report.summary["accelerator"] == edgetpu.report.summary["total"]


# -- kills, interrupts and concurrent builds ---------------------------------------------------------------------------


def command(out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "edgepack", "build", str(FLOAT), "-t", "cpu", "--name", "digits", "--samples",
        str(EXAMPLES / "samples.npz"), "-o", str(out), "--force", *more,
    ]  # fmt: skip


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "EDGEPACK_CACHE_DIR": str(cache)}


@pytest.mark.slow
def test_a_killed_build_leaves_the_old_bundle_or_the_new_one(tmp_path: Path) -> None:
    """SIGKILL at many moments of a replacing build: the bundle is whole and sound each time."""
    subprocess.run(command(tmp_path), env=environment(tmp_path / "c"), check=True, capture_output=True)
    old = (tmp_path / "digits-cpu" / "manifest.json").read_bytes()
    start = time.monotonic()
    other = ("--calibration-samples", "50")
    subprocess.run(command(tmp_path / "x", *other), env=environment(tmp_path / "c"), check=True, capture_output=True)
    whole = time.monotonic() - start
    new = (tmp_path / "x" / "digits-cpu" / "manifest.json").read_bytes()
    assert old != new
    manifests = set()
    for step in range(12):
        process = subprocess.Popen(
            command(tmp_path, *other),
            env=environment(tmp_path / "c"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(whole * (0.1 + 0.08 * step))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert verify(tmp_path / "digits-cpu").problems == ()
        manifest = (tmp_path / "digits-cpu" / "manifest.json").read_bytes()
        assert manifest in {old, new}
        manifests.add(manifest)
    subprocess.run(command(tmp_path, *other), env=environment(tmp_path / "c"), check=True, capture_output=True)
    assert (tmp_path / "digits-cpu" / "manifest.json").read_bytes() == new
    left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert left == [], "left-overs of killed builds are cleared by the next one"


@pytest.mark.slow
def test_two_builds_at_once_share_the_cache(tmp_path: Path) -> None:
    """Two builds of the same thing, started together on an empty cache, both succeed with the same bytes."""
    processes = [
        subprocess.Popen(
            command(tmp_path / name), env=environment(tmp_path / "c"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for name in ("a", "b")
    ]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    manifests = [(tmp_path / name / "digits-cpu" / "manifest.json").read_bytes() for name in ("a", "b")]
    assert manifests[0] == manifests[1]


def test_interrupt_ends_with_130(tmp_path: Path) -> None:
    """Ctrl-C ends with the documented code and leaves nothing behind."""
    process = subprocess.Popen(
        command(tmp_path / "o"), env=environment(tmp_path / "c"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # The first cached step shows that the command has started; a fixed time would not, on a busy machine.
    while process.poll() is None and not (tmp_path / "c").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate()
    assert process.returncode in {130, 0}, errors.decode()
    assert b"Traceback" not in errors + out
    assert not [p for p in tmp_path.rglob(".*") if p.is_dir()]


@pytest.mark.slow
def test_training_is_a_scheme_of_the_build(tmp_path: Path) -> None:
    """int8-qat with --train makes a full int8 file from the .keras; the same again comes from the cache."""
    data = np.load(EXAMPLES / "eval.npz")
    np.savez(tmp_path / "train.npz", x=data["x"][:300], y=data["y"][:300])
    np.savez(tmp_path / "eval.npz", x=data["x"][300:], y=data["y"][300:])
    options = BuildOptions(
        out=tmp_path,
        scheme="int8-qat",
        train=str(tmp_path / "train.npz"),
        eval=str(tmp_path / "eval.npz"),
        epochs=1,
        max_drop=2.0,
        force=True,
    )
    result = build(EXAMPLES / "digits.keras", ["edgetpu"], options)
    all_sound(result, ["edgetpu"])
    (entry,) = result.results
    assert entry.report is not None
    assert entry.report.summary["host"] == 0
    (again,) = build(EXAMPLES / "digits.keras", ["edgetpu"], options).results
    assert again.model == entry.model
