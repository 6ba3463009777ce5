"""Frames in the C and C++ loader: pixels of any format become the values of NumPy and Pillow, bit for bit."""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cpp_tools
import numpy as np
import pytest
from bundle_specs import tiny_spec, write_tree
from cpp_frame_reference import FITS, PIXELS, Frame, fitted, originals, random_frame
from cpp_tools import link, loader_of, run, run_bytes, runtime_library

from edgepack.bundle.languages.c import c_identifiers
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.runtime import quantize
from edgepack.runtime.runner import TensorInfo

pytestmark = pytest.mark.slow

MEAN, STD = (123.7, 116.3, 103.5), (127.5, 126.0, 125.0)
TYPES = {"FLOAT32": 1, "UINT8": 3, "INT16": 7, "INT8": 9}


@pytest.fixture(autouse=True)
def _compilers() -> None:
    cpp_tools.needs_compilers()


def with_image(spec: BundleSpec, **changes: object) -> BundleSpec:
    """Return the spec with the first input alone, whose pixels are known."""
    known = {"mean": list(MEAN), "std": list(STD)}
    return replace(spec, inputs=(replace(spec.inputs[0], preprocessing=known, **changes),))


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> cpp_tools.Loader:
    """A loader whose frames are converted; the model itself is not run."""
    return loader_of(write_tree(render(with_image(tiny_spec("cpu"))), tmp_path_factory.mktemp("frames")))


@pytest.fixture(scope="module")
def driver(loader: cpp_tools.Loader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that converts frames, with the sanitizers."""
    cpp_tools.needs_compilers()
    source = Path(__file__).with_name("frame_driver.c")
    return link(tmp_path_factory.mktemp("driver") / "driver", [source], [loader])


@dataclass(frozen=True)
class Input:
    """An image input: size, channels, and how its values are stored."""

    width: int
    height: int
    channels: int
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    def values(self, pixels: np.ndarray) -> np.ndarray:
        """Return raw values of pixels, normalized and quantized as the build does."""
        mean, std = (np.asarray(values, np.float32)[: self.channels] for values in (MEAN, STD))
        real = (pixels.astype(np.float32) - mean) / std
        if self.scale == 0.0:
            return real
        dtype = np.dtype(self.dtype.lower())
        shape = real.shape
        info = TensorInfo("image", "image", 0, shape, shape, self.dtype, dtype, self.scale, self.zero_point)
        return quantize(info, real)


def described(frame: Frame, given: Input) -> bytes:
    """Return a frame as the driver reads it."""
    normal = " ".join(f"{mean} {std}" for mean, std in zip(MEAN, STD, strict=True))
    planes = " ".join(f"{stride} {len(data)}" for stride, data in zip(frame.strides, frame.planes, strict=True))
    crop = " ".join(map(str, frame.crop))
    text = (
        f"1 {given.width} {given.height} {given.channels} {normal} {TYPES[given.dtype]} {given.scale!r} "
        f"{given.zero_point} {PIXELS.index(frame.pixels)} {frame.width} {frame.height} {crop} {frame.rotation} "
        f"{int(frame.mirror)} {FITS.index(frame.fit) + 1} {len(frame.planes)} {planes}\n"
    )
    return text.encode() + b"".join(data.tobytes() for data in frame.planes)


def converted(driver: Path, cases: list[tuple[Frame, Input]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the raw values of each frame, and where three corners of the input are: (3, 2), top left first."""
    stream = b"".join(described(frame, given) for frame, given in cases)
    done = subprocess.run([driver], input=stream, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    offset = 0
    for _, given in cases:
        dtype = np.dtype(given.dtype.lower())
        shape = (given.height, given.width, given.channels)
        values = np.frombuffer(done.stdout, dtype, int(np.prod(shape)), offset).reshape(shape)
        offset += values.nbytes
        yield values, np.frombuffer(done.stdout, np.float64, 6, offset).reshape(3, 2)
        offset += 48
    assert offset == len(done.stdout)


INPUTS = [
    Input(7, 5, 3, "INT8", 0.0157, -3),
    Input(16, 16, 1, "UINT8", 0.0078, 128),
    Input(9, 24, 3, "FLOAT32"),
    Input(31, 12, 3, "INT16", 0.0001, 0),
    Input(5, 40, 1, "FLOAT32"),
]


@pytest.mark.parametrize("pixels", PIXELS)
def test_frames_are_converted_as_pillow_does(driver: Path, pixels: str) -> None:
    """Formats, odd sizes, strides, crops, rotations, mirrors and fits into every type, exactly."""
    generator = np.random.default_rng(PIXELS.index(pixels))
    kinds = itertools.product((0, 90, 180, 270), (False, True), FITS, (6, 90))
    cases = [
        (random_frame(generator, pixels, *kind), given)
        for kind, given in zip(kinds, itertools.cycle(INPUTS), strict=False)
    ]
    assert len({(frame.rotation, frame.mirror, frame.fit) for frame, _ in cases}) == 24
    for (frame, given), (values, corners) in zip(cases, converted(driver, cases), strict=True):
        expected = given.values(fitted(frame, given.width, given.height, given.channels))
        assert np.array_equal(values, expected), (frame, given)
        points = generator.random((8, 2))
        mapped = corners[0] + points @ (corners[1:] - corners[0])
        assert np.allclose(mapped, originals(frame, given.width, given.height, points), rtol=0, atol=1e-6)


def test_large_frames_do_not_alias(driver: Path) -> None:
    """A frame of camera size, whose pixels alternate between black and white, becomes even grey, as Pillow makes it."""
    stripes = np.zeros((480, 640), np.uint8)
    stripes[:, ::2] = 255
    given = Input(96, 96, 1, "FLOAT32")
    whole = Frame("grey", 640, 480, (stripes.ravel(),), (640,), (0, 0, 640, 480), 0, False, "stretch")
    cases = [(replace(whole, rotation=rotation), given) for rotation in (0, 90)]
    for (frame, _), (values, _) in zip(cases, converted(driver, cases), strict=True):
        pixels = values * np.float32(STD[0]) + np.float32(MEAN[0])
        assert np.abs(pixels - 127.5).max() < 10
        assert np.array_equal(values, given.values(fitted(frame, 96, 96, 1)))


# -- wrong frames ------------------------------------------------------------------------------------------------------

REFUSED = {
    "frame.pixels = (edgepack_pixels)8": "frame: expected a known pixel format, got 8",
    "frame.pixels = (edgepack_pixels)-1": "frame: expected a known pixel format, got -1",
    "frame.width = 0": "frame: expected 1 to 65535 pixels per side, got 0 x 4",
    "frame.height = 65536": "frame: expected 1 to 65535 pixels per side, got 6 x 65536",
    "frame.height = SIZE_MAX": f"frame: expected 1 to 65535 pixels per side, got 6 x {2**64 - 1}",
    "frame.planes[0] = NULL": "frame: expected pixels in plane 0, got null",
    "frame.strides[0] = 17": "frame: expected a stride of 18 bytes or more, got 17",
    "frame.strides[0] = SIZE_MAX / 4": "frame: expected a stride of 18 bytes or more that the memory can have, got "
    f"{(2**64 - 1) // 4}",
    "frame.sizes[0] = 71": "frame: expected 72 bytes in plane 0, got 71",
    "frame.pixels = EDGEPACK_NV12": "frame: expected pixels in plane 1, got null",
    "frame.pixels = EDGEPACK_I420; frame.planes[1] = pixels; frame.strides[1] = 2": "frame: expected a stride of 3 "
    "bytes or more, got 2",
    "frame.crop.width = 2": "frame: expected a crop rectangle in 6 x 4 pixels, got 2 x 0 at (0, 0)",
    "frame.crop = (edgepack_rectangle){3, 0, 4, 4}": "frame: expected a crop rectangle in 6 x 4 pixels, got 4 x 4 at "
    "(3, 0)",
    "frame.crop = (edgepack_rectangle){SIZE_MAX, 0, 2, 2}": "frame: expected a crop rectangle in 6 x 4 pixels, got "
    f"2 x 2 at ({2**64 - 1}, 0)",
    "frame.crop = (edgepack_rectangle){0, 0, 6, SIZE_MAX}": "frame: expected a crop rectangle in 6 x 4 pixels, got "
    f"6 x {2**64 - 1} at (0, 0)",
    "frame.rotation = 45": "frame: expected a rotation of 0, 90, 180 or 270 degrees, got 45",
    "frame.fit = (edgepack_fit)4": "frame: expected a known fit, got 4",
}


def test_wrong_frames_are_refused(loader: cpp_tools.Loader, tmp_path: Path) -> None:
    """Each wrong argument is a bad argument with the expected values; the same frame without it is converted."""
    tries = "\n".join(f"  {{ edgepack_frame frame = right; {change}; attempt(self, &frame); }}" for change in REFUSED)
    source = tmp_path / "main.c"
    source.write_text(
        """
#include <stdio.h>
#include "converter.h"
static const uint8_t pixels[72];
static const void *values;
static void attempt(converter *self, const edgepack_frame *frame) {
  edgepack_error error = {EDGEPACK_OK, ""};
  const edgepack_code code = converter_run(self, frame, &values, NULL, &error);
  printf("%s\\n", code == EDGEPACK_BAD_ARGUMENT && error.code == code ? error.message : "accepted");
}
int main(void) {
  const engine_tensor tensor = {"image", "image", ENGINE_FLOAT32, 12, 0.0F, 0, NULL, 0};
  const converter_input input = {&tensor, 2, 2, 3, {0}, {1, 1, 1}, EDGEPACK_STRETCH};
  converter *self = converter_open(&input);
  const edgepack_frame right = {.width = 6, .height = 4, .planes = {pixels}};
  edgepack_frame exact = right;
  exact.strides[0] = 18;
  exact.sizes[0] = 72;
  attempt(self, &right);
  attempt(self, &exact);
  attempt(self, NULL);
TRIES
  attempt(self, &right);
  converter_close(self);
  return 0;
}
""".replace("TRIES", tries)
    )
    done = run(link(tmp_path / "program", [source], [loader]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["accepted", "accepted", "the frame is null", *REFUSED.values(), "accepted"]


# -- models ------------------------------------------------------------------------------------------------------------

PROGRAM = """
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "NAME/NAME.hpp"

static long allocations = 0;
#ifdef COUNT
extern "C" {
void *__libc_malloc(std::size_t);
void *__libc_calloc(std::size_t, std::size_t);
void *__libc_realloc(void *, std::size_t);
void *malloc(std::size_t size) { ++allocations; return __libc_malloc(size); }
void *calloc(std::size_t count, std::size_t size) { ++allocations; return __libc_calloc(count, size); }
void *realloc(void *old, std::size_t size) { ++allocations; return __libc_realloc(old, size); }
}
#endif

int main(int, char **arguments) {
  edgepack::Options options;
  options.data_dir = arguments[1];
  options.runtime_library = arguments[2];
  edgepack::NAME::Model model(options);
  std::vector<std::uint8_t> pixels(300 * 197 * 3);
  if (std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) { return 3; }
  edgepack::Frame frame(EDGEPACK_BGR, 300, 197, pixels);
  edgepack::NAME::Result result;
  edgepack::FrameMapping mapping;
  model.run_into(result, frame, &mapping);
  model.run_into(result, frame, &mapping);
  const long before = allocations;
  for (int i = 0; i < 5; ++i) {
    for (int rotation = 0; rotation < 360; rotation += 180) {
      frame.rotation = rotation;
      model.run_into(result, frame, &mapping);
    }
  }
  const long frames = allocations - before;
  const std::vector<std::uint8_t> raw(224 * 224 * 3);
  std::vector<std::uint8_t> raw_result(MACRO_SIZE);
  const void *inputs[] = {raw.data()};
  void *outputs[] = {raw_result.data()};
  const long between = allocations;
  for (int i = 0; i < 10; ++i) { NAME_run_raw(model.get(), inputs, outputs, nullptr); }
  std::fprintf(stderr, "allocations: %ld %ld of %ld\\n", frames, allocations - between, allocations);
  const edgepack_point corner = mapping.to_original(1.0, 1.0);
  std::fprintf(stderr, "corner: %g %g\\n", corner.x, corner.y);
  frame.rotation = 0;
  for (edgepack_fit fit : {EDGEPACK_FIT_MODEL, EDGEPACK_LETTERBOX}) {
    std::vector<float> values(224 * 224 * 3);
    if (std::fread(values.data(), sizeof(float), values.size(), stdin) != values.size()) { return 3; }
    frame.fit = fit;
    std::fprintf(stderr, "same: %d\\n", model.run(frame).OUTPUT == model.run(values).OUTPUT);
  }
  try {
    model.run(edgepack::Frame(EDGEPACK_BGR, 300, 198, pixels));
    return 4;
  } catch (const edgepack::Error &error) {
    std::fprintf(stderr, "%s\\n", error.what());
  }
  return 0;
}
"""
#: A real network on images of 224 by 224 pixels.
MOBILENET = "coral/mobilenet_v2_1.0_224_quant.tflite"


@pytest.mark.parametrize("kind", ["litert", "tflite"])
def test_a_model_runs_on_frames_without_allocating(
    make_spec: Callable[..., BundleSpec], tmp_path: Path, kind: str
) -> None:
    """Model.run(Frame) gives the results of run on converted pixels; later frames allocate nothing."""
    spec = with_image(make_spec(MOBILENET, "cpu"))
    bundle = loader_of(write_tree(render(spec), tmp_path / "bundle"))
    (output,) = c_identifiers([tensor.name for tensor in spec.outputs], "output")
    source = tmp_path / "main.cpp"
    source.write_text(
        PROGRAM.replace("NAME", bundle.name)
        .replace("OUTPUT", output)
        .replace("MACRO", f"{bundle.name}_OUTPUT_{output}".upper())
    )
    pixels = np.random.default_rng(1).integers(0, 256, (197, 300, 3), np.uint8)
    frame = Frame("bgr", 300, 197, (pixels.ravel(),), (900,), (0, 0, 300, 197), 0, False, "stretch")
    given = Input(224, 224, 3, "FLOAT32")
    reals = [given.values(fitted(replace(frame, fit=fit), 224, 224, 3)) for fit in ("stretch", "letterbox")]
    stream = pixels.tobytes() + b"".join(real.tobytes() for real in reals)
    command = [bundle.data, runtime_library(kind)]
    checked = link(tmp_path / "checked", [source], [bundle])
    done = run_bytes(checked, *command, given=stream)
    assert done.returncode == 0, done.stderr
    said = done.stderr.decode().splitlines()
    assert "corner: 0 0" in said and said.count("same: 1") == 2
    assert "frame: expected 178200 bytes in plane 0, got 177300" in said
    counting = link(tmp_path / "counting", [source], [bundle], ("-O1", "-DCOUNT", "-Wno-deprecated-declarations"))
    done = run_bytes(counting, *command, given=stream)
    (line,) = [line for line in done.stderr.decode().splitlines() if line.startswith("allocations")]
    frames, raw, total = (int(line.split()[index]) for index in (1, 2, 4))
    # LiteRT allocates in each run.
    assert total > 1000 and frames == raw == (0 if kind == "tflite" else raw), line
