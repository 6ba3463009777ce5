import builders
import numpy as np
import pytest

from edgepack.errors import QuantizationError, SamplesError
from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.calibrate import Calibration, calibrate


def test_every_activation_is_measured_as_the_ops_compute_it():
    """Ranges of inputs, inner tensors and outputs agree with an independent computation."""
    tflite = builders.two_in_two_out()
    samples = builders.samples(tflite, 5)
    calibration = calibrate(tflite, samples)
    left = np.stack([s["left"] for s in samples])
    assert calibration.samples == 5
    assert (calibration.tensors["in#0"].minimum, calibration.tensors["in#0"].maximum) == (left.min(), left.max())
    joined, total = (np.stack(o) for o in zip(*[builders.run(tflite, s) for s in samples], strict=True))
    assert (calibration.tensors["joined"].minimum, calibration.tensors["joined"].maximum) == (
        joined.min(),
        joined.max(),
    )
    key = tensor_keys(read_model(tflite).main)[read_model(tflite).main.outputs[1]]
    assert (calibration.tensors[key].minimum, calibration.tensors[key].maximum) == (total.min(), total.max())
    assert len(calibration.tensors) == 6


def test_one_block_or_many_is_the_same():
    """More samples than one block give the same statistics as calibrations of single samples that are merged."""
    tflite = builders.classifier()
    samples = builders.samples(tflite, 70)
    together = calibrate(tflite, samples)
    apart = calibrate(tflite, samples[:1])
    for sample in samples[1:]:
        apart.merge(calibrate(tflite, [sample]))
    assert apart.samples == together.samples == 70
    for key, statistics in together.tensors.items():
        assert apart.tensors[key].count == statistics.count
        assert (apart.tensors[key].minimum, apart.tensors[key].maximum) == (statistics.minimum, statistics.maximum)
        np.testing.assert_array_equal(apart.tensors[key].channel_maximum, statistics.channel_maximum)


def test_bytes_come_back_and_repeat():
    """A stored calibration reads back unchanged, and equal calibrations give equal bytes."""
    tflite = builders.classifier()
    first = calibrate(tflite, builders.samples(tflite, 4))
    data = first.to_bytes()
    back = Calibration.from_bytes(data)
    assert back.to_bytes() == data == calibrate(tflite, builders.samples(tflite, 4)).to_bytes()
    back.merge(first)
    assert back.samples == 8


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 nothing", b"\x00" * 100])
def test_broken_bytes_are_one_error(data):
    """Bytes that are no calibration are refused with a single message."""
    with pytest.raises(QuantizationError, match="not a calibration"):
        Calibration.from_bytes(data)


@pytest.mark.parametrize("place", [0, 40])
def test_nan_names_tensor_and_sample(place):
    """A NaN in a sample is an error that names the first tensor and sample with it."""
    tflite = builders.classifier()
    samples = builders.samples(tflite, 50)
    samples[place]["image"][0, 0, 0, 0] = np.nan
    with pytest.raises(QuantizationError, match=rf"tensor 'x' is NaN or infinite on calibration sample {place + 1}:"):
        calibrate(tflite, samples)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"other": np.zeros((1, 8, 8, 3), np.float32)}, r"has the arrays \['other'\], expected .* \['image'\]"),
        ({"image": np.zeros((1, 4, 8, 3), np.float32)}, r"expected the shape \[1, 8, 8, 3\], got \[1, 4, 8, 3\]"),
        ({"image": np.zeros((1, 8, 8, 3), np.complex64)}, "expected float32 values, got complex64"),
    ],
)
def test_samples_that_do_not_fit(sample, message):
    """The error about a sample of another name, shape or type says what was expected."""
    with pytest.raises(SamplesError, match=message):
        calibrate(builders.classifier(), [sample])


def test_no_samples():
    """Calibration without samples is an error."""
    with pytest.raises(SamplesError, match="got none"):
        calibrate(builders.classifier(), [])


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_samples_may_lack_the_batch_and_be_of_another_type(dtype):
    """A sample without batch dimension, in float64 or integers, is converted to the model's float input."""
    image = np.arange(192).reshape(8, 8, 3).astype(dtype)
    calibration = calibrate(builders.classifier(), [{"image": image}])
    assert (calibration.tensors["x"].minimum, calibration.tensors["x"].maximum) == (0.0, 191.0)
