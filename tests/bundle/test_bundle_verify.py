"""Verification: a sound bundle passes, every kind of damage is named, and nothing in a bundle is trusted."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_specs import tiny_spec, write_tree

from edgepack.bundle.golden import TOLERANCES, Tolerance, compare
from edgepack.bundle.manifest import to_json_bytes
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.verify import VerifyResult, verify
from edgepack.child import Worker
from edgepack.digests import sha256
from edgepack.errors import BundleError

KWS = "mlperf-tiny/kws_reference_int8.tflite"
SPLIT = "coral/split_concat.tflite"
MODELS = [
    (KWS, "cpu"),
    (KWS, "hexagon"),
    (SPLIT, "edgetpu"),
    ("coral/mobilenet_v1_0.25_128_quant.tflite", "edgetpu"),
    ("coral/keras_lstm_mnist_ptq.tflite", "android-gpu"),
]


@pytest.fixture
def bundle(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> Path:
    """A sound bundle of a small model with three inputs, five outputs and a compiled file."""
    return write_tree(render(make_spec(SPLIT, "edgetpu")), tmp_path / "bundle")


def problems(path: Path) -> list[str]:
    """Return the problems as `path: what`."""
    return [f"{problem.path}: {problem.what}" for problem in verify(path).problems]


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as a value."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    change(manifest)
    (bundle / "manifest.json").write_bytes(to_json_bytes(manifest))


def replace_file(bundle: Path, path: str, data: bytes) -> None:
    """Change a file, the loader's copies of it, and their hashes in the manifest."""
    inside = path.removeprefix("model/")
    places = [path, *(str(copy.relative_to(bundle)) for copy in bundle.glob(f"*/**/data/{inside}"))]
    for place in places:
        (bundle / place).write_bytes(data)
    edit(bundle, lambda manifest: manifest["files"].update(dict.fromkeys(places, sha256(data))))


@pytest.mark.parametrize(("file", "target"), MODELS)
def test_a_sound_bundle_passes(make_spec: Callable[..., BundleSpec], tmp_path: Path, file: str, target: str) -> None:
    """Real models, compiled and stateful ones too, give their golden outputs exactly in the real runtime."""
    spec = make_spec(file, target)
    result = verify(write_tree(render(spec), tmp_path / "bundle"))
    assert result.problems == () and result.ok
    assert result.tolerance == "same"
    assert [difference.largest for difference in result.golden] == [0.0] * (2 * len(spec.outputs))
    assert result.files == len(json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())["files"])
    assert json.dumps(result.to_json(), allow_nan=False)


def test_a_worker_of_the_caller_is_used_and_kept(bundle: Path) -> None:
    """Several bundles can be verified in one child, which stays open."""
    with Worker() as worker:
        assert verify(bundle, worker=worker).ok and worker.started
        assert verify(bundle, worker=worker).ok and worker.started


@pytest.mark.parametrize(
    "path", ["model/model.tflite", "golden/case_0/output_0.bin", "README.md", "linux/pyproject.toml"]
)
def test_any_changed_byte_is_found(bundle: Path, path: str) -> None:
    """One flipped bit in any file is a problem that names the file."""
    data = bytearray((bundle / path).read_bytes())
    data[-1] ^= 1
    (bundle / path).write_bytes(bytes(data))
    assert any(line.startswith(f"{path}: was modified") for line in problems(bundle))


def test_missing_and_extra_files_are_found(bundle: Path) -> None:
    """A missing and an additional file are both named, with a fix."""
    (bundle / "golden/case_1/input_2.bin").unlink()
    (bundle / "linux/src/evil.py").write_text("import os")
    result = verify(bundle)
    found = {problem.path: problem for problem in result.problems}
    assert found["golden/case_1/input_2.bin"].what == "missing"
    assert found["linux/src/evil.py"].what == "is not in the manifest"
    assert all(problem.fix for problem in result.problems)


def test_wrong_golden_outputs_are_found(bundle: Path) -> None:
    """A model that gives other numbers than it did is a problem with the size of the difference, hashes or not."""
    path = "golden/case_1/output_3.bin"
    expected = np.frombuffer((bundle / path).read_bytes(), np.uint8).copy()
    expected[5] = expected[5] - 9 if expected[5] > 9 else expected[5] + 9
    replace_file(bundle, path, expected.tobytes())
    result = verify(bundle)
    assert [(p.path, p.what) for p in result.problems] == [
        ("golden/case_1", "output 'outputs/rnn1': expected a difference of at most 0, got 9")
    ]
    assert [d.largest for d in result.golden if not d.ok] == [9.0]


def test_another_machine_allows_one_step(bundle: Path) -> None:
    """Vectors from another processor may differ by one scale step, not by two."""
    index = json.loads((bundle / "golden/index.json").read_bytes())
    index["machine"] = "another"
    replace_file(bundle, "golden/index.json", to_json_bytes(index))
    path = "golden/case_0/output_0.bin"
    original = np.frombuffer((bundle / path).read_bytes(), np.uint8)
    for steps, ok in ((1, True), (2, False)):
        moved = original.copy()
        moved[0] = moved[0] - steps if moved[0] >= steps else moved[0] + steps
        replace_file(bundle, path, moved.tobytes())
        result = verify(bundle)
        assert (result.tolerance, result.ok) == ("other", ok)


def test_a_bundle_cannot_loosen_its_own_tolerance(bundle: Path) -> None:
    """A golden index cannot raise the usual tolerance."""
    index = json.loads((bundle / "golden/index.json").read_bytes())
    index["tolerance"]["same"] = {"steps": 255, "relative": 1e9}
    replace_file(bundle, "golden/index.json", to_json_bytes(index))
    replace_file(bundle, "golden/case_0/output_0.bin", bytes(64))
    assert not verify(bundle).ok


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.pop("scheme"), "scheme: missing"),
        (lambda m: m.update(extra=1), "extra: unknown key"),
        (lambda m: m.update(schema=True), "schema: expected integer, got flag"),
        (lambda m: m.update(schema=99), "expected schema 1, got 99"),
        (lambda m: m["source"].update(sha256="xyz"), "source.sha256: expected 64 hexadecimal digits"),
        (lambda m: m["compile"].update(status="perhaps"), "compile.status: expected one of compiled"),
        (lambda m: m["inputs"][0].update(scale="0.5"), "inputs.0.scale: expected number or null, got text"),
        (lambda m: m["model"].update(runs="/etc/passwd"), "model.runs: expected a path inside the bundle"),
        (lambda m: m["model"].update(runs="model/other.tflite"), "model.runs: expected one of model.files"),
        (lambda m: m["golden"].update(index="../../x"), "golden.index: expected a path inside the bundle"),
        (lambda m: m["files"].update({"../../../etc/passwd": "0" * 64}), "expected paths inside the bundle"),
        (lambda m: m["files"].update({"/etc/passwd": "0" * 64}), "expected paths inside the bundle"),
        (lambda m: m["files"].update({"a\\..\\b": "0" * 64}), "expected paths inside the bundle"),
        (lambda m: m["inputs"][1].update(scale=0.5), "the manifest has scale 0.5, the model 0.0078125"),
        (lambda m: m["outputs"][0].update(shape=[1, 9]), "the manifest has shape [1, 9], the model [1, 8, 8, 1]"),
        (lambda m: m["inputs"][2].update(name="x"), "the manifest has name x, the model inputs/rnn2"),
        (lambda m: m["outputs"].pop(), "outputs: the manifest lists 4, the model has 5"),
        (lambda m: m["model"]["files"][0].update(sha256="0" * 64), "expected one sha256, got two"),
    ],
)
def test_a_manifest_that_lies_is_found(bundle: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    """Every part of the manifest is compared with its schema, the files and the model."""
    edit(bundle, change)
    found = problems(bundle)
    assert any(says in line for line in found), found


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": NaN}', b'"x"'])
def test_a_manifest_that_is_no_manifest(bundle: Path, text: bytes) -> None:
    """Any contents of manifest.json give a problem, never a traceback."""
    (bundle / "manifest.json").write_bytes(text)
    result = verify(bundle)
    assert result.problems and all(problem.path == "manifest.json" for problem in result.problems)


@pytest.mark.parametrize("path", ["manifest.json", "model/model.tflite", "golden", "golden/case_0/input_0.bin"])
def test_links_are_not_followed(bundle: Path, tmp_path: Path, path: str) -> None:
    """A link in a bundle is a problem even where it leads to the right contents."""
    (bundle / path).rename(tmp_path / "elsewhere")
    (bundle / path).symlink_to(tmp_path / "elsewhere")
    assert any("is a symbolic link" in line for line in problems(bundle))


def test_a_pipe_does_not_hang(bundle: Path) -> None:
    """A named pipe in a file's place is a problem, not a wait without end."""
    (bundle / "README.md").unlink()
    os.mkfifo(bundle / "README.md")
    assert any(line.startswith("README.md: expected a regular file") for line in problems(bundle))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [2**40, 2**40]),
        ("shape", [-1]),
        ("shape", [0, 2**62]),
        ("shape", [1, 8, 8, 4]),
        ("dtype", "object"),
        ("dtype", "float64"),
        ("file", "../../manifest.json"),
        ("file", "case_0/nothing.bin"),
    ],
)
def test_hostile_golden_vectors_take_no_memory(bundle: Path, key: str, value: object) -> None:
    """Sizes and types of golden vectors are compared with the files before memory is allocated."""
    index = json.loads((bundle / "golden/index.json").read_bytes())
    index["cases"][0]["inputs"][0][key] = value
    replace_file(bundle, "golden/index.json", to_json_bytes(index))
    assert problems(bundle)


@pytest.mark.parametrize("cut", [0, 4, 20, 500, 1500])
def test_a_truncated_model_is_found(bundle: Path, cut: int) -> None:
    """A model cut short anywhere is a problem of that file, even if the manifest has its hash."""
    data = (bundle / "model/model.tflite").read_bytes()[:cut]
    replace_file(bundle, "model/model.tflite", data)
    edit(bundle, lambda m: m["model"]["files"][0].update(sha256=sha256(data), bytes=len(data)))
    assert any(line.startswith("model/model.tflite: ") for line in problems(bundle))


def test_a_model_that_kills_the_runtime_is_contained(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the runtime crashes on a model, the bundle has a problem and the caller continues."""
    call = Worker.call

    def crash(self: Worker, function: str, /, *args: Any, **options: Any) -> Any:
        return call(self, "os:abort", **options)

    monkeypatch.setattr(Worker, "call", crash)
    result = verify(bundle)
    assert [p.what for p in result.problems] == ["the replay of the golden vectors failed: signal 6 (SIGABRT)"]


def test_a_model_that_takes_too_long_is_stopped(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden vectors have a time limit."""
    call = Worker.call
    monkeypatch.setattr(
        Worker, "call", lambda self, function, *args, **options: call(self, "time:sleep", 60, **options)
    )
    result = verify(bundle, timeout=1)
    assert [p.what for p in result.problems] == ["the replay of the golden vectors exceeded its time limit of 1 s"]


def test_what_is_no_bundle_is_an_error(tmp_path: Path) -> None:
    """A missing folder, a file and a folder without manifest raise BundleError, exit code 7."""
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "nothing", tmp_path / "file", tmp_path):
        with pytest.raises(BundleError) as caught:
            verify(place)
        assert caught.value.exit_code == 7 and caught.value.hint


def test_a_bundle_without_vectors_says_so(tmp_path: Path, make_spec: Callable[..., BundleSpec]) -> None:
    """Without golden vectors the model runs on zeros, and a note says that its outputs were not compared."""
    spec = make_spec(KWS, "cpu")
    without = type(spec.golden)(spec.golden.machine, spec.golden.runtime, ())
    result = verify(write_tree(render(make_spec(KWS, "cpu", golden=without)), tmp_path / "bundle"))
    assert result.ok and result.golden == () and "were not compared" in result.notes[0]


def test_a_file_that_is_no_model_is_found(tmp_path: Path) -> None:
    """A bundle whose model file is not a model has a problem."""
    result: VerifyResult = verify(write_tree(render(tiny_spec("cpu")), tmp_path / "bundle"))
    assert [problem.path for problem in result.problems] == ["model/tiny.tflite"]


@pytest.mark.parametrize(
    ("expected", "actual", "quantized", "largest", "allowed"),
    [
        (np.array([1, -128], np.int8), np.array([1, 127], np.int8), True, 255.0, 1.0),
        (np.array([5], np.int8), np.array([6], np.int8), False, 1.0, 0.0),
        (np.array([2**63 - 1], np.int64), np.array([-(2**63)], np.int64), False, float(2**64 - 1), 0.0),
        (np.array([1.0, 100.0], np.float32), np.array([1.0, 100.5], np.float32), False, 0.5, 0.01),
        (np.array([np.nan, np.inf], np.float32), np.array([np.nan, np.inf], np.float32), False, 0.0, 0.0),
        (np.array([1.0], np.float32), np.array([np.nan], np.float32), False, float("inf"), 1e-4),
        (np.zeros((2,), np.int8), np.zeros((3,), np.int8), True, float("inf"), 0.0),
        (np.zeros((2,), np.int8), np.zeros((2,), np.uint8), True, float("inf"), 0.0),
        (np.zeros((0,), np.int8), np.zeros((0,), np.int8), True, 0.0, 1.0),
        (np.array([True]), np.array([False]), False, 1.0, 0.0),
    ],
)
def test_differences(expected: np.ndarray, actual: np.ndarray, quantized: bool, largest: float, allowed: float) -> None:
    """Steps for integers, absolute for floats, without overflow; NaN and other shapes never agree."""
    found = compare(expected, actual, quantized=quantized, tolerance=TOLERANCES["other"], case=0, output=0)
    assert (found.largest, found.allowed) == (pytest.approx(largest), pytest.approx(allowed))
    assert found.ok == (largest <= allowed)


def test_tolerances_grow_with_the_distance() -> None:
    """Exact where the vectors were computed, one step elsewhere, more on an accelerator."""
    assert TOLERANCES["same"] == Tolerance(0, 1e-5)
    assert TOLERANCES["same"].steps < TOLERANCES["other"].steps < TOLERANCES["accelerator"].steps
