"""Results of models in the C and C++ loader: from a frame or a stream of samples, in one call."""

from collections.abc import Callable
from pathlib import Path

import cpp_tools
import numpy as np
import pytest
from bundle_specs import quantize_model, spec_of, write_tree
from cpp_tools import link, loader_of, run_bytes, runtime_library
from test_cpp_frames import with_image

from edgepack.bundle.languages.c import c_identifiers
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.tasks.decode.mapping import frame_mapping
from edgepack.tasks.decode.masks import segment
from edgepack.tasks.decode.scores import classify
from edgepack.tasks.decode.windows import Windows
from edgepack.tasks.spec import parse

pytestmark = pytest.mark.slow

CLASSIFIER = "coral/mobilenet_v1_0.25_128_quant.tflite"
SEGMENTER = "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite"
START = """
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "NAME/NAME.hpp"
[[maybe_unused]] static long allocations = 0;
#ifdef COUNT
extern "C" {
void *__libc_malloc(std::size_t);
void *__libc_calloc(std::size_t, std::size_t);
void *malloc(std::size_t size) { ++allocations; return __libc_malloc(size); }
void *calloc(std::size_t count, std::size_t size) { ++allocations; return __libc_calloc(count, size); }
}
#endif
template <typename T>
static std::vector<T> read(std::size_t count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != count) { std::abort(); }
  return values;
}
int main(int, char **arguments) {
  edgepack::Options options;
  options.data_dir = arguments[1];
  options.runtime_library = arguments[2];
  edgepack::NAME::Model model(options);
BODY
  return 0;
}
"""


@pytest.fixture(autouse=True)
def _compilers() -> None:
    cpp_tools.needs_compilers()


def printed(
    spec: BundleSpec, folder: Path, body: str, given: bytes, flags: tuple[str, ...] = cpp_tools.SANITIZED
) -> bytes:
    """Return what a C++ program prints that opens the model on TensorFlow Lite and continues with `body`."""
    loader = loader_of(write_tree(render(spec), folder / "bundle"))
    (output,) = c_identifiers([tensor.name for tensor in spec.outputs], "output")
    source = folder / "main.cpp"
    text = START.replace("BODY", body).replace("NAME", loader.name).replace("MACRO", loader.name.upper())
    source.write_text(text.replace("OUTPUT", output))
    program = link(folder / "program", [source], [loader], flags)
    done = run_bytes(program, loader.data, runtime_library("tflite"), given=given)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


PIXELS = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)


def test_a_classifier_names_what_a_frame_shows(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """Classes of a frame are those of its run, with names, best first; the C function allocates nothing."""
    names = tuple(f"class {n}" for n in range(900))
    spec = with_image(make_spec(CLASSIFIER, "cpu", task=parse("classification"), task_labels=names))
    body = """
  const auto pixels = read<std::uint8_t>(90 * 120 * 3);
  const edgepack::Frame frame(EDGEPACK_RGB, 120, 90, pixels);
  const auto result = model.run(frame);
  std::fwrite(result.OUTPUT.data(), sizeof(float), result.OUTPUT.size(), stdout);
  std::puts("");
  for (const auto &labels : {model.classify(frame, 7), model.classify(result, 7)}) {
    for (const edgepack::Label &one : labels) {
      std::printf("%s\\t%zu\\t%.9g\\n", one.label.c_str(), one.index, static_cast<double>(one.score));
    }
  }
  const edgepack_frame plain = frame.c();
  edgepack_label best[3];
  std::size_t count = 0;
  const long before = allocations;
  for (int i = 0; i < 5; ++i) { NAME_classify(model.get(), &plain, best, 3, &count, nullptr); }
  std::printf("%zu %ld\\n", count, allocations - before);
  edgepack_error error = edgepack_error();
  if (NAME_classify(model.get(), &plain, nullptr, 3, &count, &error) != EDGEPACK_BAD_ARGUMENT) { return 5; }
  std::puts(error.message);
  const NAME_outputs nothing = NAME_outputs();
  if (NAME_decode(model.get(), &nothing, best, 3, &count, &error) != EDGEPACK_BAD_ARGUMENT) { return 6; }
  std::puts(error.message);
  if (NAME_classify(nullptr, &plain, best, 3, &count, &error) != EDGEPACK_BAD_ARGUMENT) { return 7; }
  std::puts(error.message);
"""
    counting = ("-O1", "-DCOUNT")
    for flags in (counting, cpp_tools.SANITIZED):
        folder = tmp_path / str(len(flags))
        folder.mkdir()
        data = printed(spec, folder, body, PIXELS.tobytes(), flags)
        scores = np.frombuffer(data[: 4 * 1001], np.float32)
        expected = classify(scores, names, 7)
        lines = data[4 * 1001 :].decode().splitlines()[1:]
        assert lines[:7] == lines[7:14]
        assert [line.split("\t")[:2] for line in lines[:7]] == [[one.label, str(one.index)] for one in expected]
        assert [float(line.split("\t")[2]) for line in lines[:7]] == pytest.approx([one.score for one in expected])
        assert lines[14:] == [
            "3 0",
            "expected a model, outputs and places for the results, got null",
            "expected values of the outputs, got null",
            "the model or the outputs are null",
        ]


def test_a_segmenter_marks_the_pixels_of_a_frame(make_spec: Callable[..., BundleSpec], tmp_path: Path) -> None:
    """The mask of a rotated crop is what Python's decoder makes of the same output; a small buffer is refused."""
    spec = with_image(make_spec(SEGMENTER, "cpu", task=parse("segmentation,layout=classes"), task_labels=("a", "b")))
    body = """
  const auto pixels = read<std::uint8_t>(90 * 120 * 3);
  edgepack::Frame frame(EDGEPACK_RGB, 120, 90, pixels);
  frame.crop = edgepack_rectangle{10, 20, 77, 50};
  frame.rotation = 90;
  frame.mirror = true;
  frame.fit = EDGEPACK_LETTERBOX;
  edgepack::FrameMapping mapping;
  edgepack::NAME::Result result;
  model.run_into(result, frame, &mapping);
  const edgepack::Mask mask = model.segment(frame);
  if (mask.classes != model.segment(result, mapping).classes || mask.width != 77 || mask.height != 50) { return 4; }
  if (mask.counts()[mask.classes[0]] == 0) { return 5; }
  std::fwrite(result.OUTPUT.data(), sizeof(std::int64_t), result.OUTPUT.size(), stdout);
  std::fwrite(mask.classes.data(), 1, mask.classes.size(), stdout);
  const edgepack_frame plain = frame.c();
  std::vector<std::uint8_t> small(77 * 50 - 1);
  edgepack_error error = edgepack_error();
  if (NAME_segment(model.get(), &plain, small.data(), small.size(), &error) != EDGEPACK_BAD_ARGUMENT) { return 6; }
  std::puts(error.message);
"""
    data = printed(spec, tmp_path, body, PIXELS.tobytes())
    classes = np.frombuffer(data[: 8 * 513 * 513], np.int64).reshape(1, 513, 513)
    mapping = frame_mapping((10, 20, 77, 50), (513, 513), "letterbox", rotation=90, mirror=True)
    mask = segment(classes, mapping, ()).mask
    assert np.array_equal(np.frombuffer(data, np.uint8, 77 * 50, 8 * 513 * 513).reshape(50, 77), mask)
    assert data[8 * 513 * 513 + 77 * 50 :].decode() == "mask: expected 77 x 50 bytes, got 3849\n"


def test_a_stream_of_samples_becomes_windows(tmp_path: Path) -> None:
    """Chunks of any length give the classes of each full window, as Python's windows cut them."""
    model = quantize_model(8, 0.01, 0, "INT8")
    spec = spec_of(model, "sound", "cpu", task=parse("audio"), task_labels=tuple("abcdefgh"))
    samples = np.random.default_rng(2).uniform(-1, 1, 61).astype(np.float32)
    body = """
  const auto samples = read<float>(61);
  edgepack::NAME::AudioStream stream(model, 3);
  std::size_t at = 0;
  for (std::size_t size : {1, 2, 20, 0, 7, 31}) {
    for (const auto &window : stream.push(edgepack::View<float>(samples.data() + at, size), 2)) {
      std::printf("%s %s\\n", window.at(0).label.c_str(), window.at(1).label.c_str());
    }
    at += size;
  }
  stream.reset();
  std::printf("%zu\\n", stream.push(edgepack::View<float>(samples.data(), 8)).size());
  try {
    edgepack::NAME::AudioStream wrong(model, 9);
    return 4;
  } catch (const edgepack::Error &error) {
    std::puts(error.what());
  }
"""
    expected = []
    for window in Windows(8, 3).push(samples):
        real = np.clip(np.rint(window * np.float32(1 / 0.01)), -128, 127)
        expected.append(" ".join(one.label for one in classify(real, "abcdefgh", 2)))
    lines = printed(spec, tmp_path, body, samples.tobytes()).decode().splitlines()
    assert lines[:-2] == expected
    assert lines[-2:] == ["1", "expected a model and a hop of 1 to 8 samples, got 9"]
