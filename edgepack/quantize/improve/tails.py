"""What clipping a channel would cost on samples that were not seen: the seen tail, and a guess at what lies beyond it.

A hundred samples do not show a channel's largest value. Beyond the fifth of the samples that reach highest, their
maxima are taken to follow a generalized Pareto distribution (Pickands 1975, "Statistical Inference Using Extreme Order
Statistics") fitted by its moments (Hosking and Wallis 1987, "Parameter and Quantile Estimation for the Generalized
Pareto Distribution"), its tail no heavier than exponential.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.quantize.improve.layers import Doubles
from edgepack.quantize.improve.observe import Sample, watch

#: Thresholds looked at, as shares of a channel's largest value.
THRESHOLDS: Doubles = np.concatenate([np.linspace(0.3, 1.0, 15), 1.05 ** np.arange(1, 5)])

#: From here nothing is taken to be clipped: the guess is not trusted further away. Of 1.1, 1.25, 1.5 this lost least.
_TRUST = 1.25

#: One in so many samples belongs to the tail.
_TAIL_SHARE = 5

#: Most heavy and lightest shape of the tail: exponential, and one that ends two scales away.
_SHAPES = (-0.5, 0.0)


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
        kept: Doubles = np.where(share >= _TRUST, 0.0, found) + self.active * below**2
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
        guessed = _beyond(np.sort(np.array(mine), axis=0)[::-1], found[index].reach)
        np.maximum(found[index].clipped, guessed, out=found[index].clipped)
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


def _beyond(peaks: Doubles, reach: Doubles) -> Doubles:
    """Return the guess: (2, thresholds, channels).

    Args:
        peaks: Largest values of each sample, falling: (samples, 2, channels).
        reach: Largest of all, (2, channels).
    """
    count = len(peaks)
    many = max(2, count // _TAIL_SHARE)
    start = peaks[min(many, count) - 1]
    over = peaks[:many] - start
    mean, spread = np.maximum(over.mean(axis=0), 1e-12), np.maximum(over.var(axis=0), 1e-24)
    shape = np.clip(0.5 * (1.0 - mean**2 / spread), *_SHAPES)
    # The limit of shape 0 is the exponential; a little beside it the general form serves both.
    shape = np.where(shape > -1e-3, -1e-3, shape)
    scale = mean * (1.0 - shape)
    distance = np.maximum(THRESHOLDS[:, np.newaxis, np.newaxis] * reach - start, 0.0)
    left = np.maximum(1.0 + shape * distance / scale, 0.0)
    chance = many / count * left ** (-1.0 / shape)
    excess = 2.0 * (scale * left) ** 2 / ((1.0 - shape) * (1.0 - 2.0 * shape))
    guess: Doubles = np.where(reach > 0.0, chance * excess, 0.0).transpose(1, 0, 2)
    return guess
