import builders
import numpy as np
import pytest

from edgepack.errors import QuantizationError, UsageError
from edgepack.graph import read_model
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.histogram import Statistics
from edgepack.quantize.ranges import METHODS, choose_ranges, minmax, mse, percentile


def _statistics(values: np.ndarray) -> Statistics:
    """Statistics of all values: samples this small are not thinned out."""
    found = Statistics()
    for sample in values.astype(np.float32).reshape(-1, 1, 50, 4):
        found.observe(sample)
    return found


def _error(values: np.ndarray, bounds: tuple[float, float]) -> float:
    low, high = min(0.0, bounds[0]), max(0.0, bounds[1])
    scale = (high - low) / 255
    rounded = np.clip(np.round((values - low) / scale), 0, 255) * scale + low
    return float(((rounded - values) ** 2).mean())


def test_mse_loses_less_than_minmax_where_tails_stretch_the_range():
    """With long tails, the range of least squared error has at most three quarters of minmax's error."""
    values = np.random.default_rng(0).laplace(0, 1, 400_000)
    found = _statistics(values)
    assert _error(values, mse(found)) < 0.75 * _error(values, minmax(found))


def test_mse_keeps_outliers_that_matter():
    """A few values far out whose loss would outweigh the finer steps are not clipped."""
    values = np.random.default_rng(0).normal(0, 1, 400_000)
    values[::100_000] = 60.0
    assert mse(_statistics(values))[1] > 45


def test_mse_is_near_the_best_there_is():
    """No range on a fine grid has an error more than 5 % below the one chosen."""
    values = np.abs(np.random.default_rng(1).laplace(0, 1, 200_000))
    chosen = _error(values, mse(_statistics(values)))
    best = min(_error(values, (0.0, values.max() * f)) for f in np.linspace(0.05, 1, 60))
    assert chosen <= 1.05 * best


def test_percentile_holds_9999_in_10000():
    """Between the bounds lie 99.99 % of the values, give or take a bin."""
    values = np.random.default_rng(2).normal(0, 1, 1_000_000)
    low, high = percentile(_statistics(values))
    # 100 of a million lie outside, half on each side; a bin is wide enough to hold some of them.
    assert 20 <= (values > high).sum() <= 60
    assert 20 <= (values < low).sum() <= 60


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bounds", [(2.0, 3.0), (-3.0, -2.0), (0.0, 0.0)])
def test_zero_is_always_inside(method, bounds):
    """Zero is representable in every range: padding and RELU need it."""
    tflite = builders.one_op("RELU")
    values = np.linspace(*bounds, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    found = choose_ranges(calibrate(tflite, [{"x": values}]), read_model(tflite), method)
    assert found["x"][0] <= 0.0 <= found["x"][1]


@pytest.mark.parametrize("method", METHODS)
def test_groups_share_the_widest_range(method):
    """What a concatenation joins, and a pool's input and output, have one range; a softmax has its kernel's."""
    joined = builders.two_in_two_out()
    found = choose_ranges(calibrate(joined, builders.samples(joined, 8)), read_model(joined), method)
    graph = read_model(joined).main
    from edgepack.graph.edit import tensor_keys

    keys = tensor_keys(graph)
    concatenation = graph.ops[-1]
    assert len({found[keys[i]] for i in (*concatenation.inputs, *concatenation.outputs)}) == 1
    classes = builders.classifier()
    found = choose_ranges(calibrate(classes, builders.samples(classes, 8)), read_model(classes), method)
    assert found["dw"] == found["pool"] != found["conv"]
    assert found["probabilities"] == (0.0, 255 / 256)


def test_16_bits_clip_nothing():
    """int16 ranges are the exact extremes, and the softmax's is the int16 kernel's."""
    tflite = builders.classifier()
    calibration = calibrate(tflite, builders.samples(tflite, 8))
    found = choose_ranges(calibration, read_model(tflite), activation_bits=16)
    assert found["conv"] == (0.0, calibration.tensors["conv"].maximum)
    assert found["probabilities"][1] == 32767 / 32768


def test_another_models_calibration_is_refused():
    """Ranges for tensors the model does not have are an error, as is a method that does not exist."""
    calibration = calibrate(builders.one_op("RELU"), builders.samples(builders.one_op("RELU"), 1))
    with pytest.raises(QuantizationError, match="of another model"):
        choose_ranges(calibration, read_model(builders.classifier()))
    with pytest.raises(UsageError, match="unknown range method 'guess'"):
        choose_ranges(calibration, read_model(builders.one_op("RELU")), "guess")
