"""Signal-to-noise ratio of one output, accumulated sample by sample."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.runtime.columns import CONSTANT, column_axes, column_groups
from edgepack.runtime.confidence import Z

FloatArray = npt.NDArray[np.float64]

#: Lowest SNR that is reported, dB; also that of values that are not finite, and of an error where there is no signal.
LOWEST_SNR = -100.0


@dataclass(frozen=True)
class Signal:
    """What was measured of one output: see `metrics.OutputQuality` for the attributes."""

    snr_db: float | None
    interval: tuple[float, float] | None
    columns: tuple[int, ...]
    axis: int | None
    max_error: float
    constant: bool


class SignalMeter:
    """Accumulates signal and noise of one output.

    The signal is the variation of each element about its mean over the samples: what is the same for all samples, such
    as the mean air pressure in a forecast, says nothing about the sample. The mean is updated with every sample
    (Welford 1962), so that no sample has to be kept.

    Args:
        columns: Judge columns of different variation by themselves.
    """

    def __init__(self, *, columns: bool) -> None:
        self._columns = columns
        self._axes: tuple[int, ...] = ()
        self._mean: FloatArray = np.zeros(())
        self._samples = 0
        self._energy: list[FloatArray] = []
        # Per axis, then per sample: signal and noise of each column. The last entry is the whole output.
        self._signals: list[list[FloatArray]] = []
        self._noises: list[list[FloatArray]] = []
        self._max_error = 0.0
        self._spread_of_one = 0.0

    def add(self, expected: FloatArray, actual: FloatArray) -> None:
        """Add one sample.

        Args:
            expected: Real values of the float model; elements that are not finite are ignored.
            actual: Real values of the converted model, the same shape.
        """
        if expected.size == 0:
            return
        if self._samples == 0:
            self._axes = column_axes(expected.shape) if self._columns else ()
            self._mean = np.where(np.isfinite(expected), expected, 0.0)
            self._signals, self._noises = [[] for _ in (*self._axes, None)], [[] for _ in (*self._axes, None)]
            self._energy = [np.zeros(()) for _ in self._signals]
            self._spread_of_one = float(np.square(self._mean - self._mean.mean()).sum())
        self._samples += 1
        finite = np.isfinite(expected)
        known = expected if finite.all() else np.where(finite, expected, self._mean)
        error = np.where(finite, known - actual, 0.0)
        error = np.where(np.isfinite(error), error, math.inf)
        step = known - self._mean
        self._mean = self._mean + step / self._samples
        signal, noise, energy = step * (known - self._mean), np.square(error), np.square(known)
        self._max_error = max(self._max_error, float(np.abs(error).max()))
        for position, axis in enumerate((*self._axes, None)):
            others = None if axis is None else tuple(i for i in range(expected.ndim) if i != axis)
            self._signals[position].append(np.asarray(signal.sum(axis=others)))
            self._noises[position].append(np.asarray(noise.sum(axis=others)))
            self._energy[position] = self._energy[position] + energy.sum(axis=others)

    def result(self) -> Signal:
        """Return the SNR of the worst group of columns."""
        if self._samples == 0:
            return Signal(None, None, (), None, 0.0, False)
        signals, noises = np.array(self._signals[-1]), np.array(self._noises[-1])
        energy, noise = float(self._energy[-1]), float(noises.sum())
        if self._samples == 1:
            # Nothing can vary from sample to sample: what varies from element to element is the signal.
            return self._single(self._spread_of_one or energy, noise)
        if float(signals.sum()) <= (CONSTANT * CONSTANT) * energy:
            return Signal(snr_db(energy, noise), None, (), None, self._max_error, True)
        worst = Signal(
            snr_db(float(signals.sum()), noise), _interval(signals, noises), (), None, self._max_error, False
        )
        for position, axis in enumerate(self._axes):
            by_column, error = np.array(self._signals[position]), np.array(self._noises[position])
            groups = column_groups(np.sqrt(by_column.sum(axis=0)), np.sqrt(self._energy[position]))
            for group in groups if len(groups) > 1 else []:
                part, lost = by_column[:, group].sum(axis=1), error[:, group].sum(axis=1)
                ratio = snr_db(float(part.sum()), float(lost.sum()))
                if ratio is not None and (worst.snr_db is None or ratio < worst.snr_db):
                    worst = Signal(ratio, _interval(part, lost), tuple(group), axis, self._max_error, False)
        return worst

    def _single(self, signal: float, noise: float) -> Signal:
        return Signal(snr_db(signal, noise), None, (), None, self._max_error, False)


def snr_db(signal: float, noise: float) -> float | None:
    """Return a signal-to-noise ratio in dB, at least `LOWEST_SNR`; None without noise.

    Args:
        signal: Sum of the squares of the signal.
        noise: Sum of the squared errors.
    """
    if noise == 0.0:
        return None
    if not math.isfinite(noise) or signal <= 0.0:
        return LOWEST_SNR
    return max(LOWEST_SNR, 10.0 * math.log10(signal / noise))


def _interval(signals: FloatArray, noises: FloatArray) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of an SNR in dB, from the signal and the noise of each sample.

    The standard error of a ratio of means over the samples, by linearization (Cochran 1977, "Sampling Techniques",
    section 6.5), in dB.
    """
    signal, noise, samples = float(signals.sum()), float(noises.sum()), len(signals)
    ratio = snr_db(signal, noise)
    if ratio is None or ratio <= LOWEST_SNR:
        return None
    deviations = noises / noise - signals / signal
    error = 10.0 / math.log(10.0) * math.sqrt(samples / (samples - 1) * float(np.square(deviations).sum()))
    return max(LOWEST_SNR, ratio - Z * error), ratio + Z * error
