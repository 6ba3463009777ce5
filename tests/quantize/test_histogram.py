import math

import numpy as np
import pytest

from edgepack.quantize.histogram import BINS, Statistics


def _observed(*arrays: np.ndarray) -> Statistics:
    statistics = Statistics()
    for array in arrays:
        statistics.observe(array.astype(np.float32))
    return statistics


@pytest.mark.parametrize("shape", [(1, 7, 5, 3), (1, 40, 40, 24), (6,), (1, 1000), (1, 9, 2049)])
def test_extremes_are_exact(shape):
    """Minimum and maximum are exact, over all values and per channel, for tensors of any size."""
    values = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    statistics = _observed(values)
    assert (statistics.minimum, statistics.maximum, statistics.count) == (values.min(), values.max(), values.size)
    axes = tuple(range(values.ndim - 1))
    np.testing.assert_array_equal(statistics.channel_minimum, values.min(axis=axes))
    np.testing.assert_array_equal(statistics.channel_maximum, values.max(axis=axes))


def test_order_does_not_matter():
    """Samples in another order, or split and merged, give the same histogram to the last count."""
    random = np.random.default_rng(1)
    parts = [random.normal(0, scale, (1, 8, 8, 4)) for scale in (0.001, 5.0, 0.3, 700.0)]
    forward, backward = _observed(*parts), _observed(*parts[::-1])
    left, right = _observed(*parts[:2]), _observed(*parts[2:])
    left.merge(right)
    for other in (backward, left):
        assert (other.exponent, other.start, other.minimum, other.maximum) == (
            forward.exponent, forward.start, forward.minimum, forward.maximum,
        )  # fmt: skip
        np.testing.assert_array_equal(other.bins, forward.bins)
        np.testing.assert_array_equal(other.channel_maximum, forward.channel_maximum)


def test_bins_stay_bounded_and_fine():
    """The histogram never exceeds its number of bins, and uses at least half of them for a range that is not zero."""
    for scale in (1e-6, 1.0, 1e6):
        statistics = _observed(*[np.random.default_rng(i).normal(0, scale * 3**i, (1, 64, 4)) for i in range(8)])
        assert BINS // 2 <= statistics.bins.size <= BINS


def test_histogram_places_values_right():
    """The share of values below a bound agrees with the data."""
    values = np.random.default_rng(2).uniform(-1, 3, (1, 100, 40))
    statistics = _observed(*values.reshape(100, 1, 10, 4))
    below = statistics.bins[statistics.centres < 0].sum() / statistics.bins.sum()
    assert below == pytest.approx((values < 0).mean(), abs=0.002)


def test_stride_visits_every_channel():
    """The subsample of a large tensor includes every channel: a single different channel shows in the histogram."""
    values = np.zeros((1, 64, 64, 64), np.float32)
    values[..., 17] = 5.0
    statistics = _observed(values)
    assert statistics.bins[-1] / statistics.bins.sum() == pytest.approx(1 / 64, rel=0.1)


@pytest.mark.parametrize("constant", [0.0, 1e-30, -4.5, 3e38])
def test_constant_tensors(constant):
    """A tensor with one value has one bin."""
    statistics = _observed(np.full((1, 4), constant, np.float32))
    assert statistics.bins.size == 1 and statistics.bins[0] == 4
    assert statistics.centres[0] == np.float32(constant)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_show(bad):
    """NaN and infinities are reported and not binned."""
    statistics = _observed(np.array([[1.0, bad, 2.0]]))
    assert not statistics.is_finite
