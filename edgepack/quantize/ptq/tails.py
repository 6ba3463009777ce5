"""What clipping a channel would cost: on the samples seen, and on the next one.

A hundred samples do not show a channel's largest value. How far the next one reaches beyond it is taken from leaving
out each sample once: the sample that holds a channel's largest value exceeds what the others hold by a ratio, and the
ratios of all channels of an activation together are what its next sample is expected to do (cross-validation by
leaving one out, Stone 1974, "Cross-Validatory Choice and Assessment of Statistical Predictions").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.quantize.ptq.layers import Doubles
from edgepack.quantize.ptq.observe import Sample, watch

#: Thresholds looked at, as shares of a channel's largest value.
THRESHOLDS: Doubles = np.concatenate([np.linspace(0.3, 1.0, 15), 1.05 ** np.arange(1, 10)])

#: Largest ratio that is believed: a channel that one sample alone drives says little about its neighbours.
#: 1.25 to 1.6 made 0.2 dB of difference on six models, without a limit two of them lost 1 to 2 dB.
_MOST_BEYOND = 1.5


@dataclass
class Channels:
    """One activation, channel by channel, per sample on average.

    Attributes:
        positions: Values of each channel in one sample.
        reach: Largest value below and above zero, both as positive numbers: (2, channels).
        active: Values that are not exactly zero.
        power: Sum of squares.
        clipped: Sum of squares cut off at each of `THRESHOLDS`: (2, thresholds, channels).
    """

    positions: int
    reach: Doubles
    active: Doubles
    power: Doubles
    clipped: Doubles

    def cost(self, side: int, bound: Doubles) -> Doubles:
        """Return the sum of squares that a bound cuts off.

        Args:
            side: 0 for values below zero, 1 for those above.
            bound: Positive, (..., channels).
        """
        reach = self.reach[side]
        share = bound / np.maximum(reach, 1e-12)
        low = np.clip(np.searchsorted(THRESHOLDS, share) - 1, 0, len(THRESHOLDS) - 2)
        between = np.clip((share - THRESHOLDS[low]) / (THRESHOLDS[low + 1] - THRESHOLDS[low]), 0.0, 1.0)
        logs = np.log(np.maximum(self.clipped[side], 1e-30))
        channel = np.arange(len(reach))
        found = np.exp(logs[low, channel] * (1.0 - between) + logs[low + 1, channel] * between)
        below = np.maximum(THRESHOLDS[0] - share, 0.0) * reach
        kept: Doubles = np.where(share >= THRESHOLDS[-1], 0.0, found) + self.active * below**2
        return np.where(reach > 0.0, kept, 0.0)


def channels_of(tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]) -> dict[int, Channels]:
    """Return what the channels (last dimension) of activations do on the samples, by tensor index.

    Args:
        tflite: A float model.
        tensors: Indices of activations, rank 1 or more.
        samples: Calibration samples.
    """
    count = len(samples)
    peaks: list[list[Doubles]] = [[] for _ in tensors]
    for seen in watch(tflite, tensors, samples):
        for mine, values in zip(peaks, seen, strict=True):
            rows = values.reshape(-1, values.shape[-1])
            mine.append(np.maximum([-rows.min(axis=0), rows.max(axis=0)], 0.0).astype(np.float64))
    found = {}
    for index, mine in zip(tensors, peaks, strict=True):
        reach = np.max(mine, axis=0)
        width = reach.shape[1]
        empty = np.zeros((2, len(THRESHOLDS), width))
        found[index] = Channels(1, reach, np.zeros(width), np.zeros(width), empty)
    for seen in watch(tflite, tensors, samples):
        for index, values in zip(tensors, seen, strict=True):
            _add(found[index], values.reshape(-1, values.shape[-1]), count)
    for index, mine in zip(tensors, peaks, strict=True):
        expected = _beyond(np.sort(np.array(mine), axis=0)[::-1])
        np.maximum(found[index].clipped, expected, out=found[index].clipped)
    return found


def _add(channels: Channels, rows: npt.NDArray[np.floating], count: int) -> None:
    """Add one of `count` samples."""
    channels.positions = len(rows)
    channels.active += (rows != 0.0).sum(axis=0) / count
    channels.power += np.square(rows, dtype=np.float64).sum(axis=0) / count
    for side, values in enumerate((-rows, rows)):
        reach = channels.reach[side]
        place, channel = np.nonzero(values > THRESHOLDS[0] * np.maximum(reach, 1e-12))
        large = values[place, channel]
        for step, share in enumerate(THRESHOLDS):
            if share >= 1.0:
                break
            over = np.maximum(large - share * reach[channel], 0.0) ** 2
            channels.clipped[side, step] += np.bincount(channel, over, len(reach)) / count


def _beyond(peaks: Doubles) -> Doubles:
    """Return what bounds are expected to cut off the next sample: (2, thresholds, channels).

    Args:
        peaks: Largest values of each sample, falling: (samples, 2, channels).
    """
    count = len(peaks)
    expected = np.zeros((2, len(THRESHOLDS), peaks.shape[2]))
    if count < 2:
        return expected
    for side in range(2):
        largest, second = peaks[0, side], peaks[1, side]
        seen = second > 0.0
        if seen.any():
            ratio = np.minimum(largest[seen] / second[seen], _MOST_BEYOND)
            over = np.maximum(ratio - THRESHOLDS[:, np.newaxis], 0.0)
            expected[side] = np.square(over).mean(axis=1)[:, np.newaxis] * np.square(largest) / count
    return expected
