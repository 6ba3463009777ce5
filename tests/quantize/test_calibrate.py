import builders
import numpy as np
import pytest

from edgepack.errors import QuantizationError, SamplesError
from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.calibrate import Calibration, calibrate


def test_every_activation_is_measured_as_the_ops_compute_it():
    """Ranges of inputs, inner tensors and outputs are those of a plain computation."""
    tflite = builders.two_in_two_out()
    samples = builders.samples(tflite, 5)
    found = calibrate(tflite, samples)
    left = np.stack([s["left"] for s in samples])
    assert found.samples == 5
    assert (found.tensors["in#0"].minimum, found.tensors["in#0"].maximum) == (left.min(), left.max())
    joined, total = (np.stack(o) for o in zip(*[builders.run(tflite, s) for s in samples], strict=True))
    assert (found.tensors["joined"].minimum, found.tensors["joined"].maximum) == (joined.min(), joined.max())
    key = tensor_keys(read_model(tflite).main)[read_model(tflite).main.outputs[1]]
    assert (found.tensors[key].minimum, found.tensors[key].maximum) == (total.min(), total.max())
    assert len(found.tensors) == 6


def test_one_block_or_many_is_the_same():
    """More samples than are gathered at a time give the statistics of merging them one by one."""
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
    """A stored calibration reads back equal, and equal calibrations are equal bytes."""
    tflite = builders.classifier()
    first = calibrate(tflite, builders.samples(tflite, 4))
    data = first.to_bytes()
    back = Calibration.from_bytes(data)
    assert back.to_bytes() == data == calibrate(tflite, builders.samples(tflite, 4)).to_bytes()
    back.merge(first)
    assert back.samples == 8


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 nothing", b"\x00" * 100])
def test_broken_bytes_are_one_error(data):
    """Bytes that are no calibration are refused with one message."""
    with pytest.raises(QuantizationError, match="not a calibration"):
        Calibration.from_bytes(data)


@pytest.mark.parametrize("place", [0, 40])
def test_nan_names_tensor_and_sample(place):
    """A NaN in a sample is an error that says where it was first seen."""
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
    """A sample of another name, shape or type is named with what was expected."""
    with pytest.raises(SamplesError, match=message):
        calibrate(builders.classifier(), [sample])


def test_no_samples():
    """Without samples there is nothing to measure."""
    with pytest.raises(SamplesError, match="got none"):
        calibrate(builders.classifier(), [])


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_samples_may_lack_the_batch_and_be_of_another_type(dtype):
    """A sample without its batch dimension, in float64 or integers, is taken as the model's float input."""
    image = np.arange(192).reshape(8, 8, 3).astype(dtype)
    found = calibrate(builders.classifier(), [{"image": image}])
    assert (found.tensors["x"].minimum, found.tensors["x"].maximum) == (0.0, 191.0)
