import math

import numpy as np
import pytest

from edgepack.quantize.histogram import BINS, Statistics


def _seen(*arrays: np.ndarray) -> Statistics:
    statistics = Statistics()
    for array in arrays:
        statistics.observe(array.astype(np.float32))
    return statistics


@pytest.mark.parametrize("shape", [(1, 7, 5, 3), (1, 40, 40, 24), (6,), (1, 1000), (1, 9, 2049)])
def test_extremes_are_exact(shape):
    """Minimum and maximum are the values' own, over all and per channel, however large the tensor is."""
    values = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    found = _seen(values)
    assert (found.minimum, found.maximum, found.count) == (values.min(), values.max(), values.size)
    axes = tuple(range(values.ndim - 1))
    np.testing.assert_array_equal(found.channel_minimum, values.min(axis=axes))
    np.testing.assert_array_equal(found.channel_maximum, values.max(axis=axes))


def test_order_does_not_matter():
    """Samples seen in another order, or apart and merged, give the same histogram to the last count."""
    random = np.random.default_rng(1)
    parts = [random.normal(0, scale, (1, 8, 8, 4)) for scale in (0.001, 5.0, 0.3, 700.0)]
    forward, backward = _seen(*parts), _seen(*parts[::-1])
    left, right = _seen(*parts[:2]), _seen(*parts[2:])
    left.merge(right)
    for other in (backward, left):
        assert (other.exponent, other.start, other.minimum, other.maximum) == (
            forward.exponent, forward.start, forward.minimum, forward.maximum,
        )  # fmt: skip
        np.testing.assert_array_equal(other.bins, forward.bins)
        np.testing.assert_array_equal(other.channel_maximum, forward.channel_maximum)


def test_bins_stay_bounded_and_fine():
    """The histogram never outgrows its bins, and uses at least half of them once the range is real."""
    for scale in (1e-6, 1.0, 1e6):
        found = _seen(*[np.random.default_rng(i).normal(0, scale * 3**i, (1, 64, 4)) for i in range(8)])
        assert BINS // 2 <= found.bins.size <= BINS


def test_histogram_places_values_right():
    """The share of values below a bound is what it is in the data."""
    values = np.random.default_rng(2).uniform(-1, 3, (1, 100, 40))
    found = _seen(*values.reshape(100, 1, 10, 4))
    below = found.bins[found.centres < 0].sum() / found.bins.sum()
    assert below == pytest.approx((values < 0).mean(), abs=0.002)


def test_stride_visits_every_channel():
    """A large tensor's subsample holds every channel: one odd channel shows in the histogram."""
    values = np.zeros((1, 64, 64, 64), np.float32)
    values[..., 17] = 5.0
    found = _seen(values)
    assert found.bins[-1] / found.bins.sum() == pytest.approx(1 / 64, rel=0.1)


@pytest.mark.parametrize("constant", [0.0, 1e-30, -4.5, 3e38])
def test_constant_tensors(constant):
    """A tensor with one value has one bin."""
    found = _seen(np.full((1, 4), constant, np.float32))
    assert found.bins.size == 1 and found.bins[0] == 4
    assert found.centres[0] == np.float32(constant)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_show(bad):
    """NaN and infinities are reported, not binned."""
    found = _seen(np.array([[1.0, bad, 2.0]]))
    assert not found.is_finite
