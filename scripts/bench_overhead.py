"""Compare one inference through the loaders with the bare interpreter, in Python and in C++, on the digits example.

Bare is what a program without the loader does: copy the input, already in the model's type, invoke, copy the output.
Both sides take turns on the same samples; medians of the turns and of their ratios are printed, with the CPU-seconds of
each side. C++ runs on TensorFlow Lite's C library (--tflite).
"""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import REPOSITORY, edgepack, parser, work_folder, write_figures

#: Target -> what goes in and comes out: float32, and int8 which the loaders quantize.
TARGETS = {"cpu": "float32", "edgetpu": "int8"}
ROUNDS, CALLS = 61, 300

#: The same steps in C++: bare by the C API, and by the loader with a result that is kept.
PROGRAM = """
#include <dlfcn.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>
#include "digits/digits.hpp"
template <typename F> F *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (found == nullptr) { std::fprintf(stderr, "no %s\\n", name); std::exit(3); }
  return reinterpret_cast<F *>(found);
}
static double now() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}
int main(int, char **arguments) {
  const int rounds = std::atoi(arguments[4]), calls = std::atoi(arguments[5]);
  void *library = dlopen(arguments[1], RTLD_NOW);
  if (library == nullptr) { std::fprintf(stderr, "%s\\n", dlerror()); return 3; }
  void *file = symbol<void *(const char *)>(library, "TfLiteModelCreateFromFile")(arguments[2]);
  void *options = symbol<void *()>(library, "TfLiteInterpreterOptionsCreate")();
  symbol<void(void *, int)>(library, "TfLiteInterpreterOptionsSetNumThreads")(options, 1);
  void *interpreter = symbol<void *(void *, void *)>(library, "TfLiteInterpreterCreate")(file, options);
  symbol<int(void *)>(library, "TfLiteInterpreterAllocateTensors")(interpreter);
  void *input = symbol<void *(void *, int)>(library, "TfLiteInterpreterGetInputTensor")(interpreter, 0);
  void *output = symbol<void *(void *, int)>(library, "TfLiteInterpreterGetOutputTensor")(interpreter, 0);
  const auto copy_in = symbol<int(void *, const void *, std::size_t)>(library, "TfLiteTensorCopyFromBuffer");
  const auto copy_out = symbol<int(void *, void *, std::size_t)>(library, "TfLiteTensorCopyToBuffer");
  const auto invoke = symbol<int(void *)>(library, "TfLiteInterpreterInvoke");
  const auto bytes = symbol<std::size_t(void *)>(library, "TfLiteTensorByteSize");
  std::vector<char> raw(bytes(input)), answer(bytes(output));
  edgepack::Options choice;
  choice.data_dir = arguments[3];
  choice.runtime_library = arguments[1];
  choice.accelerator = EDGEPACK_NEVER;
  edgepack::digits::Model model(choice);
  std::vector<float> values(DIGITS_INPUT_IMAGE_SIZE);
  for (std::size_t i = 0; i < values.size(); ++i) { values[i] = static_cast<float>(i % 17); }
  edgepack::digits::Result result;
  for (int round = 0; round < rounds; ++round) {
    const double start = now();
    for (int i = 0; i < calls; ++i) {
      copy_in(input, raw.data(), raw.size());
      invoke(interpreter);
      copy_out(output, answer.data(), answer.size());
    }
    const double middle = now();
    for (int i = 0; i < calls; ++i) { model.run_into(result, values); }
    std::printf("%.9f %.9f\\n", middle - start, now() - middle);
  }
}
"""

Pair = tuple[float, float]


def python_pairs(bundle: Path) -> list[Pair]:
    """Return the CPU-seconds of each turn: bare, and through the package."""
    from ai_edge_litert.interpreter import Interpreter

    sys.path.insert(0, str(bundle / "linux" / "src"))
    for name in [name for name in sys.modules if name.split(".")[0] == "digits"]:
        del sys.modules[name]
    package = __import__("digits")
    sys.path.pop(0)
    (path,) = (bundle / "model").glob("*.tflite")
    model: Any = package.Digits(**({"accelerator": "never"} if bundle.name.endswith("-edgetpu") else {}))
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    input_index = interpreter.get_input_details()[0]["index"]
    output_index = interpreter.get_output_details()[0]["index"]
    (samples,) = np.load(REPOSITORY / "examples" / "digits" / "samples.npz").values()
    shaped = [sample.reshape(package.INPUTS[0].shape).astype(np.float32) for sample in samples]
    real = [shaped[number % len(shaped)] for number in range(CALLS)]
    raw = [package.INPUTS[0].quantize(values) for values in real]

    def bare() -> None:
        for values in raw:
            interpreter.set_tensor(input_index, values)
            interpreter.invoke()
            interpreter.get_tensor(output_index)

    def loader() -> None:
        for values in real:
            model.run(values)

    return [(_seconds(bare), _seconds(loader)) for _ in range(ROUNDS)]


def _seconds(function: Callable[[], None]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def cpp_pairs(bundle: Path, library: Path, work: Path) -> list[Pair]:
    """Return the CPU-seconds of each turn: bare, and through the library as CMake builds it."""
    source = work / "overhead.cpp"
    source.write_text(PROGRAM)
    cpp = bundle / "linux" / "cpp"
    build = work / f"build-{bundle.name}"
    for command in (
        ["cmake", "-S", cpp, "-B", build],
        ["cmake", "--build", build],
        ["c++", "-std=c++17", "-O2", f"-I{cpp / 'include'}", source, build / "libdigits.a", "-o", build / "overhead"],
    ):
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    (path,) = (bundle / "model").glob("*.tflite")
    data = next(bundle.glob("linux/src/*/data"))
    command = [build / "overhead", library, path, data, ROUNDS, CALLS * 10]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    return [(float(bare), float(loader)) for bare, loader in (line.split() for line in done.stdout.splitlines())]


def show(kind: str, pairs: list[Pair], calls: int) -> dict[str, float]:
    """Print and return the medians of one comparison; the first turns only warm up."""
    kept = pairs[5:]
    bare, loader = (statistics.median(pair[side] for pair in kept) / calls * 1e6 for side in (0, 1))
    ratio = statistics.median(pair[1] / pair[0] for pair in kept)
    cpu = [sum(pair[side] for pair in pairs) for side in (0, 1)]
    print(f"{kind:16} {bare:8.2f} {loader:8.2f} {ratio:7.3f}x {cpu[0]:8.2f} {cpu[1]:8.2f}")
    return {"bare_us": bare, "loader_us": loader, "ratio": ratio, "cpu_bare": cpu[0], "cpu_loader": cpu[1]}


def main() -> None:
    """Build the bundles, measure, print."""
    arguments_parser = parser(__doc__ or "", [])
    arguments_parser.add_argument(
        "--tflite", type=Path, metavar="FILE", help="TensorFlow Lite's C library, for C++ (libtensorflowlite_c.so)"
    )
    arguments = arguments_parser.parse_args()
    figures: dict[str, Any] = {}
    with work_folder(arguments.work) as work:
        model = REPOSITORY / "tests" / "data" / "digits_float.tflite"
        samples = REPOSITORY / "examples" / "digits" / "samples.npz"
        words = ["build", model, "--samples", samples, "--name", "digits", "--out", work / "out", "--scheme", "int8"]
        edgepack(
            *words, *(word for target in TARGETS for word in ("-t", target)), "--compile", "never", "--force", work=work
        )
        print(f"{'':16} {'bare us':>8} {'loader':>8} {'ratio':>8} {'CPU-s':>8} {'CPU-s':>8}")
        for target, kind in TARGETS.items():
            bundle = work / "out" / f"digits-{target}"
            figures[f"python {kind}"] = show(f"Python, {kind}", python_pairs(bundle), CALLS)
            if arguments.tflite and shutil.which("cmake"):
                figures[f"cpp {kind}"] = show(f"C++, {kind}", cpp_pairs(bundle, arguments.tflite, work), CALLS * 10)
        if not arguments.tflite:
            print("C++ was not measured: pass TensorFlow Lite's C library with --tflite")
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
