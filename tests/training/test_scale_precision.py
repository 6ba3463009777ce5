"""Scales with fewer bits: outputs change by a fraction of a scale step, and the file compresses better."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges
from edgepack.runtime import Runner
from edgepack.training.report import gzip_size
from edgepack.training.scale_precision import SIGNIFICANT_BITS, shorten_scales

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    with np.load(ROOT / "examples" / "digits" / "samples.npz") as data:
        return data[data.files[0]].astype(np.float32)


@pytest.fixture(scope="module")
def quantized(images: np.ndarray) -> Callable[[str], bytes]:
    def make(weights: str) -> bytes:
        tflite = (ROOT / "tests" / "data" / "digits_float.tflite").read_bytes()
        model = read_model(tflite)
        samples = [{model.input_names()[0]: image[np.newaxis]} for image in images[:50]]
        rule = SchemeRule("int8", fully_connected=weights, weights=weights)
        return quantize(tflite, rule, choose_ranges(calibrate(tflite, samples), model)).tflite

    return make


def scales_of(tflite: bytes) -> list[np.ndarray]:
    tensors = read_model(tflite).main.tensors
    return [t.quantization.scale for t in tensors if t.quantization is not None and t.quantization.scale.size > 1]


def test_scales_are_short_and_mean_the_same(quantized: Callable[[str], bytes], images: np.ndarray) -> None:
    """Every per-channel scale has eight significant bits; outputs change far less than int8 itself changes them."""
    before = quantized("per-channel")
    after = shorten_scales(before)
    assert scales_of(after)
    for old, new in zip(scales_of(before), scales_of(after), strict=True):
        mantissa, _ = np.frexp(new)
        assert np.array_equal(mantissa * 2**SIGNIFICANT_BITS, np.rint(mantissa * 2**SIGNIFICANT_BITS))
        assert np.abs(new / old - 1).max() <= 2.0**-SIGNIFICANT_BITS
    assert gzip_size(after) < gzip_size(before)
    first, second = Runner(before), Runner(after)
    expected = np.stack([first.run_real([image[np.newaxis]])[0] for image in images[:100]])
    actual = np.stack([second.run_real([image[np.newaxis]])[0] for image in images[:100]])
    assert np.mean(expected.argmax(-1) == actual.argmax(-1)) >= 0.98
    assert np.abs(expected - actual).max() <= 2 / 256


def test_weights_stay_and_biases_follow(quantized: Callable[[str], bytes]) -> None:
    """Integer weights do not change; the real value of a bias changes by at most half a scale step."""
    before, after = quantized("per-channel"), shorten_scales(quantized("per-channel"))
    old, new = read_model(before).main, read_model(after).main
    layers = 0
    for op in old.ops:
        if op.name not in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}:
            continue
        weights, bias = op.inputs[1], op.inputs[2]
        assert np.array_equal(old.tensors[weights].data, new.tensors[weights].data)
        old_scale, new_scale = (graph.tensors[weights].quantization.scale for graph in (old, new))
        real, now = old.tensors[bias].data * old_scale, new.tensors[bias].data * new_scale
        assert np.all(np.abs(real - now) <= 0.5001 * new_scale)
        layers += 1
    assert layers >= 3


def test_a_file_without_channels_stays(quantized: Callable[[str], bytes]) -> None:
    """A file with per-tensor scales only is not changed: they are few bytes, and outputs depend on them."""
    before = quantized("per-tensor")
    after = shorten_scales(before)
    assert [t.quantization for t in read_model(after).main.tensors if t.quantization is None] == [
        t.quantization for t in read_model(before).main.tensors if t.quantization is None
    ]
    old, new = read_model(before).main.tensors, read_model(after).main.tensors
    for one, other in zip(old, new, strict=True):
        assert np.array_equal(one.data, other.data) if one.data is not None else other.data is None
        if one.quantization is not None:
            assert np.array_equal(one.quantization.scale, other.quantization.scale)
