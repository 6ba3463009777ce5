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


def _counted(statistics: Statistics, beyond: float) -> int:
    """Values in bins that begin beyond a bound."""
    first = (statistics.start + np.arange(statistics.bins.size)) * 2.0**statistics.exponent
    return int(statistics.bins[first >= beyond].sum())


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("shape", [(1, 64, 64, 32), (1, 7, 7, 96), (1, 300, 40), (1, 25_600)])
def test_large_values_are_counted_wherever_they_are(shape, sign):
    """Seven values of a hundred times the others' size are counted at every place that they can have."""
    random = np.random.default_rng(5)
    values = random.normal(0, 0.2, shape).astype(np.float32)
    for shift in range(0, 40, 3):
        flat = values.copy().reshape(-1)
        flat[shift + np.arange(7) * (flat.size // 8)] = sign * random.uniform(19.0, 20.0, 7)
        statistics = _observed(flat.reshape(shape) * sign)
        assert _counted(statistics, 18.0) == 7


def test_both_tails_are_counted():
    """Large values below and above zero are all counted, and neither as more than it is."""
    flat = np.random.default_rng(6).normal(0, 0.1, 64 * 64 * 32)
    flat[1001::5000] = 9.5
    flat[1003::4000] = -9.5
    statistics = _observed(flat.reshape(1, 64, 64, 32))
    assert _counted(statistics, 9.0) == len(flat[1001::5000])
    assert statistics.bins[statistics.centres < -9.0].sum() == len(flat[1003::4000])


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("kind", ["normal", "relu", "far", "negative", "constant", "spike"])
@pytest.mark.parametrize("shape", [(1, 64, 64, 32), (1, 31, 17, 8), (1, 20_000), (1, 50, 256)])
def test_the_total_is_near_the_number_of_values(shape, kind, samples):
    """Values that stand for their neighbors count as many: the bins add up to the count, within 2 %."""
    draws = np.random.default_rng(7).normal(0, 1, (samples * shape[0], *shape[1:])).astype(np.float32)
    values = {
        "normal": lambda: draws,
        "relu": lambda: np.maximum(draws, 0.0),
        "far": lambda: 40.0 + draws,
        "negative": lambda: -np.abs(draws) - 0.1,
        "constant": lambda: np.full_like(draws, 3.0),
        "spike": lambda: np.where(np.arange(draws.size).reshape(draws.shape) == 77, 1e6, draws),
    }[kind]()
    statistics = Statistics()
    statistics.observe(values.astype(np.float32), samples)
    assert statistics.count == values.size
    assert statistics.bins.sum() == pytest.approx(values.size, rel=0.02)


def test_parts_with_tails_merge_in_any_order():
    """Samples whose large values differ by orders give one histogram, in any order, and split and merged too."""
    random = np.random.default_rng(8)
    parts = [random.standard_t(2, (1, 40, 40, 24)) * scale for scale in (0.01, 3.0, 0.2, 150.0)]
    forward = _observed(*parts)
    for order in ((3, 2, 1, 0), (1, 3, 0, 2)):
        other = _observed(*(parts[place] for place in order))
        left, right = (_observed(*(parts[place] for place in half)) for half in (order[:1], order[1:]))
        left.merge(right)
        for again in (other, left):
            assert (again.count, again.exponent, again.start) == (forward.count, forward.exponent, forward.start)
            np.testing.assert_array_equal(again.bins, forward.bins)


@pytest.mark.parametrize("share", [0.5, 0.05, 0.005])
def test_a_share_of_large_values_in_a_huge_tensor(share):
    """In a tensor too large to look at every value, the share of the large ones is right to a tenth of itself."""
    random = np.random.default_rng(9)
    shape = (1, 512, 512, 16)
    values = random.uniform(0.0, 0.3, shape).astype(np.float32)
    values[random.random(shape) < share] = 0.9
    values.reshape(-1)[3] = 1.0
    statistics = _observed(values)
    assert statistics.maximum == 1.0
    assert _counted(statistics, 0.8) / values.size == pytest.approx((values > 0.8).mean(), rel=0.1)
    assert statistics.bins.sum() == pytest.approx(values.size, rel=0.02)
