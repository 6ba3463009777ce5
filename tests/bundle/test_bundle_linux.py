"""The Linux loader, run as its user runs it: another process, only NumPy and the runtime."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from bundle_specs import quantize_model, spec_of, tiny_spec, write_tree

from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.runtime import Runner, dequantize, quantize
from edgepack.samples.source import Preprocess, read_image

KWS = "mlperf-tiny/kws_reference_int8.tflite"
MOBILENET = "coral/mobilenet_v1_0.25_128_quant.tflite"
SPLIT = "coral/split_concat.tflite"
REPOSITORY = Path(__file__).resolve().parents[2]


def run(bundle: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the bundle's package as a program, from a folder that is not the bundle."""
    package = next((bundle / "linux" / "src").iterdir())
    return subprocess.run(
        [sys.executable, "-m", package.name, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        cwd=bundle.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[BundleSpec], ModuleType]:
    """Return a function that writes a bundle and imports its package."""

    def importing(spec: BundleSpec) -> ModuleType:
        source = write_tree(render(spec), tmp_path / "bundle") / "linux" / "src"
        name = next(source.iterdir()).name
        monkeypatch.syspath_prepend(str(source))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        for loaded in [module for module in sys.modules if module.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
        return __import__(name)

    return importing


@pytest.mark.parametrize(
    ("file", "target"),
    [(KWS, "cpu"), (MOBILENET, "edgetpu"), (SPLIT, "cpu"), ("coral/keras_lstm_mnist_ptq.tflite", "edgetpu")],
)
def test_self_test_reproduces_the_vectors(
    make_spec: Callable[..., BundleSpec], tmp_path: Path, file: str, target: str
) -> None:
    """--self-test replays every golden case bit for bit and ends with 0."""
    spec = make_spec(file, target)
    done = run(write_tree(render(spec), tmp_path / "bundle"), "--self-test")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    count = 2 * len(spec.outputs)
    assert lines[-1] == f"self-test: {count} of {count} outputs agree (tolerance: same)"
    assert all("largest difference 0\tallowed 0\tok" in line for line in lines[:-1])


def test_self_test_can_fail(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """A model that does not reproduce its vectors exits with 1 and the difference of each output."""
    bundle = write_tree(render(make_spec(KWS, "cpu")), tmp_path / "bundle")
    output = next(bundle.glob("linux/src/*/data/golden/case_1/output_0.bin"))
    changed = np.frombuffer(output.read_bytes(), np.int8).copy()
    changed[3] = changed[3] + 7 if changed[3] < 100 else changed[3] - 7
    output.write_bytes(changed.tobytes())
    done = run(bundle, "--self-test")
    assert done.returncode == 1
    assert "case 1\tidentity\tlargest difference 7\tallowed 0\tFAILED" in done.stdout


@pytest.mark.parametrize("compiled", [True, False])
def test_without_edge_tpu_the_host_model_runs_and_says_why(
    make_spec: Callable[..., BundleSpec], tmp_path: Path, compiled: bool
) -> None:
    """Without library or compiled file the loader steps down to the CPU and names the reason on stderr."""
    spec = make_spec(SPLIT, "edgetpu") if compiled else make_spec(SPLIT, "edgetpu", compiled=None)
    done = run(write_tree(render(spec), tmp_path / "bundle"), "--self-test")
    assert done.returncode == 0
    reason = "libedgetpu.so.1: cannot open shared object file" if compiled else "has no model compiled for the Edge TPU"
    assert "running model.tflite on the CPU: " in done.stderr and reason in done.stderr
    assert ("install a libedgetpu of runtime version 14 or later" in done.stderr) == compiled
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    required = run(tmp_path / "bundle", "--self-test", "--accelerator", "require")
    assert required.returncode == 2 and "error: the Edge TPU was required" in required.stderr
    never = run(tmp_path / "bundle", "--self-test", "--accelerator", "never")
    assert never.returncode == 0 and "running model.tflite on the CPU" not in never.stderr


@pytest.mark.skipif(
    shutil.which("cc") is None, reason="needs a C compiler (cc) to make a wrong library: install GCC or Clang"
)
@pytest.mark.parametrize("source", ["", "wrong-device"])
def test_a_wrong_library_is_a_reason_not_a_crash(
    make_spec: Callable[..., BundleSpec], tmp_path: Path, source: str
) -> None:
    """A library that is not libedgetpu, or that finds no device, leads to the CPU like a missing one."""
    code = {
        "": "int nothing;",
        "wrong-device": "void *tflite_plugin_create_delegate(char **k, char **v, long n, void (*e)(const char *))"
        '{ e("no device of this kind"); return 0; } void tflite_plugin_destroy_delegate(void *d) {}',
    }[source]
    (tmp_path / "lib").mkdir()
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(tmp_path / "lib" / "libedgetpu.so.1")],
        input=code,
        text=True,
        check=True,
    )
    bundle = write_tree(render(make_spec(SPLIT, "edgetpu")), tmp_path / "bundle")
    done = run(bundle, "--self-test", "--device", "usb:3", env={"LD_LIBRARY_PATH": str(tmp_path / "lib")})
    assert done.returncode == 0, done.stderr
    assert "running model.tflite on the CPU: no Edge TPU 'usb:3': " in done.stderr


def test_values_go_in_and_come_out_real(
    make_spec: Callable[..., BundleSpec], load: Callable[[BundleSpec], ModuleType], shared_models: Path
) -> None:
    """run() accepts and returns real numbers by name, and equals the raw runtime with the same scales."""
    spec = make_spec(SPLIT, "cpu")
    package = load(spec)
    generator = np.random.default_rng(1)
    values = {
        tensor.field: generator.uniform(-1.2, 1.2, tensor.shape[1:]).astype(np.float32) for tensor in package.INPUTS
    }
    with package.SplitConcat() as model:
        result = model.run(**values)
        raw = model.run_raw([tensor.quantize(values[tensor.field]) for tensor in package.INPUTS])
        assert model.status.accelerator == "cpu" and model.status.reasons == ()
    runner = Runner((shared_models / SPLIT).read_bytes())
    expected = runner.run([tensor.quantize(values[tensor.field]) for tensor in package.INPUTS])
    for tensor, info, one, other in zip(package.OUTPUTS, runner.outputs, raw, expected, strict=True):
        assert np.array_equal(one, other)
        real = (other.astype(np.float64) - info.zero_point) * info.scale
        assert np.array_equal(getattr(result, tensor.field), real.astype(np.float32))
    with pytest.raises(ValueError, match="closed"):
        model.run(**values)


@pytest.mark.parametrize("dtype", ["INT8", "UINT8", "INT16"])
@pytest.mark.parametrize("scale", [0.5, 0.0078125, 0.013, 1 / 255, 0.5847029089927673, 3.1e-5])
def test_quantizes_bit_for_bit_as_the_runtime(
    load: Callable[[BundleSpec], ModuleType], dtype: str, scale: float
) -> None:
    """Rounding, halves and saturation are those of the real runtime's QUANTIZE, over the whole range of each type."""
    zero_point = 0 if dtype == "INT16" else 7
    limits = np.iinfo(dtype.lower())
    step = np.float32(scale)
    halves = (
        np.arange(limits.min - zero_point - 3, limits.max - zero_point + 3)[:: 1 + limits.max // 2000] + 0.5
    ) * step
    noise = np.random.default_rng(0).normal(0, (limits.max - limits.min) / 4 * scale, 5000)
    edges = np.array([0.49999997 * step, 1e4 * limits.max * step, -1e4 * limits.max * step])
    values = np.concatenate([halves, np.nextafter(np.float32(halves), np.float32(np.inf)), noise, edges])
    values = values.astype(np.float32)[None]
    model = quantize_model(values.size, float(step), zero_point, dtype)
    [expected] = Runner(model).run([values])
    tensor = load(spec_of(model, "q", "cpu")).OUTPUTS[0]
    assert np.array_equal(tensor.quantize(values), expected)
    # The runtime leaves infinity undefined; here it saturates.
    ends = tensor.quantize(np.full(values.shape, np.inf, np.float32)), tensor.quantize(np.full(values.shape, -np.inf))
    assert (ends[0].max(), ends[1].min()) == (limits.max, limits.min)


def test_wrong_values_are_refused_with_what_was_expected(
    make_spec: Callable[..., BundleSpec], load: Callable[[BundleSpec], ModuleType]
) -> None:
    """Wrong shapes, types and NaN are errors with the input's name, expected and actual values."""
    package = load(make_spec(KWS, "cpu"))
    model = package.KwsReferenceInt8()
    with pytest.raises(ValueError, match=r"'input_1': expected shape \[1, 49, 10, 1\], got \[49\]"):
        model.run(np.zeros(49))
    with pytest.raises(ValueError, match="expected numbers, got NaN"):
        model.run(np.full((49, 10, 1), np.nan))
    with pytest.raises(ValueError, match=r"expected int8 \[1, 49, 10, 1\], got float64"):
        model.run_raw([np.zeros((1, 49, 10, 1))])
    with pytest.raises(ValueError, match="expected 1 inputs, got 0"):
        model.run_raw([])


def test_labels_come_best_first(make_spec: Callable[..., BundleSpec], load: Callable[[BundleSpec], ModuleType]) -> None:
    """top_k gives labels with their values, highest first, equal ones in the labels' order, odd characters intact."""
    spec = make_spec(KWS, "cpu")
    words = ("down", 'a "b" $c', "größe", "日本", "two\nlines", *(f"word {n}" for n in range(7)))
    package = load(replace(spec, outputs=(replace(spec.outputs[0], labels=words),)))
    values = np.zeros((1, 12), np.float32)
    values[0, [3, 1, 4]] = 3.0, 2.0, 2.0
    best = package.KwsReferenceInt8Result(values).top_k(4)
    assert best == [("日本", 3.0), ('a "b" $c', 2.0), ("two lines", 2.0), ("down", 0.0)]
    with pytest.raises(ValueError, match="expected one of identity, got 'x'"):
        package.KwsReferenceInt8Result(values).top_k(1, "x")


def test_a_runtime_for_another_numpy_says_what_to_install(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """tflite-runtime 2.14 fails inside its extension on NumPy 2: that becomes one line with a way out."""
    standin = tmp_path / "runtimes"
    for name in ("ai_edge_litert", "tflite_runtime"):
        (standin / name).mkdir(parents=True)
    (standin / "ai_edge_litert" / "__init__.py").write_text("raise ImportError('not here')\n")
    (standin / "tflite_runtime" / "__init__.py").write_text("")
    (standin / "tflite_runtime" / "interpreter.py").write_text(
        "def Interpreter(*_, **__):\n"
        "    raise SystemError('CreateWrapperFromFile returned a result with an exception set')\n"
    )
    bundle = write_tree(render(make_spec(KWS, "cpu")), tmp_path / "bundle")
    path = os.pathsep.join([str(standin), str(next((bundle / "linux" / "src").iterdir()).parent)])
    done = run(bundle, "--self-test", env={"PYTHONPATH": path})
    assert done.returncode == 2
    said = f"error: tflite-runtime fails on NumPy {np.__version__}: pip install 'numpy<2'"
    assert done.stderr.strip().splitlines() == [said]


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_files_run_from_the_command_line(make_spec: Callable[..., BundleSpec], tmp_path: Path, form: str) -> None:
    """`python -m NAME FILE` accepts one .npy per input or one .npz, prints each output and saves them all."""
    spec = make_spec(SPLIT, "cpu")
    bundle = write_tree(render(spec), tmp_path / "bundle")
    arrays = [np.full(tensor.shape, 0.25, np.float32) for tensor in spec.inputs]
    if form == "npz":
        np.savez(
            tmp_path / "in.npz",
            **{tensor.name.replace("/", "_"): a for tensor, a in zip(spec.inputs, arrays, strict=True)},
        )
        files = [tmp_path / "in.npz"]
    else:
        files = [tmp_path / f"{n}.npy" for n in range(len(arrays))]
        for file, array in zip(files, arrays, strict=True):
            np.save(file, array)
    done = run(bundle, *files, "--save", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    with np.load(tmp_path / "out.npz") as saved:
        assert sorted(saved.files) == sorted(line.split("\t")[0] for line in done.stdout.splitlines())
        assert saved["concat_split0"].dtype == np.float32


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(300, 197), (31, 5), (128, 128)])
def test_pictures_run_from_the_command_line(
    shared_models: Path, tmp_path: Path, size: tuple[int, int], grey: bool
) -> None:
    """`python -m NAME image.png` gives the real runtime's result for the image as the build reads it, and its top-k."""
    from PIL import Image

    known = Preprocess((123.7, 116.3, 103.5), (127.5, 126.0, 125.0))
    model = REPOSITORY / "tests" / "data" / "digits_float.tflite" if grey else shared_models / MOBILENET
    known = Preprocess((0.0,), (16.0,)) if grey else known
    spec = spec_of(model.read_bytes(), "net", "cpu")
    classes = spec.outputs[0].shape[-1]
    spec = replace(
        spec,
        inputs=(replace(spec.inputs[0], preprocessing=known.to_json()),),
        outputs=(replace(spec.outputs[0], labels=tuple(f"class {n}" for n in range(classes))),),
    )
    bundle = write_tree(render(spec), tmp_path / "bundle")
    assert "[project.optional-dependencies]" in (bundle / "linux" / "pyproject.toml").read_text()
    generator = np.random.default_rng(5)
    pixels = generator.integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    done = run(bundle, tmp_path / "image.png", "--save", tmp_path / "out.npz", "--top", "3")
    assert done.returncode == 0, done.stderr
    runner = Runner(model.read_bytes())
    [info] = runner.inputs
    real = read_image(tmp_path / "image.png", info.shape, np.dtype(np.float32), known)
    [raw] = runner.run([quantize(info, real)])
    scores = dequantize(runner.outputs[0], raw).reshape(-1)
    with np.load(tmp_path / "out.npz") as saved:
        assert np.array_equal(saved[saved.files[0]].reshape(-1), scores)
    best = np.argsort(-scores, kind="stable")[:3]
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == [f"class {n}" for n in best]


def test_pictures_that_cannot_be_read(shared_models: Path, tmp_path: Path) -> None:
    """An unreadable image, an input that accepts none and a missing Pillow are one sentence and exit 2."""
    spec = spec_of((shared_models / MOBILENET).read_bytes(), "net", "cpu")
    known = replace(spec, inputs=(replace(spec.inputs[0], preprocessing={"mean": 0.0, "std": 1.0}),))
    bundle = write_tree(render(known), tmp_path / "bundle")
    (tmp_path / "text.jpg").write_text("no picture")
    done = run(bundle, tmp_path / "text.jpg")
    assert done.returncode == 2 and "not a readable image" in done.stderr and "Traceback" not in done.stderr
    # A package of that name without anything in it stands for a missing one.
    (tmp_path / "hidden" / "PIL").mkdir(parents=True)
    (tmp_path / "hidden" / "PIL" / "__init__.py").write_text("")
    package = bundle / "linux" / "src"
    done = run(bundle, tmp_path / "text.jpg", env={"PYTHONPATH": f"{tmp_path / 'hidden'}:{package}"})
    assert done.returncode == 2 and "pip install net[image]" in done.stderr
    plain = write_tree(render(spec), tmp_path / "plain")
    assert not list(plain.rglob("_image.py"))
    assert "optional-dependencies" not in (plain / "linux" / "pyproject.toml").read_text()
    done = run(plain, tmp_path / "text.jpg")
    assert done.returncode == 2 and "expected a .npy file" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["missing.npy"], ["a.npy", "b.npy"]])
def test_wrong_use_ends_with_2(make_spec: Callable[..., BundleSpec], tmp_path: Path, arguments: list[str]) -> None:
    """Nothing to do, missing files and a wrong number of files end with 2 and one line, no traceback."""
    done = run(write_tree(render(make_spec(KWS, "cpu")), tmp_path / "bundle"), *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "error: " in done.stderr


def test_the_engine_is_the_same_in_every_bundle() -> None:
    """Only the generated parts differ: a fault in the engine is fixed in one place."""
    one, other = render(tiny_spec("cpu")), render(tiny_spec("edgetpu", name="other"))
    for name in ("_engine.py", "_selftest.py", "_stream.py", "_tensors.py"):
        assert one[f"linux/src/tiny_model_2_0/{name}"] == other[f"linux/src/other/{name}"]


@pytest.mark.slow
def test_installed_into_a_clean_environment(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """The installed package, far from its bundle, passes its self-test and reproduces the vectors bit for bit."""
    spec = make_spec(KWS, "cpu", name="Key words 1.0")
    bundle = write_tree(render(spec), tmp_path / "bundle")
    (tmp_path / ".gitignore").write_text("*.tflite\n*.bin\ndata/\n")
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    install = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(bundle / "linux")],
        env=clean,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if install.returncode != 0 and "No matching distribution" in install.stderr:
        pytest.skip(f"no package index at hand: {install.stderr.strip().splitlines()[-1]}")
    assert install.returncode == 0, install.stderr
    golden = tmp_path / "golden"
    shutil.move(bundle / "golden", golden)
    shutil.rmtree(bundle)
    (tmp_path / "anywhere").mkdir()
    done = subprocess.run(
        [str(python), "-m", "key_words_1_0", "--self-test"],
        env=clean,
        cwd=tmp_path / "anywhere",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    program = (
        "import json, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from key_words_1_0 import INPUTS, KeyWords10\n"
        "assert 'edgepack' not in sys.modules and 'tensorflow' not in sys.modules\n"
        "model, golden = KeyWords10(), Path(sys.argv[1])\n"
        "for case in json.loads((golden / 'index.json').read_text())['cases']:\n"
        "    raw = [np.fromfile(golden / e['file'], e['dtype']).reshape(e['shape']) for e in case['inputs']]\n"
        "    for entry, output in zip(case['outputs'], model.run_raw(raw)):\n"
        "        print(entry['file'], output.tobytes().hex())\n"
    )
    replay = subprocess.run(
        [str(python), "-c", program, str(golden)],
        env=clean,
        cwd=tmp_path / "anywhere",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert replay.returncode == 0, replay.stderr
    found = dict(line.split() for line in replay.stdout.splitlines())
    index = json.loads((golden / "index.json").read_bytes())
    assert found == {
        entry["file"]: (golden / entry["file"]).read_bytes().hex()
        for case in index["cases"]
        for entry in case["outputs"]
    }
    installed = next(environment.glob("lib/*/site-packages/key_words_1_0/data/model.tflite"))
    assert hashlib.sha256(installed.read_bytes()).hexdigest() == hashlib.sha256(spec.host.data).hexdigest()
