"""Options are checked before any conversion; options that concern some targets only have no effect on the others."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compilers"))
import edgetpu_standin

from edgepack.bundle.verify import verify
from edgepack.cli.main import run
from edgepack.compilers import CompileRequest, CompileResult
from edgepack.compilers.qnn import QnnAotCompiler
from edgepack.pipeline.option_validation import validate_build
from edgepack.pipeline.options import BuildOptions
from edgepack.profiles.registry import resolve_targets

SPLIT = "coral/split_concat.tflite"
MOBILENET = "coral/mobilenet_v1_0.25_128_quant.tflite"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the stand-in for the Edge TPU compiler."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("EDGEPACK_EDGETPU_COMPILER", str(edgetpu_standin.install(tmp_path / "bin")))
    monkeypatch.delenv("EDGETPU_STANDIN_SCENARIO", raising=False)


def build(capsys: pytest.CaptureFixture[str], model: Path, out: Path, *words: object) -> tuple[int, dict[str, Any]]:
    """Run `edgepack build ... --json`; return exit code and document."""
    code = run(["build", str(model), "-o", str(out), "--name", "net", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-t", "hexagon", "--language", "ruby"], "--language: expected kotlin or java, got 'ruby'"),
        (["-t", "cpu", "--platform", "windows"], "--platform: expected android or linux, got 'windows'"),
        (["-t", "hexagon", "--delivery", "apk"], "--delivery: expected module, ai-pack or aar, got 'apk'"),
        (
            ["-t", "cpu", "-t", "edgetpu", "--delivery", "aar"],
            "applies to Android bundles only, and to none of the targets: cpu, edgetpu",
        ),
        (["-t", "edgetpu", "--platform", "android"], "--platform android applies to targets without an accelerator"),
        (["-t", "edgetpu", "--segments", "1"], "--segments: expected 2 or more, got 1"),
        (["-t", "edgetpu", "--segments", "-2"], "--segments: expected 2 or more, got -2"),
        (["-t", "cpu", "--segments", "2"], "--segments applies to the Edge TPU only"),
        (
            ["-t", "edgetpu", "--segments", "2", "--compile", "never"],
            "--segments needs the compiler, but --compile never turns it off",
        ),
        (["-t", "edgetpu", "--co-compile", "nothing.tflite"], "'nothing.tflite' does not exist"),
    ],
)
def test_wrong_values_are_wrong_use(
    shared_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """A wrong value ends with exit code 2 and one sentence; nothing is written."""
    code, document = build(capsys, shared_models / SPLIT, tmp_path / "out", *words)
    assert (code, document["error"]["kind"]) == (2, "usage")
    assert message in document["error"]["message"]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--delivery", "ai-pack"], ["--platform", "android"], ["--segments", "2"], ["--runtime", "litert1"]]
)
def test_targets_without_a_use_build_without(
    shared_models: Path, tmp_path: Path, compiler: None, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """With several targets an option takes effect where it applies; the others are built without it, with a note."""
    chosen = ["-t", "cpu", "-t", "edgetpu", "-t", "hexagon"]
    code, document = build(capsys, shared_models / SPLIT, tmp_path, *chosen, *words)
    assert code == 0, document
    [note] = [note for note in document["notes"] if words[0] in note]
    alone = {"--platform": "edgetpu", "--segments": "cpu, hexagon"}.get(words[0], "cpu, edgetpu")
    assert note.endswith(f"{alone} built without it")
    for target in ("cpu", "edgetpu", "hexagon"):
        assert verify(tmp_path / f"net-{target}").ok
        assert note not in json.loads((tmp_path / f"net-{target}" / "manifest.json").read_bytes())["notes"]
    assert (tmp_path / "net-edgetpu" / "linux").is_dir()
    assert (tmp_path / "net-cpu" / "android").is_dir() == (words[0] == "--platform")
    assert (tmp_path / "net-hexagon" / "android" / "net-pack").is_dir() == (words[0] == "--delivery")
    assert (tmp_path / "net-edgetpu" / "model" / "net_segment_1_of_2_edgetpu.tflite").is_file() == (
        words[0] == "--segments"
    )


@pytest.mark.slow
def test_a_bundle_of_segments(
    shared_models: Path, tmp_path: Path, compiler: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest lists segments in order, with the runtime version they need; --json has the figures of each."""
    code, document = build(capsys, shared_models / MOBILENET, tmp_path, "-t", "edgetpu", "--segments", "11")
    assert code == 0, document
    names = [f"net_segment_{i}_of_11_edgetpu.tflite" for i in range(11)]
    compiled = document["results"][0]["compile"]
    assert compiled["segments"] == names and len(compiled["figures"]["segments"]) == 11
    manifest = json.loads((tmp_path / "net-edgetpu" / "manifest.json").read_bytes())
    files = [entry["path"] for entry in manifest["model"]["files"] if entry["role"] == "segment"]
    assert files == [f"model/{name}" for name in names]
    assert manifest["compile"]["runtime_version"] == 14


@pytest.mark.slow
def test_a_bundle_with_co_compiled_models(
    shared_models: Path, tmp_path: Path, compiler: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """--co-compile accepts a .tflite or a bundle; the compiled file is in the bundle under its own name and role."""
    code, document = build(capsys, shared_models / MOBILENET, tmp_path / "other", "-t", "edgetpu", "--name", "bird")
    assert code == 0, document
    code, document = build(
        capsys,
        shared_models / SPLIT,
        tmp_path,
        *("-t", "edgetpu", "--co-compile", tmp_path / "other" / "bird-edgetpu"),
        *("--co-compile", shared_models / "mlperf-tiny" / "kws_reference_int8.tflite"),
    )
    assert code == 0, document
    manifest = json.loads((tmp_path / "net-edgetpu" / "manifest.json").read_bytes())
    roles = {entry["path"]: entry["role"] for entry in manifest["model"]["files"]}
    assert roles == {
        "model/net.tflite": "host",
        "model/net_edgetpu.tflite": "compiled",
        "model/bird_edgetpu.tflite": "co-compiled",
        "model/kws_reference_int8_edgetpu.tflite": "co-compiled",
    }
    assert manifest["model"]["runs"] == "model/net_edgetpu.tflite"
    assert verify(tmp_path / "net-edgetpu").ok
    assert set(document["results"][0]["compile"]["figures"]["co_compiled"]) == {"bird", "kws_reference_int8"}


@pytest.mark.parametrize(
    ("other", "code", "message"),
    [
        ("tests/data/digits_float.tflite", 3, "'digits_float' is not quantized"),
        ("README.md", 3, ""),
        ("tests", 2, "expected a quantized .tflite or a bundle, got"),
    ],
)
def test_models_that_cannot_be_co_compiled(
    shared_models: Path,
    tmp_path: Path,
    compiler: None,
    capsys: pytest.CaptureFixture[str],
    other: str,
    code: int,
    message: str,
) -> None:
    """A float model, a file that is not a model and a folder that is not a bundle are refused by name."""
    path = REPOSITORY / other
    exit_code, document = build(capsys, shared_models / SPLIT, tmp_path / "out", "-t", "edgetpu", "--co-compile", path)
    assert exit_code == code and message in document["error"]["message"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("delivery", ["module", "ai-pack"])
def test_what_qualcomms_compiler_made_is_not_said_to_run(
    shared_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    delivery: str,
) -> None:
    """The generated loader runs the uncompiled model: manifest, README and a warning say so, with the download size."""

    def compiled(self: QnnAotCompiler, request: CompileRequest, timeout: float) -> CompileResult:
        files = {f"{request.name}_Qualcomm_{soc}.tflite": b"x" * (100 + n) for n, soc in enumerate(request.socs)}
        return CompileResult("compiled", "qairt", "2.42", "", files=files)

    monkeypatch.setattr(QnnAotCompiler, "compile", compiled)
    words = ("-t", "hexagon", "--soc", "SM8550", "--soc", "SM8650", "--delivery", delivery)
    code, document = build(capsys, shared_models / SPLIT, tmp_path, *words)
    assert code == 0, document
    bundle = tmp_path / "net-hexagon"
    model = json.loads((bundle / "manifest.json").read_bytes())["model"]
    assert (model["runs"], model["host"]) == ("model/net.tflite", "model/net.tflite")
    assert [entry["role"] for entry in model["files"]] == ["host", "compiled", "compiled"]
    (warning,) = [text for text in document["results"][0]["warnings"] if "CompiledModel" in text]
    assert "net_Qualcomm_SM8550.tflite, net_Qualcomm_SM8650.tflite" in warning
    assert ("101 bytes" in warning) == (delivery == "ai-pack")
    readme = (bundle / "README.md").read_text()
    assert "| model | `model/net.tflite` |" in readme
    assert (
        "| compiled, not used by the loader | `model/net_Qualcomm_SM8550.tflite`, `model/net_Qualcomm_SM8650" in readme
    )


@pytest.fixture
def unreadable_model(tmp_path: Path) -> Path:
    """A .keras file that no importer can read: an error about an option comes before the conversion."""
    (tmp_path / "net.keras").write_bytes(b"not a model")
    return tmp_path / "net.keras"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--samples", "missing.npz"], 2, "--samples: samples 'missing.npz' do not exist"),
        (["--eval", "missing"], 2, "--eval: samples 'missing' do not exist"),
        (["--train", "missing.npz"], 2, "--train: samples 'missing.npz' do not exist"),
        (["--labels", "missing.txt"], 2, "--labels: 'missing.txt' does not exist"),
        (["--metadata", "model.toml"], 2, "--metadata: 'model.toml' does not exist"),
        (["--preprocess", "1"], 2, "--preprocess: expected MEAN,STD"),
        (["--scheme", "int9"], 2, "--scheme: expected auto, float32, "),
        (["--effort", "heroic"], 2, "--effort: expected low, medium or high, got 'heroic'"),
        (["--ranges", "median"], 2, "--ranges: expected minmax, percentile, mse or entropy, got 'median'"),
        (["--repair", "fast"], 2, "--repair: expected exact, approximate or none, got 'fast'"),
        (["--compile", "maybe"], 2, "--compile: expected auto, require or never, got 'maybe'"),
        (["--scheme", "int8-qat", "--per-tensor"], 2, "--per-tensor: quantization-aware training"),
        (["--soc", "SM9999"], 2, "target hexagon has no SoC 'SM9999'"),
        (["--variant", "v0"], 2, "target hexagon has no variant 'v0'"),
        (["--package", "com.2go.app"], 2, "--package: expected a package name such as com.example.app"),
        (["--package", "com..app"], 2, "--package: expected a package name such as com.example.app"),
        (["--package", "com.new"], 2, "--package: expected a package name such as com.example.app"),
        (["--package", "my-app"], 2, "--package: expected a package name such as com.example.app"),
        (["--runtime", "litert3"], 2, "--runtime: expected litert1 or litert2, got 'litert3'"),
        (
            ["--runtime", "litert1", "--soc", "SM8550", "--compile", "require"],
            2,
            "--runtime litert1 cannot run files compiled ahead of time, which --soc SM8550 asks for",
        ),
    ],
)
def test_options_are_refused_before_the_conversion(
    unreadable_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    """A wrong option is reported although the model cannot be read: the model is not opened before."""
    monkeypatch.chdir(unreadable_model.parent)
    exit_code, document = build(capsys, unreadable_model, Path("out"), "-t", "hexagon", *words)
    assert exit_code == code
    assert message in document["error"]["message"]


def test_existing_bundle_is_refused_before_the_conversion(
    unreadable_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle needs --force, other folders are never replaced; --dry-run writes nothing and gets to the conversion."""
    bundle = tmp_path / "net-cpu"
    bundle.mkdir()
    (bundle / "manifest.json").write_text('{"schema": 1, "edgepack": "0", "files": {}}')
    code, document = build(capsys, unreadable_model, tmp_path, "-t", "cpu")
    assert (code, document["error"]["message"]) == (7, "the bundle 'net-cpu' exists")
    for option in ("--force", "--dry-run"):
        code, document = build(capsys, unreadable_model, tmp_path, "-t", "cpu", option)
        assert (code, document["error"]["kind"]) == (3, "model-file")
    (bundle / "manifest.json").unlink()
    (bundle / "notes.txt").write_text("")
    code, document = build(capsys, unreadable_model, tmp_path, "-t", "cpu", "--force")
    assert code == 7
    assert "'net-cpu' exists" in document["error"]["message"]


@pytest.mark.parametrize("package", ["org.acme", "com.acme.camera_app", "com.Acme.myApp2"])
def test_legal_packages_are_accepted(package: str) -> None:
    """Any legal Java package is accepted, in any case and with underscores."""
    profiles = resolve_targets(["cpu"])
    options = BuildOptions(package=package, out=Path("nowhere"))
    assert validate_build(profiles, options, REPOSITORY / "tests" / "data" / "digits_float.tflite") == []


def test_outputs_of_a_training_are_refused_before_the_conversion(
    unreadable_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing data and existing outputs are reported although the model cannot be read."""
    words = ["train", str(unreadable_model), "-o", str(tmp_path / "out"), "--json", "--data"]
    assert run([*words, "missing.npz"]) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert message == "--data: samples 'missing.npz' do not exist"
    (tmp_path / "out.json").write_text("{}")
    assert run([*words, "module:function"]) == 2
    assert "out.json' already exists" in json.loads(capsys.readouterr().out)["error"]["message"]
