"""Choose one range for every activation from its statistics.

A method looks at one tensor's `Statistics` and answers (minimum, maximum). What follows holds for every method: zero is
always representable, tensors that must share a scale get the widest range of their group, and outputs whose scale the
kernel fixes get that one.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgepack.errors import QuantizationError, UsageError
from edgepack.graph import Model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.calibrate import Calibration
from edgepack.quantize.histogram import Statistics
from edgepack.quantize.scale_constraints import fixed_range, same_scale_groups

Range = tuple[float, float]

#: Steps of an 8-bit scale.
_LEVELS = 255

#: Bounds tried per side when the error is minimised.
_CANDIDATES = 128

#: Levels and ranges tried when entropy is minimised.
_MERGED, _ENTROPY_CANDIDATES = 128, 33

#: Share of values at or below the upper bound of percentile, and at or above the lower one: 99.99 % lie inside.
_KEPT = 0.99995


def minmax(statistics: Statistics) -> Range:
    """Return the exact smallest and largest value: nothing is clipped."""
    return statistics.minimum, statistics.maximum


def percentile(statistics: Statistics) -> Range:
    """Return the range that holds 99.99 % of the values and leaves out as many below as above.

    The share is counted over all values of the histogram, as in Wu et al. 2020, "Integer Quantization for Deep
    Learning Inference", section 5.1.
    """
    total = int(statistics.bins.sum())
    if not total:
        return minmax(statistics)
    width = 2.0**statistics.exponent
    seen = np.cumsum(statistics.bins)
    low = int(np.searchsorted(seen, (1 - _KEPT) * total, side="right"))
    high = int(np.searchsorted(seen, _KEPT * total, side="left"))
    return (
        max(statistics.minimum, (statistics.start + low) * width),
        min(statistics.maximum, (statistics.start + high + 1) * width),
    )


def mse(statistics: Statistics) -> Range:
    """Return the range of least squared error: what clipping costs plus what rounding costs.

    Rounding to steps of s costs s**2 / 12 per value inside the range; values at zero cost nothing, because zero
    is always exact. Both bounds are searched together over the histogram (cf. Sung et al. 2015, "Resiliency of Deep
    Neural Networks under Quantization").
    """
    counts = statistics.bins.astype(np.float64)
    if not counts.sum():
        return minmax(statistics)
    values = statistics.centres
    fractions = np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    lows = min(0.0, statistics.minimum) * fractions
    highs = max(0.0, statistics.maximum) * fractions
    below = np.array([_clipped(counts, low - values) for low in lows])
    above = np.array([_clipped(counts, values - high) for high in highs])
    rounded = counts.sum() - counts[_zero_bin(statistics)].sum()
    steps = (highs[np.newaxis, :] - lows[:, np.newaxis]) / _LEVELS
    cost = below[:, np.newaxis] + above[np.newaxis, :] + rounded * steps**2 / 12
    low, high = np.unravel_index(np.argmin(cost), cost.shape)
    return float(lows[low]), float(highs[high])


def entropy(statistics: Statistics) -> Range:
    """Return the range whose 8-bit histogram tells least apart from the full one (Kullback-Leibler).

    Migacz 2017, "8-bit Inference with TensorRT": for each candidate, values beyond it fall into the outermost bins, the
    rest is merged into 128 levels and spread out again over the bins that were in use. Both bounds shrink together.
    """
    counts = statistics.bins.astype(np.float64)
    if counts.sum() == 0.0 or np.count_nonzero(counts) < _MERGED:
        return minmax(statistics)
    values = statistics.centres
    best, bounds = np.inf, minmax(statistics)
    for fraction in np.linspace(1.0, 0.2, _ENTROPY_CANDIDATES):
        low, high = (min(0.0, statistics.minimum) * fraction, max(0.0, statistics.maximum) * fraction)
        first, last = (int(i) for i in np.searchsorted(values, (low, high)))
        last = max(first + 1, min(last + 1, counts.size))
        kept = counts[first:last].copy()
        used = kept > 0
        merged = np.arange(kept.size) * _MERGED // kept.size
        level = np.bincount(merged, kept, _MERGED) / np.maximum(np.bincount(merged, used, _MERGED), 1)
        spread = np.where(used, level[merged], 0.0)
        kept[0] += counts[:first].sum()
        kept[-1] += counts[last:].sum()
        distance = _divergence(kept, spread)
        if distance < best:
            best, bounds = distance, (max(statistics.minimum, low), min(statistics.maximum, high))
    return bounds


def _divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    """Return the Kullback-Leibler divergence of two histograms; a bin that only p uses counts with a tiny q."""
    p, q = p / p.sum(), np.maximum(q / max(float(q.sum()), 1e-30), 1e-9)
    used = p > 0
    return float((p[used] * np.log(p[used] / q[used])).sum())


#: Methods by id.
METHODS: dict[str, Callable[[Statistics], Range]] = {
    "percentile": percentile,
    "mse": mse,
    "minmax": minmax,
    "entropy": entropy,
}

#: For callers that cannot try methods out. On six models 0.2 dB above to 1.7 below TFLiteConverter, where percentile
#: is 1.6 above on keyword spotting and 22 below on visual wake words, where a few large values decide.
DEFAULT_METHOD = "minmax"


def choose_ranges(
    calibration: Calibration,
    model: Model,
    method: str = DEFAULT_METHOD,
    *,
    activation_bits: int = 8,
) -> dict[str, Range]:
    """Return (minimum, maximum) of every float activation, keyed by `edgepack.graph.edit.tensor_keys`.

    Args:
        calibration: Statistics of this model's activations.
        model: The float model.
        method: One of `METHODS`.
        activation_bits: 8 or 16; with 16 bits there are steps to spare and clipping only costs, so it is `minmax`.

    Raises:
        UsageError: The method does not exist.
        QuantizationError: The calibration is of another model.
    """
    if method not in METHODS:
        raise UsageError(f"unknown range method '{method}'", hint=f"methods are: {', '.join(METHODS)}")
    choose = METHODS[method] if activation_bits == 8 else minmax
    graph = model.main
    keys = tensor_keys(graph)
    index_of = {key: index for index, key in enumerate(keys)}
    missing = [key for key in calibration.tensors if key not in index_of]
    if missing:
        raise QuantizationError(f"the calibration is of another model: it has a tensor '{missing[0]}'")
    ranges = {index_of[key]: _with_zero(choose(found)) for key, found in calibration.tensors.items()}
    fixed = {
        op.outputs[0]: bounds
        for op in graph.ops
        if op.outputs and (bounds := fixed_range(op, activation_bits)) is not None
    }
    ranges.update({index: bounds for index, bounds in fixed.items() if index in ranges})
    for members in same_scale_groups(graph):
        _share(ranges, fixed, [index for index in members if index in ranges])
    return {keys[index]: bounds for index, bounds in sorted(ranges.items())}


def _share(ranges: dict[int, Range], fixed: Mapping[int, Range], members: list[int]) -> None:
    """Give the members of a group one range; an output whose scale the kernel fixes keeps its own."""
    if not members:
        return
    widest = min(ranges[i][0] for i in members), max(ranges[i][1] for i in members)
    # A tensor whose scale the kernel fixes cannot be widened: where the group needs more, its consumer rescales it.
    ranges.update({index: widest for index in members if index not in fixed})


def _with_zero(bounds: Range) -> Range:
    return min(0.0, bounds[0]), max(0.0, bounds[1])


def _clipped(counts: npt.NDArray[np.float64], beyond: npt.NDArray[np.float64]) -> float:
    return float((counts * np.maximum(beyond, 0.0) ** 2).sum())


def _zero_bin(statistics: Statistics) -> list[int]:
    """Return the bin that holds zero when zero is a bound, as after a RELU, where most of that bin is exactly zero."""
    if statistics.minimum != 0.0 or not 0 <= -statistics.start < statistics.bins.size:
        return []
    return [-statistics.start]
