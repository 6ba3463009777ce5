"""Clipping error of each channel of an activation: on the calibration samples, and expected on the next sample.

A hundred samples do not contain a channel's largest value. How far the next sample exceeds it is estimated by leaving
out each sample once: the sample that holds a channel's largest value exceeds the largest of the others by a ratio, and
the ratios of all channels of an activation together are the distribution expected of its next sample (leave-one-out
cross-validation, Stone 1974, "Cross-Validatory Choice and Assessment of Statistical Predictions").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.quantize.histogram import channel_extremes
from edgepack.quantize.ptq.activations import Sample, run_activations
from edgepack.quantize.ptq.layers import Doubles

#: Clipping thresholds that are measured, as shares of a channel's largest value.
THRESHOLDS: Doubles = np.concatenate([np.linspace(0.3, 1.0, 15), 1.05 ** np.arange(1, 10)])

#: Upper limit of the ratio: a channel that only one sample activates says little about the other channels.
#: 1.25 to 1.6 made 0.2 dB of difference on six models; without a limit two of them lost 1 to 2 dB.
_MAX_RATIO = 1.5


@dataclass
class ChannelStatistics:
    """Statistics of one activation per channel, averaged per sample.

    Attributes:
        positions: Values of each channel in one sample.
        peak: Largest magnitude below and above zero: (2, channels).
        active: Number of values that are not exactly zero.
        power: Sum of squares.
        clipped: Sum of squared errors of clipping at each of `THRESHOLDS`: (2, thresholds, channels).
    """

    positions: int
    peak: Doubles
    active: Doubles
    power: Doubles
    clipped: Doubles

    def clipping_error(self, side: int, bound: Doubles) -> Doubles:
        """Return the sum of squared errors of clipping at a bound.

        Args:
            side: 0 for values below zero, 1 for those above.
            bound: Magnitude of the bound, (..., channels).
        """
        peak = self.peak[side]
        share = bound / np.maximum(peak, 1e-12)
        lower = np.clip(np.searchsorted(THRESHOLDS, share) - 1, 0, len(THRESHOLDS) - 2)
        fraction = np.clip((share - THRESHOLDS[lower]) / (THRESHOLDS[lower + 1] - THRESHOLDS[lower]), 0.0, 1.0)
        logs = np.log(np.maximum(self.clipped[side], 1e-30))
        channel = np.arange(len(peak))
        interpolated = np.exp(logs[lower, channel] * (1.0 - fraction) + logs[lower + 1, channel] * fraction)
        below = np.maximum(THRESHOLDS[0] - share, 0.0) * peak
        error: Doubles = np.where(share >= THRESHOLDS[-1], 0.0, interpolated) + self.active * below**2
        return np.where(peak > 0.0, error, 0.0)


def channel_statistics(
    tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]
) -> dict[int, ChannelStatistics]:
    """Return the statistics of activations' channels (last dimension) on the samples, by tensor index.

    Args:
        tflite: A float model.
        tensors: Indices of activations, rank 1 or more.
        samples: Calibration samples.
    """
    count = len(samples)
    found: dict[int, list[Doubles]] = {index: [] for index in tensors}
    for values in run_activations(tflite, tensors, samples):
        for index in tensors:
            low, high = channel_extremes(values(index))
            found[index].append(np.maximum([-low, high], 0.0).astype(np.float64))
    statistics = {}
    for index, peaks in found.items():
        peak = np.max(peaks, axis=0)
        channels = peak.shape[1]
        clipped = np.zeros((2, len(THRESHOLDS), channels))
        statistics[index] = ChannelStatistics(1, peak, np.zeros(channels), np.zeros(channels), clipped)
    for values in run_activations(tflite, tensors, samples):
        for index in tensors:
            _add_sample(statistics[index], values(index).reshape(-1, statistics[index].peak.shape[1]), count)
    for index, peaks in found.items():
        expected = _expected_excess(np.sort(np.array(peaks), axis=0)[::-1])
        np.maximum(statistics[index].clipped, expected, out=statistics[index].clipped)
    return statistics


def _add_sample(statistics: ChannelStatistics, rows: npt.NDArray[np.floating], count: int) -> None:
    """Add one of `count` samples."""
    ones = np.ones(len(rows), np.float32)
    statistics.positions = len(rows)
    statistics.active += ones @ (rows != 0.0).astype(np.float32) / count
    statistics.power += ones @ np.square(rows) / count
    for side, values in enumerate((-rows, rows)):
        peak = statistics.peak[side]
        if not peak.any():
            continue
        limit = np.where(peak > 0.0, THRESHOLDS[0] * peak, np.inf).astype(np.float32)
        position, channel = np.nonzero(values > limit)
        if not len(channel):
            continue
        large, peaks = values[position, channel], peak[channel]
        for number, share in enumerate(THRESHOLDS):
            if share >= 1.0:
                break
            excess = np.maximum(large - share * peaks, 0.0) ** 2
            statistics.clipped[side, number] += np.bincount(channel, excess, len(peak)) / count


def _expected_excess(peaks: Doubles) -> Doubles:
    """Return the squared clipping error expected on the next sample: (2, thresholds, channels).

    Args:
        peaks: Largest values of each sample, descending: (samples, 2, channels).
    """
    count = len(peaks)
    expected = np.zeros((2, len(THRESHOLDS), peaks.shape[2]))
    if count < 2:
        return expected
    for side in range(2):
        largest, second = peaks[0, side], peaks[1, side]
        active = second > 0.0
        if active.any():
            ratio = np.minimum(largest[active] / second[active], _MAX_RATIO)
            excess = np.maximum(ratio - THRESHOLDS[:, np.newaxis], 0.0)
            expected[side] = np.square(excess).mean(axis=1)[:, np.newaxis] * np.square(largest) / count
    return expected
