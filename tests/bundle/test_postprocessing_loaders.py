"""Postprocessing in the loader: every loader's results equal those of the uncut model."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cpp_tools
import jvm_tools
import numpy as np
import pytest
from bundle_specs import profile_of, spec_of, write_tree
from cpp_tools import link, loader_of, runtime_library, self_test_program
from kotlin_tools import Kotlin
from postprocessing_models import images, with_tail

from edgepack.bundle.context import make_context
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.verify import verify
from edgepack.graph import NUMPY_DTYPES
from edgepack.profiles.model import BundleRule
from edgepack.runtime import Runner

pytestmark = pytest.mark.slow

MODELS = ("classes", "classes_int8", "probabilities", "numbers", "scaled")
#: TensorFlow Lite's library rounds these in other places; LiteRT's has the kernels that Python has.
INTEGER = ("classes_int8", "probabilities", "numbers")
RUNS = 4
LANGUAGES = ("kotlin", "java")


@pytest.fixture(scope="module")
def specs(postprocessing_models: Path) -> dict[str, BundleSpec]:
    """The cut file of each model with what was cut."""
    return {
        name: with_tail(
            spec_of, (postprocessing_models / f"{name}.tflite").read_bytes(), name, "cpu", android_package=f"com.t{n}"
        )
        for n, name in enumerate(MODELS)
    }


def originals(postprocessing_models: Path, name: str) -> list[list[np.ndarray]]:
    """Return the uncut file's outputs for the first images."""
    runner = Runner((postprocessing_models / f"{name}.tflite").read_bytes())
    return [[np.array(output) for output in runner.run([image[None]])] for image in images(RUNS)]


def assert_same(expected: np.ndarray, actual: np.ndarray) -> None:
    """The loader's result is the model's: shape, type, classes exactly, real numbers to float32 rounding."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * max(1.0, float(np.abs(expected).max())))


def test_the_specs_say_what_was_cut(specs: dict[str, BundleSpec]) -> None:
    """DEQUANTIZE needs no step of its own; names are the user's, also without a signature."""
    found = {name: [[step.op for step in output.tail] for output in spec.outputs] for name, spec in specs.items()}
    both = [["ARG_MAX"], ["ARG_MAX"]]
    assert found == {
        "classes": both, "classes_int8": both, "probabilities": [["SOFTMAX"]], "numbers": [[]], "scaled": [["SOFTMAX"]],
    }  # fmt: skip
    assert {output.name for output in specs["classes"].outputs} == {"class", "map"}
    assert [output.name for output in specs["scaled"].outputs] == ["shares"]
    assert specs["scaled"].outputs[0].tail[0].beta == pytest.approx(0.7)


# -- Python ------------------------------------------------------------------------------------------------------------

RUN = """
import sys, numpy as np
package = __import__(sys.argv[1])
with getattr(package, sys.argv[2])() as model:
    for n, image in enumerate(np.load(sys.argv[3])):
        result = model.run(image)
        np.savez(f"{sys.argv[4]}/{n}.npz", *[getattr(result, tensor.field) for tensor in package.OUTPUTS])
"""


def python(bundle: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    source = bundle / "linux" / "src"
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", MODELS)
def test_python_gives_what_the_model_gave(
    specs: dict[str, BundleSpec], postprocessing_models: Path, tmp_path: Path, name: str
) -> None:
    """The package's results equal the uncut file's, and its self-test replays raw and finished vectors."""
    spec = specs[name]
    bundle = write_tree(render(spec), tmp_path / "bundle")
    context = make_context(spec)
    np.save(tmp_path / "images.npy", images(RUNS)[:, None])
    package = context["python_package"]
    done = python(bundle, "-c", RUN, package, context["class_name"], tmp_path / "images.npy", tmp_path)
    assert done.returncode == 0, done.stderr
    for number, expected in enumerate(originals(postprocessing_models, name)):
        with np.load(tmp_path / f"{number}.npz") as loaded:
            for position, array in enumerate(expected):
                assert_same(array, loaded[f"arr_{position}"])
    done = python(bundle, "-m", package, "--self-test")
    assert done.returncode == 0, done.stdout + done.stderr
    done = python(bundle, "-m", package, tmp_path / "images.npy")
    assert done.returncode == 2, "one file holds one call's values"


def spoil(place: Path, spec: BundleSpec) -> None:
    """Change the largest value of the first output's finished vector."""
    values = np.frombuffer(place.read_bytes(), NUMPY_DTYPES[spec.outputs[0].finished_dtype]).copy()
    values[np.argmax(values)] -= 1
    place.write_bytes(values.tobytes())


@pytest.mark.parametrize("name", ["classes_int8", "probabilities"])
def test_wrong_finished_vectors_are_seen(specs: dict[str, BundleSpec], tmp_path: Path, name: str) -> None:
    """A finished value that the steps do not give fails the self-test of Python and C, and `verify`."""
    bundle = write_tree(render(specs[name]), tmp_path / "bundle")
    assert verify(bundle).ok
    data = next(bundle.glob("linux/src/*/data"))
    spoil(data / "golden" / "case_1" / "finished_0.bin", specs[name])
    done = python(bundle, "-m", data.parent.name, "--self-test")
    assert done.returncode == 1
    [wrong] = [line for line in done.stdout.splitlines() if line.endswith("FAILED")]
    assert wrong.startswith("case 1\t") and "largest difference inf" in wrong
    if shutil.which("cc") and shutil.which("c++"):
        loader = loader_of(bundle)
        program = self_test_program(loader, tmp_path / "program")
        done = cpp_tools.run(program, loader.data, "--runtime", runtime_library("litert"))
        assert done.returncode == 1
        [wrong] = [line for line in done.stdout.splitlines() if line.endswith("FAILED")]
        assert wrong.startswith("case 1\t") and "largest difference inf" in wrong
    spoil(bundle / "golden" / "case_0" / "finished_0.bin", specs[name])
    problems = [problem.what for problem in verify(bundle).problems]
    assert any("was modified" in text for text in problems)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"axis": 4}, "ARG_MAX of [1, 8, 8, 4] along axis 4"),
        ({"shape": [1, 8, 9]}, "expected the shape [1, 8, 8], got [1, 8, 9]"),
        ({"dtype": "FLOAT32"}, "expected ARG_MAX to INT32 or INT64"),
        ({"op": "SOFTMAX", "dtype": "FLOAT32", "axis": 0}, "expected SOFTMAX along the last axis"),
        ({"op": "TOPK_V2"}, "expected one of ARG_MAX, SOFTMAX, got 'TOPK_V2'"),
        ({"beta": "1"}, "expected number"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_a_tail_that_makes_no_sense_is_a_problem(
    specs: dict[str, BundleSpec], tmp_path: Path, change: dict[str, object], says: str
) -> None:
    """`verify` does not trust a bundle: a tail has to fit its output."""
    bundle = write_tree(render(specs["classes_int8"]), tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    entry = next(output for output in manifest["outputs"] if output["name"] == "map")
    entry["tail"][0].update(change)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert any(says in problem.what for problem in verify(bundle).problems), verify(bundle).problems


def test_finished_vectors_of_another_tail_are_a_problem(specs: dict[str, BundleSpec], tmp_path: Path) -> None:
    """Hashes that agree do not excuse finished values that the listed steps do not give."""
    files = render(specs["probabilities"])
    manifest = json.loads(files["manifest.json"])
    manifest["outputs"][0]["tail"][0]["beta"] = 2.0
    files["manifest.json"] = json.dumps(manifest).encode()
    problems = [problem.what for problem in verify(write_tree(files, tmp_path / "bundle")).problems]
    assert problems == ["output 'Identity': the finished values differ from the result of its postprocessing"] * 2


# -- C and C++ ---------------------------------------------------------------------------------------------------------

CONSUMER = """
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "NAME/NAME.hpp"
int main(int, char **arguments) {
  edgepack::Options options;
  options.data_dir = arguments[1];
  options.runtime_library = arguments[2];
  edgepack::NAME::Model model(options);
  FILE *input = std::fopen(arguments[3], "rb");
  FILE *output = std::fopen(arguments[4], "wb");
  std::vector<float> image(NAME_SIZE);
  while (std::fread(image.data(), sizeof(float), image.size(), input) == image.size()) {
    const auto result = model.run(image);
    WRITES
  }
  std::fclose(input);
  std::fclose(output);
  return 0;
}
"""


@pytest.mark.parametrize("name", MODELS)
def test_cpp_gives_what_the_model_gave(
    specs: dict[str, BundleSpec], postprocessing_models: Path, tmp_path: Path, name: str
) -> None:
    """The C++ result has the user's shapes, types and values; the self-test passes on the real runtimes."""
    cpp_tools.needs_compilers()
    spec = specs[name]
    loader = loader_of(write_tree(render(spec), tmp_path / "bundle"))
    context = make_context(spec)
    macro = f"{context['c_macro']}_INPUT_{context['c_inputs'][0].macro}"
    text = CONSUMER.replace("NAME_SIZE", f"{macro}_SIZE").replace("NAME", loader.name)
    fields = [tensor.field for tensor in context["c_outputs"]]
    writes = (f"std::fwrite(result.{f}.data(), sizeof(result.{f}[0]), result.{f}.size(), output);" for f in fields)
    source = tmp_path / "consumer.cpp"
    source.write_text(text.replace("WRITES", "\n    ".join(writes)))
    program = link(tmp_path / "program", [source], [loader])
    (tmp_path / "in").write_bytes(images(RUNS).tobytes())
    done = cpp_tools.run(program, loader.data, runtime_library("litert"), tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    given, place = (tmp_path / "out").read_bytes(), 0
    for expected in originals(postprocessing_models, name):
        for array in expected:
            found = np.frombuffer(given, array.dtype, array.size, place)
            assert_same(array, found.reshape(array.shape))
            place += array.nbytes
    assert place == len(given)
    tested = self_test_program(loader, tmp_path / "tested")
    for kind in ("litert",) if name in INTEGER else ("litert", "tflite"):
        done = cpp_tools.run(tested, loader.data, "--runtime", runtime_library(kind))
        assert done.returncode == 0, done.stdout + done.stderr


# -- Kotlin and Java ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phones(specs: dict[str, BundleSpec]) -> dict[str, BundleSpec]:
    """The same models for Android."""
    profile = profile_of("cpu", bundle=BundleRule("android", "none"))
    return {name: replace(spec, profile=profile) for name, spec in specs.items()}


@pytest.fixture(scope="module")
def classes(kotlin: Kotlin, phones: dict[str, BundleSpec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the compiled loaders of all models, by language; warnings are errors."""
    folder = tmp_path_factory.mktemp("loaders")
    for language, ending in (("kotlin", ".kt"), ("java", ".java")):
        for name, spec in phones.items():
            files = render(replace(spec, language=language))
            main = {path: data for path, data in files.items() if path.endswith(ending) and "/src/main/" in path}
            write_tree(main, folder / language / name)
        compiler = kotlin.compile if language == "kotlin" else kotlin.compile_java
        done = compiler(sorted((folder / language).rglob(f"*{ending}")), folder / f"{language}-classes")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", MODELS)
def test_android_gives_what_the_model_gave(
    kotlin: Kotlin,
    standins: Path,
    classes: Path,
    phones: dict[str, BundleSpec],
    postprocessing_models: Path,
    tmp_path: Path,
    name: str,
    language: str,
) -> None:
    """From the raw outputs of the cut file the app reads the uncut file's values; a wrong finished vector is seen."""
    spec = phones[name]
    recording = jvm_tools.record(spec.host.data, [[image[None]] for image in images(RUNS)])
    jvm_tools.write_recording(tmp_path, recording, spec, 0)
    files = render(replace(spec, language=language))
    wrong = next((path for path in files if path.endswith("assets/" + context_asset(spec, 1))), "")
    if wrong:
        write_tree({"finished": files[wrong]}, tmp_path)
        spoil(tmp_path / "finished", spec)
        files[wrong] = (tmp_path / "finished").read_bytes()
    jvm_tools.write_archive(files, tmp_path / "app.zip")
    done = jvm_tools.drive(kotlin, standins, classes / f"{language}-classes", spec, tmp_path, RUNS)
    assert done.returncode == 0, done.stderr
    for number, expected in enumerate(originals(postprocessing_models, name)):
        for position, array in enumerate(expected):
            found = np.frombuffer((tmp_path / str(number) / f"result_{position}.bin").read_bytes(), array.dtype)
            assert_same(array, found.reshape(array.shape))
    golden = [line.split() for line in done.stdout.splitlines() if line.startswith("golden ")]
    assert len(golden) == len(spec.golden.cases) * len(spec.outputs)
    failed = [(line[1], line[3]) for line in golden if line[5] != "true"]
    assert failed == ([("1", "Infinity")] if wrong else [])


def context_asset(spec: BundleSpec, case: int) -> str:
    """Path of the first output's finished vector in an app's assets."""
    return f"{make_context(spec)['asset']}/golden/case_{case}/finished_0.bin"
