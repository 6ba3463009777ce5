"""The C and C++ loader, compiled with every warning as an error and with sanitizers, run on the real runtimes."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cpp_tools
import numpy as np
import pytest
from bundle_specs import quantize_model, random_cases, spec_of, tiny_spec, write_tree
from cpp_tools import link, loader_of, run, runtime_library, self_test_program

from edgepack.bundle.languages.c import c_identifiers
from edgepack.bundle.names import float32_literal
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.pipeline.build import build
from edgepack.pipeline.options import BuildOptions
from edgepack.runtime import Runner, dequantize, quantize

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "digits"
KWS = "mlperf-tiny/kws_reference_int8.tflite"
SPLIT = "coral/split_concat.tflite"
LSTM = "coral/keras_lstm_mnist_ptq.tflite"
RUNTIMES = ["litert", "tflite"]


@pytest.fixture(autouse=True)
def _compilers() -> None:
    cpp_tools.needs_compilers()


def bundle_of(spec: BundleSpec, folder: Path) -> cpp_tools.Loader:
    return loader_of(write_tree(render(spec), folder))


# -- golden vectors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "target"), [(KWS, "cpu"), (SPLIT, "edgetpu"), (SPLIT, "cpu")])
def test_self_test_agrees_on_real_runtimes(
    make_spec: Callable[..., BundleSpec], tmp_path: Path, file: str, target: str
) -> None:
    """The self-test, built with the sanitizers, ends with 0 on TensorFlow Lite's and on LiteRT's own C library."""
    spec = make_spec(file, target)
    loader = bundle_of(spec, tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    for kind, name in (("litert", "LiteRT ("), ("tflite", "TensorFlow Lite 2.18.0 (")):
        done = run(program, loader.data, "--runtime", runtime_library(kind))
        assert done.returncode == 0, done.stderr
        assert f"model.tflite on cpu, {name}" in done.stderr
        count = 2 * len(spec.outputs)
        *lines, last = done.stdout.splitlines()
        assert last == f"self-test: {count} of {count} outputs agree (tolerance: other)"
        assert len(lines) == count and all(line.endswith("\tok") for line in lines)


@pytest.mark.parametrize(("target", "io"), [("cpu", "FLOAT32"), ("edgetpu", "INT8")])
def test_digits_bundle_self_tests(tmp_path: Path, target: str, io: str) -> None:
    """A build's own int8 bundle with float and with integer ends replays its vectors on both libraries."""
    options = BuildOptions(
        out=tmp_path,
        name="digits",
        samples=str(EXAMPLES / "samples.npz"),
        labels=EXAMPLES / "labels.txt",
        scheme="int8",
    )
    (entry,) = build(REPOSITORY / "tests" / "data" / "digits_float.tflite", [target], options).results
    assert entry.bundle is not None
    manifest = json.loads((entry.bundle / "manifest.json").read_text())
    assert {tensor["dtype"] for tensor in (*manifest["inputs"], *manifest["outputs"])} == {io}
    loader = loader_of(entry.bundle)
    program = self_test_program(loader, tmp_path / "program")
    for kind in RUNTIMES:
        done = run(program, loader.data, "--runtime", runtime_library(kind))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", RUNTIMES)
def test_self_test_can_fail(make_spec: Callable[..., BundleSpec], tmp_path: Path, kind: str) -> None:
    """A wrong golden vector exits with 1 and the output's difference; a short one exits with 2."""
    loader = bundle_of(make_spec(KWS, "cpu"), tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    output = loader.data / "golden" / "case_1" / "output_0.bin"
    changed = np.frombuffer(output.read_bytes(), np.int8).copy()
    changed[3] = changed[3] + 7 if changed[3] < 100 else changed[3] - 7
    output.write_bytes(changed.tobytes())
    done = run(program, loader.data, "--runtime", runtime_library(kind))
    assert done.returncode == 1
    assert "case 1\tidentity\tlargest difference 7\tallowed 1\tFAILED" in done.stdout
    output.write_bytes(changed.tobytes()[:-1])
    done = run(program, loader.data, "--runtime", runtime_library(kind))
    assert done.returncode == 2 and "expected 12 bytes, got fewer" in done.stderr


def test_a_model_with_state_starts_every_case_afresh(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """An LSTM replays its vectors on TensorFlow Lite; LiteRT's C API does not support it, and the message says so."""
    loader = bundle_of(make_spec(LSTM, "cpu"), tmp_path / "bundle")
    program = self_test_program(loader, tmp_path / "program")
    done = run(program, loader.data, "--runtime", runtime_library("tflite"))
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(program, loader.data, "--runtime", runtime_library("litert"))
    assert done.returncode == 2 and "a stateful model requires libtensorflowlite_c.so" in done.stderr


# -- real values -------------------------------------------------------------------------------------------------------

CONSUMER = """
#include <cstdio>
#include <vector>
#include "NAME/NAME.hpp"
static std::vector<float> read(FILE *stream, std::size_t size) {
  std::vector<float> values(size);
  if (std::fread(values.data(), sizeof(float), size, stream) != size) { std::abort(); }
  return values;
}
int main(int, char **arguments) {
  edgepack::Options options;
  options.data_dir = arguments[1];
  options.runtime_library = arguments[2];
  options.threads = 2;
  edgepack::NAME::Model first(options);
  edgepack::NAME::Model model = std::move(first);
  FILE *input = std::fopen(arguments[3], "rb");
  FILE *output = std::fopen(arguments[4], "wb");
  if (input == nullptr || output == nullptr) { return 3; }
  READS
  const auto result = model.run(ARGUMENTS);
  WRITES
  std::fclose(input);
  std::fclose(output);
  try {
    model.run(SHORT);
    return 4;
  } catch (const edgepack::Error &error) {
    std::puts(error.what());
  }
  return 0;
}
"""


# Other versions of the kernels may round the keyword model's layers differently: it is compared with its own runtime.
@pytest.mark.parametrize(("file", "kind"), [(KWS, "litert"), (SPLIT, "litert"), (SPLIT, "tflite")])
def test_typed_run_gives_pythons_numbers(
    make_spec: Callable[..., BundleSpec], tmp_path: Path, file: str, kind: str
) -> None:
    """run() with one parameter per input and one member per output equals Python's results bit for bit."""
    spec = make_spec(file, "cpu")
    loader = bundle_of(spec, tmp_path / "bundle")
    inputs = c_identifiers([tensor.name for tensor in spec.inputs], "input")
    outputs = c_identifiers([tensor.name for tensor in spec.outputs], "output")
    macro = loader.name.upper()
    source = tmp_path / "consumer.cpp"
    text = CONSUMER.replace(
        "READS", "\n".join(f"const auto {n} = read(input, {macro}_INPUT_{n.upper()}_SIZE);" for n in inputs)
    )
    text = text.replace("ARGUMENTS", ", ".join(inputs)).replace("NAME", loader.name)
    text = text.replace("SHORT", ", ".join(["std::vector<float>(3)"] * len(inputs)))
    writes = (f"std::fwrite(result.{n}.data(), sizeof(float), result.{n}.size(), output);" for n in outputs)
    source.write_text("#include <cstdlib>\n" + text.replace("WRITES", "\n".join(writes)))
    program = link(tmp_path / "program", [source], [loader])

    runner = Runner(spec.host.data)
    generator = np.random.default_rng(3)
    raws = random_cases(spec.inputs, 1, seed=5)[0]
    reals = [
        (dequantize(info, raw) * 1.3 + generator.normal(0, info.scale, raw.shape)).astype(np.float32)
        for info, raw in zip(runner.inputs, raws, strict=True)
    ]
    (tmp_path / "in").write_bytes(b"".join(real.tobytes() for real in reals))
    results = runner.run([quantize(info, real) for info, real in zip(runner.inputs, reals, strict=True)])
    expected = [dequantize(info, raw) for info, raw in zip(runner.outputs, results, strict=True)]
    done = run(program, loader.data, runtime_library(kind), tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"'{inputs[0]}': expected {reals[0].size} values, got 3\n"
    assert (tmp_path / "out").read_bytes() == b"".join(values.astype(np.float32).tobytes() for values in expected)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"),
    [("INT8", 0.0078125, -1), ("INT8", 0.1, 3), ("UINT8", 1 / 255, 0), ("UINT8", 0.37, 128), ("INT16", 3.1e-5, 0)],
)
def test_quantization_is_the_runtimes_own(tmp_path: Path, dtype: str, scale: float, zero_point: int) -> None:
    """Halves, neighbours of halves, noise and far values quantize bit for bit as the runtime's QUANTIZE does."""
    step = np.float32(scale)
    limits = np.iinfo(dtype.lower())
    span = np.arange(limits.min - zero_point - 3, limits.max - zero_point + 3)[:: 1 + limits.max // 2000]
    halves = (span + 0.5) * step
    noise = np.random.default_rng(0).normal(0, (limits.max - limits.min) / 4 * scale, 5000)
    edges = np.array([0.49999997 * step, 1e4 * limits.max * step, -1e4 * limits.max * step])
    values = np.concatenate([halves, np.nextafter(np.float32(halves), np.float32(np.inf)), noise, edges])
    values = values.astype(np.float32)[None]
    model = quantize_model(values.size, float(step), zero_point, dtype)
    [expected] = Runner(model).run([values])
    loader = bundle_of(spec_of(model, "q", "cpu"), tmp_path / "bundle")
    source = tmp_path / "main.c"
    source.write_text(f"""
#include <math.h>
#include <stdio.h>
#include "engine.h"
enum {{ kSize = {values.size} }};
static float real[kSize];
static {dtype.lower()}_t raw[kSize];
int main(int count, char **arguments) {{
  const float scale = {float32_literal(float(step))};
  const engine_tensor tensor = {{"q", "q", ENGINE_{dtype}, kSize, scale, {zero_point}, NULL, 0}};
  FILE *stream = fopen(arguments[count - 2], "rb");
  if (stream == NULL || fread(real, sizeof(float), kSize, stream) != kSize) return 3;
  fclose(stream);
  if (engine_quantize(&tensor, real, raw, NULL) != EDGEPACK_OK) return 4;
  stream = fopen(arguments[count - 1], "wb");
  if (stream == NULL || fwrite(raw, sizeof raw[0], kSize, stream) != kSize) return 5;
  fclose(stream);
  real[1] = INFINITY;
  real[2] = -INFINITY;
  if (engine_quantize(&tensor, real, raw, NULL) != EDGEPACK_OK) return 6;
  printf("%d %d", (int)raw[1], (int)raw[2]);
  real[3] = NAN;
  edgepack_error error;
  if (engine_quantize(&tensor, real, raw, &error) != EDGEPACK_BAD_ARGUMENT) return 7;
  return puts(error.message) < 0;
}}
""")
    program = link(tmp_path / "program", [source], [loader])
    (tmp_path / "in").write_bytes(values.tobytes())
    done = run(program, tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.frombuffer((tmp_path / "out").read_bytes(), dtype.lower())[None], expected)
    assert done.stdout == f"{limits.max} {limits.min}'q': expected numbers, value 3 is NaN\n"


def test_labels_come_best_first(tmp_path: Path) -> None:
    """top_k gives labels as UTF-8, highest first, equal ones in the labels' order, not-a-number last."""
    spec = tiny_spec("cpu")
    words = ("größe", '"?" ??/ \\', "1\x002", "日本")
    scores = replace(spec.outputs[0], shape=(1, 4), labels=words)
    golden = replace(spec.golden, cases=())
    loader = bundle_of(replace(spec, outputs=(scores, *spec.outputs[1:]), golden=golden), tmp_path / "bundle")
    source = tmp_path / "main.cpp"
    source.write_text("""
#include <cmath>
#include <cstdio>
#include "tiny_model_2_0/tiny_model_2_0.hpp"
static void show(const edgepack::tiny_model_2_0::Result &result, std::size_t k) {
  for (const edgepack::Label &found : result.top_k_scores(k)) {
    std::printf("%s=%g#%zu\\n", found.label.c_str(), static_cast<double>(found.score), found.index);
  }
}
int main() {
  edgepack::tiny_model_2_0::Result result;
  result.scores = {0.5F, std::nanf(""), 0.5F, 0.75F};
  show(result, 3);
  show(result, 9);
  show(result, 0);
}
""")
    done = run(link(tmp_path / "program", [source], [loader]))
    best = ["日本=0.75#3", "größe=0.5#0", "1 2=0.5#2"]
    assert done.stdout.splitlines() == [*best, *best, '"?" ??/ \\=nan#1'], done.stderr


# -- names -------------------------------------------------------------------------------------------------------------

C_CONSUMER = """
#include "NAME/NAME.h"
int main(void) {
  edgepack_error error = {EDGEPACK_OK, ""};
  NAME_model *model = NAME_create(NULL, &error);
  NAME_inputs inputs = {0};
  NAME_outputs outputs = {0};
  edgepack_difference differences[MACRO_DIFFERENCES];
  if (model == NULL || NAME_run(model, &inputs, &outputs, &error) != EDGEPACK_OK) return 1;
  if (NAME_self_test(model, differences, &error) != EDGEPACK_OK || NAME_reset(model, &error) != EDGEPACK_OK) return 1;
  NAME_destroy(model);
  return 0;
}
"""
NAMES = [
    "my model-v2.0", "class", "time", "features", "timer", "linux", "3d net", "モデル", "errno", "exp", "std", "test",
    "int", "all", "Größe & Länge", "a" * 200, '"; EVIL *//*', "model", "edgepack", "signal", "task", "engine", "pixels",
]  # fmt: skip
TENSORS = [
    ("int", "namespace", "std"),
    ("model", "model_", "handle"),
    ("top_k_scores", "scores", "k"),
    ("best", "size_t", "check"),
    ("x y", "x-y", "X_Y"),
    ("モ", "デ", ""),
    ("linux", "stdin", "NULL"),
    ("9", "_", "result"),
]


def each_file_compiles(spec: BundleSpec, folder: Path) -> None:
    """Check the files with names in them, a C consumer and the C++ self-test, without linking."""
    loader = bundle_of(spec, folder)
    (folder / "consumer.c").write_text(C_CONSUMER.replace("NAME", loader.name).replace("MACRO", loader.name.upper()))
    # As compilers' defaults, where `linux` and `unix` are macros.
    for source in [loader.folder / "src" / "model.c", folder / "consumer.c"]:
        cpp_tools.checked(cpp_tools.compile_c(loader, source, "-fsyntax-only", "-std=gnu17"))
    source = loader.folder / "tests" / "self_test.cpp"
    cpp_tools.checked(cpp_tools.compile_cpp(loader, source, "-fsyntax-only", "-std=gnu++17"))


@pytest.mark.parametrize("name", NAMES, ids=lambda name: re.sub(r"\W", "_", name)[:20])
def test_any_models_name_compiles(tmp_path: Path, name: str) -> None:
    """Spaces, dashes, keywords, unicode, leading digits and names of system headers give a legal library."""
    each_file_compiles(tiny_spec("edgetpu", name=name), tmp_path)


@pytest.mark.parametrize("names", TENSORS)
def test_any_tensors_names_compile(tmp_path: Path, names: tuple[str, str, str]) -> None:
    """Names of inputs and outputs that are keywords, macros, names of the generated code or equal once made legal."""
    spec = tiny_spec("cpu")
    inputs = tuple(replace(tensor, name=name) for tensor, name in zip(spec.inputs, names, strict=False))
    outputs = tuple(replace(tensor, name=name) for tensor, name in zip(spec.outputs, reversed(names), strict=True))
    each_file_compiles(replace(spec, inputs=inputs, outputs=outputs), tmp_path)


def test_a_wrong_name_does_not_compile(tmp_path: Path) -> None:
    """The check can fail: a consumer that asks for an output which does not exist is refused."""
    loader = bundle_of(tiny_spec("cpu"), tmp_path)
    source = tmp_path / "consumer.cpp"
    source.write_text(
        '#include "tiny_model_2_0/tiny_model_2_0.hpp"\n'
        "float f(const edgepack::tiny_model_2_0::Result &result) { return result.no_such_output[0]; }\n"
    )
    done = cpp_tools.compile_cpp(loader, source, "-fsyntax-only")
    assert done.returncode != 0 and "no_such_output" in done.stderr
