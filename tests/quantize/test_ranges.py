from functools import partial
from itertools import pairwise

import builders
import numpy as np
import pytest

from edgepack.errors import QuantizationError, UsageError
from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.histogram import Statistics
from edgepack.quantize.ranges import METHODS, choose_ranges, minmax, mse, percentile


def _statistics(values: np.ndarray) -> Statistics:
    """Statistics of all values: the histogram of a small sample takes every value."""
    statistics = Statistics()
    for sample in values.astype(np.float32).reshape(-1, 1, 50, 4):
        statistics.observe(sample)
    return statistics


def _error(values: np.ndarray, bounds: tuple[float, float]) -> float:
    low, high = min(0.0, bounds[0]), max(0.0, bounds[1])
    scale = (high - low) / 255
    rounded = np.clip(np.round((values - low) / scale), 0, 255) * scale + low
    return float(((rounded - values) ** 2).mean())


def test_mse_loses_less_than_minmax_where_tails_stretch_the_range():
    """For a distribution with long tails, mse ranges have at most three quarters of the error of minmax ranges."""
    values = np.random.default_rng(0).laplace(0, 1, 400_000)
    statistics = _statistics(values)
    assert _error(values, mse(statistics)) < 0.75 * _error(values, minmax(statistics))


def test_mse_keeps_outliers_that_matter():
    """Outliers are not clipped where the clipping error would exceed what a smaller scale saves."""
    values = np.random.default_rng(0).normal(0, 1, 400_000)
    values[::100_000] = 60.0
    assert mse(_statistics(values))[1] > 45


def test_mse_is_near_the_best_there_is():
    """No range on a fine grid has an error more than 5 % below that of the mse range."""
    values = np.abs(np.random.default_rng(1).laplace(0, 1, 200_000))
    error = _error(values, mse(_statistics(values)))
    best = min(_error(values, (0.0, values.max() * f)) for f in np.linspace(0.05, 1, 60))
    assert error <= 1.05 * best


def test_percentile_holds_9999_in_10000():
    """99.99 % of the values are between the bounds, up to the width of a bin."""
    values = np.random.default_rng(2).normal(0, 1, 1_000_000)
    low, high = percentile(_statistics(values))
    # 100 of a million are outside, half on each side; a bin is wide enough to contain some of them.
    assert 20 <= (values > high).sum() <= 60
    assert 20 <= (values < low).sum() <= 60


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bounds", [(2.0, 3.0), (-3.0, -2.0), (0.0, 0.0)])
def test_zero_is_always_inside(method, bounds):
    """Every range contains zero: padding and RELU need it."""
    tflite = builders.one_op("RELU")
    values = np.linspace(*bounds, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    ranges = choose_ranges(calibrate(tflite, [{"x": values}]), read_model(tflite), method)
    assert ranges["x"][0] <= 0.0 <= ranges["x"][1]


@pytest.mark.parametrize("method", METHODS)
def test_groups_share_the_widest_range(method):
    """Inputs and output of CONCATENATION, and of a pool, share a range; SOFTMAX has the range of its kernel."""
    joined = builders.two_in_two_out()
    ranges = choose_ranges(calibrate(joined, builders.samples(joined, 8)), read_model(joined), method)
    graph = read_model(joined).main
    keys = tensor_keys(graph)
    concatenation = graph.ops[-1]
    assert len({ranges[keys[i]] for i in (*concatenation.inputs, *concatenation.outputs)}) == 1
    classes = builders.classifier()
    ranges = choose_ranges(calibrate(classes, builders.samples(classes, 8)), read_model(classes), method)
    assert ranges["dw"] == ranges["pool"] != ranges["conv"]
    assert ranges["probabilities"] == (0.0, 255 / 256)


def test_16_bits_clip_nothing():
    """int16 ranges are the exact extremes; SOFTMAX has the range of its int16 kernel."""
    tflite = builders.classifier()
    calibration = calibrate(tflite, builders.samples(tflite, 8))
    ranges = choose_ranges(calibration, read_model(tflite), activation_bits=16)
    assert ranges["conv"] == (0.0, calibration.tensors["conv"].maximum)
    assert ranges["probabilities"][1] == 32767 / 32768


def test_another_models_calibration_is_refused():
    """A calibration with tensors that the model does not have is an error, and so is an unknown method."""
    calibration = calibrate(builders.one_op("RELU"), builders.samples(builders.one_op("RELU"), 1))
    with pytest.raises(QuantizationError, match="belongs to another model"):
        choose_ranges(calibration, read_model(builders.classifier()))
    with pytest.raises(UsageError, match="--ranges: expected minmax, percentile, mse or entropy, got 'guess'"):
        choose_ranges(calibration, read_model(builders.one_op("RELU")), "guess")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bounds", [(-60.0, -25.0), (25.0, 60.0), (-1e-3, -9e-4)])
def test_narrow_values_far_from_zero_keep_a_range(method, bounds):
    """Values on one side of zero and far from it, as powers in dB, have a range with every method, never an error."""
    low, high = METHODS[method](_statistics(np.random.default_rng(4).uniform(*bounds, 400_000)))
    assert min(low, 0.0) <= max(bounds[0], min(0.0, bounds[1]) * 0.9)
    assert max(high, 0.0) >= max(0.0, bounds[0])


@pytest.mark.parametrize("method", METHODS)
def test_inputs_of_the_model_are_never_clipped(method):
    """Whatever the method, the range of an input holds every value of the samples."""
    tflite = builders.classifier()
    samples = builders.samples(tflite, 20)
    for sample in samples:
        for values in sample.values():
            values.reshape(-1)[0] = 40.0
    ranges = choose_ranges(calibrate(tflite, samples), read_model(tflite), method)
    model = read_model(tflite)
    keys = tensor_keys(model.main)
    assert all(ranges[keys[index]][1] >= 40.0 for index in model.main.inputs)


def test_more_weight_on_clipping_clips_less():
    """Ranges widen with the weight of clipping error, from those of least squared error to nearly all values."""
    values = np.random.default_rng(0).laplace(0, 1, 400_000)
    statistics = _statistics(values)
    bounds = [mse(statistics, clipping) for clipping in (1.0, 4.0, 64.0, 1e9)]
    assert bounds[0] == mse(statistics)
    assert all(wide[0] <= narrow[0] and narrow[1] <= wide[1] for narrow, wide in pairwise(bounds))
    assert bounds[0][1] < bounds[1][1] < bounds[2][1]
    clipped = [float((np.maximum(values - high, 0) ** 2).sum()) for _, high in bounds]
    assert clipped[1] < 0.6 * clipped[0]
    assert bounds[3] == pytest.approx(minmax(statistics), rel=0.02)


def test_a_weight_on_clipping_is_that_of_the_error():
    """The range with weight 4 has the least sum of rounding error and four times the clipping error, within 5 %."""
    values = np.abs(np.random.default_rng(1).laplace(0, 1, 200_000))

    def error(high: float) -> float:
        beyond = np.maximum(values - high, 0)
        return float((4 * beyond**2).mean() + (high / 255) ** 2 / 12)

    low, high = mse(_statistics(values), clipping=4.0)
    assert low == 0.0
    assert error(high) <= 1.05 * min(error(values.max() * share) for share in np.linspace(0.05, 1, 200))


def test_a_function_can_choose_the_ranges():
    """Another function of the statistics decides like a method: inputs, groups and kernels have their ranges still."""
    tflite = builders.classifier()
    model = read_model(tflite)
    calibration = calibrate(tflite, builders.samples(tflite, 8))
    assert choose_ranges(calibration, model, mse) == choose_ranges(calibration, model, "mse")
    careful = choose_ranges(calibration, model, partial(mse, clipping=1e9))
    assert careful["conv"][1] == pytest.approx(calibration.tensors["conv"].maximum, rel=0.02)
    fixed = choose_ranges(calibration, model, lambda statistics: (1.0, 7.0))
    x = calibration.tensors["x"]
    assert fixed["x"] == (x.minimum, x.maximum)
    assert fixed["conv"] == fixed["dw"] == fixed["pool"] == (0.0, 7.0)
    assert fixed["probabilities"] == (0.0, 255 / 256)
    exact = choose_ranges(calibration, model, lambda statistics: (1.0, 7.0), activation_bits=16)
    assert exact["conv"] == (0.0, calibration.tensors["conv"].maximum)
