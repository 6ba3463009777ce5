"""Frames in the Python loader: pixels of any size, and results from a worker thread."""

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bundle_specs import spec_of, write_tree
from PIL import Image

from edgepack.bundle.render import render
from edgepack.samples.source import Preprocess, read_image

MEAN, STD = (123.7, 116.3, 103.5), (127.5, 126.0, 125.0)


@pytest.fixture(scope="module")
def package(shared_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package of a real network on images of 224 by 224 pixels."""
    spec = spec_of((shared_models / "coral" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes(), "frames net", "cpu")
    known = Preprocess(MEAN, STD)
    spec = replace(spec, inputs=(replace(spec.inputs[0], preprocessing=known.to_json()),))
    bundle = write_tree(render(spec), tmp_path_factory.mktemp("frames") / "bundle")
    sys.path.insert(0, str(bundle / "linux" / "src"))
    try:
        yield __import__("frames_net")
    finally:
        sys.path.pop(0)
        for name in [name for name in sys.modules if name.split(".")[0] == "frames_net"]:
            del sys.modules[name]


def pixels(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(197, 300), (31, 5), (224, 224)])
def test_frame_is_converted_like_a_file(package: ModuleType, tmp_path: Path, height: int, width: int) -> None:
    """A frame, RGB or BGR, gives the values of the same image as the build reads it, bit for bit."""
    shape, frame = package.INPUTS[0].shape, pixels(height, width)
    Image.fromarray(frame).save(tmp_path / "image.png")
    expected = read_image(tmp_path / "image.png", shape, np.dtype(np.float32), Preprocess(MEAN, STD))
    assert np.array_equal(package.frame_values(frame, 0, shape).reshape(expected.shape), expected)
    bgr = np.ascontiguousarray(frame[..., ::-1])
    assert np.array_equal(package.frame_values(bgr, 0, shape, order="bgr").reshape(expected.shape), expected)


@pytest.mark.parametrize(("height", "width"), [(180, 320), (320, 180), (2, 500)])
def test_letterbox_and_crop_keep_proportions(package: ModuleType, height: int, width: int) -> None:
    """`letterbox` shows the whole frame between black borders, `center-crop` its middle without any."""
    shape, frame = package.INPUTS[0].shape, np.full((height, width, 3), 255, np.uint8)
    frame[:, : width // 2] = 100
    values = package.frame_values(frame, 0, shape, fit="letterbox")[0] * np.float32(STD) + np.float32(MEAN)
    long = max(height, width)
    inner = [max(round(size * 224 / long), 1) for size in (height, width)]
    inside = values.max(axis=-1) > 50
    assert [int(inside.any(axis=axis).sum()) for axis in (1, 0)] == inner
    assert np.allclose(values[~inside], 0, atol=1e-3)
    cropped = package.frame_values(frame, 0, shape, fit="center-crop")[0] * np.float32(STD) + np.float32(MEAN)
    assert cropped.min() > 99
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    middle = Image.fromarray(frame[top : top + side, left : left + side]).resize((224, 224), Image.Resampling.BILINEAR)
    assert np.abs(cropped - np.asarray(middle, np.float32)).mean() < 1


@pytest.mark.parametrize(
    ("frame", "options"),
    [
        (np.zeros((4, 4, 3), np.float32), {}),
        (np.zeros((4, 4, 4), np.uint8), {}),
        (np.zeros((4, 0, 3), np.uint8), {}),
        (np.zeros((4, 4, 3), np.uint8), {"order": "hsv"}),
        (np.zeros((4, 4, 3), np.uint8), {"fit": "zoom"}),
    ],
)
def test_wrong_frames_say_what_is_expected(package: ModuleType, frame: Any, options: dict[str, str]) -> None:
    """Another type, shape, channel order or fit is a ValueError with the expected form."""
    with pytest.raises(ValueError, match="expected"):
        package.frame_values(frame, 0, package.INPUTS[0].shape, **options)


def test_stream_gives_the_results_of_run(package: ModuleType) -> None:
    """Results of a stream are those of single runs, in order."""
    frames = [pixels(40 + n, 50) for n in range(4)]
    with package.FramesNet() as model:
        expected = [model.run_image(frame) for frame in frames]
        shape = package.INPUTS[0].shape
        results = list(model.stream((package.frame_values(frame, 0, shape) for frame in frames), ahead=1))
    field = package.OUTPUTS[0].field
    assert len(results) == len(expected)
    for one, other in zip(results, expected, strict=True):
        assert np.array_equal(getattr(one, field), getattr(other, field))


def test_stream_ends_with_the_error_of_a_frame(package: ModuleType) -> None:
    """Results before a failing frame arrive, then its error; nothing is read after the consumer stopped."""
    stream = package.stream
    taken: list[int] = []

    def square(value: int) -> int:
        taken.append(value)
        if value == 3:
            raise ValueError("frame 3")
        return value * value

    results = stream(square, iter(range(10)), ahead=2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(ValueError, match="frame 3"):
        next(results)
    assert taken == [0, 1, 2, 3]
    endless = stream(lambda value: value, iter(int, 1), ahead=2)
    assert next(endless) == 0
    before = threading.active_count()
    endless.close()
    deadline = time.monotonic() + 20
    while threading.active_count() >= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() < before
    with pytest.raises(ValueError, match="ahead: expected a positive number, got 0"):
        stream(square, [], ahead=0)


def test_stream_drops_old_results_of_a_slow_consumer(package: ModuleType) -> None:
    """With `drop`, what waits is the newest; without it, the worker waits and nothing is lost."""
    done = threading.Event()

    def frames() -> Iterator[int]:
        yield from range(20)
        done.set()

    results = package.stream(lambda value: value, frames(), ahead=2, drop=True)
    first = next(results)
    assert done.wait(20)
    assert [first, *results][-2:] == [18, 19]
    assert list(package.stream(lambda value: value, range(20), ahead=2)) == list(range(20))
