"""Judge int8 files by the errors of their logits, sample by sample, and tell a gain from chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from edgepack.graph import read_model
from edgepack.quantize.ptq.activations import Sample, logits, renamed
from edgepack.quantize.ptq.layers import Doubles, Floats
from edgepack.quantize.ptq.tuning import (
    FEWEST_WITH_OUTLIERS,
    HOPELESS,
    LEAST_ERROR,
    LEAST_GAIN,
    OUTLIERS,
    POWER,
    SIGNIFICANCE,
)
from edgepack.runtime import signal as metrics


class Keep(StrEnum):
    """What held-out samples must show of a step so that it is kept."""

    #: A gain that is more than chance.
    GAIN = "gain"
    #: Any gain: what the step does is computed without samples, so nothing can have been fitted to chance.
    ANY_GAIN = "any gain"
    #: No loss: the step insures against samples that are too rare for the held-out ones to contain them.
    NO_LOSS = "no loss"


@dataclass(frozen=True)
class Score:
    """Errors of one file.

    Attributes:
        errors: Squared error of each output's logits for each sample, (samples, outputs).
        signal: Energy of each output about each element's mean, over all samples, (outputs,).
    """

    errors: Doubles
    signal: Doubles

    @property
    def snr_db(self) -> float:
        """SNR of the worst output, dB; inf without error."""
        ratios = [metrics.snr_db(signal, noise) for signal, noise in zip(self.signal, self.errors.sum(0), strict=True)]
        return min((math.inf if ratio is None else ratio for ratio in ratios), default=math.inf)

    @property
    def worst(self) -> int:
        """Position of the output with the lowest SNR."""
        return int(np.argmin(self.signal / np.maximum(self.errors.sum(axis=0), 1e-30)))

    def gain_db(self, other: "Score") -> float:
        """Return how much lower the errors are than another file's: dB, the mean over the outputs.

        Each output's errors are compared by their power mean over the samples, with `POWER`. Their sum would be decided
        by one sample unlike all others, whose error says little about the next ones; the mean of their logarithms does
        not see that a few samples pay for the others, as with ranges that clip.
        """
        return float(np.mean(self._gains(other))) if self.errors.size else 0.0

    def beats(self, other: "Score", keep: Keep = Keep.GAIN) -> bool:
        """Return whether this file is to be taken instead of another one.

        It is not where the output with the lowest SNR loses as much as a gain has to be: the mean over the outputs hid
        that the worst one of basic-pitch's three lost 0.3 dB.

        Samples are compared in pairs; the standard error of the gain is the jackknife's (Efron and Stein 1981), without
        the few samples that weigh most: one of ResNet8's has half of the error, and would leave nothing significant.

        Args:
            other: Errors of the other file.
            keep: What is asked for. Without loss means that the sum of all errors rises by less than `LEAST_GAIN`.
        """
        if not self.errors.size or not np.isfinite(self.errors).all():
            return False
        if not np.isfinite(other.errors).all():
            return True
        if self._gains(other)[other.worst] <= -LEAST_GAIN:
            return False
        if keep is Keep.NO_LOSS:
            loss = -float(np.mean(self._gains(other, power=1.0)))
            return bool((self.errors != other.errors).any()) and loss < LEAST_GAIN
        needed = max(SIGNIFICANCE * self._standard_error(other), LEAST_GAIN) if keep is Keep.GAIN else 0.0
        return self.gain_db(other) > needed

    def is_hopeless(self, other: "Score") -> bool:
        """Return whether further samples would hardly show a gain over another file: it is lower by far than chance."""
        return self.gain_db(other) + HOPELESS * self._standard_error(other) < 0.0

    def first(self, count: int) -> "Score":
        """Return the score of the first samples."""
        return Score(self.errors[:count], self.signal)

    def _gains(self, other: "Score", *, power: float = POWER) -> Doubles:
        """Return the gain of each output, dB, (outputs,)."""
        return _decibels(other._powers(power).sum(axis=0), self._powers(power).sum(axis=0), power)

    def _standard_error(self, other: "Score") -> float:
        """Return the standard error of `gain_db`, from the gains without each sample but the few that weigh most."""
        count = len(self.errors)
        if count < 2:
            return 0.0
        mine, theirs = self._powers(POWER), other._powers(POWER)
        left = _decibels(theirs.sum(axis=0) - theirs, mine.sum(axis=0) - mine, POWER).mean(axis=1)
        dropped = max(1, int(OUTLIERS * count)) if count >= FEWEST_WITH_OUTLIERS else 0
        weights = np.abs(left - self.gain_db(other))
        return math.sqrt((count - 1) * float(left[np.argsort(weights, kind="stable")[: count - dropped]].var()))

    def _powers(self, power: float) -> Doubles:
        """Return the errors to a power, as shares of the signal, (samples, outputs)."""
        signal = np.maximum(self.signal, 1e-30)
        # Errors that are no numbers count as 1e12 times the signal.
        shares = np.where(np.isfinite(self.errors), self.errors / signal, 1e12)
        return np.asarray((shares + LEAST_ERROR / max(1, len(shares))) ** power)


def _decibels(before: Doubles, after: Doubles, power: float) -> Doubles:
    """Return the ratio of two sums of powers in dB; what rounding leaves of an empty sum counts as 1e-30."""
    return np.asarray(10.0 / power * np.log10(np.maximum(before, 1e-30) / np.maximum(after, 1e-30)))


@dataclass(frozen=True)
class Errors:
    """Squared errors of a file's logits.

    Attributes:
        squared: For each sample and output, (samples, outputs).
        without_shift: The same after the mean error of each channel over these samples was subtracted.
    """

    squared: Doubles
    without_shift: Doubles


class Judge:
    """Compares files with the float model on samples.

    Args:
        tflite: The float model.
        samples: All samples.
        reference: `float_logits` of both; computed unless given.
    """

    def __init__(self, tflite: bytes, samples: Sequence[Sample], reference: list[list[Floats]] | None = None) -> None:
        self._samples = samples
        self._model = model = read_model(tflite)
        # Of a stream's part the model knows nothing that came before it: so does the reference.
        self._stream = tflite if model.is_stream else None
        self._parts: dict[tuple[int, ...], list[list[Floats]]] = {}
        self._reference = float_logits(tflite, samples) if reference is None else reference
        self.signal = np.array([_signal(values) for values in zip(*self._reference, strict=True)])

    def errors(self, quantized: bytes, positions: Sequence[int]) -> Errors:
        """Return the squared errors of a file on the samples at these positions."""
        samples = renamed([self._samples[i] for i in positions], self._model, read_model(quantized))
        measured = logits(quantized, samples)
        squared: list[list[float]] = []
        totals: list[list[Doubles]] = []
        areas: list[int] = []
        for expected, outputs in zip(self._expected(positions), measured, strict=True):
            differences = [_by_channel(one - two) for one, two in zip(outputs, expected, strict=True)]
            squared.append([float(np.square(values).sum()) for values in differences])
            totals.append([values.sum(axis=0, dtype=np.float64) for values in differences])
            areas = [len(values) for values in differences]
        return _errors(squared, totals, areas)

    def _expected(self, positions: Sequence[int]) -> list[list[Floats]]:
        """Return the float model's outputs for the samples at these positions."""
        if self._stream is None:
            return [self._reference[i] for i in positions]
        key = tuple(positions)
        if key not in self._parts:
            self._parts[key] = float_logits(self._stream, [self._samples[i] for i in positions])
        return self._parts[key]


def _by_channel(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the values of an output as (positions, channels)."""
    return values.reshape(-1, values.shape[-1] if values.ndim and values.size else 1)


def _errors(squared: Sequence[Sequence[float]], totals: Sequence[Sequence[Doubles]], areas: Sequence[int]) -> Errors:
    """Return the errors with and without their shift.

    Args:
        squared: Squared errors by sample and output.
        totals: Sum of each channel's errors by sample and output.
        areas: Positions of each output, 0 where it is empty.
    """
    every = np.array(squared)
    centered = every.copy()
    for output, (area, parts) in enumerate(zip(areas, zip(*totals, strict=True), strict=True)):
        # The sum of (d - s)^2 over the positions is that of d^2 minus s * (2 * sum(d) - area * s).
        by_sample = np.array(parts)
        with np.errstate(invalid="ignore", over="ignore"):
            shift = by_sample.mean(axis=0) / max(1, area)
            centered[:, output] -= (2.0 * by_sample - area * shift) @ shift
    return Errors(every, np.maximum(centered, 0.0))


def float_logits(tflite: bytes, samples: Sequence[Sample]) -> list[list[Floats]]:
    """Return the logits of each output by sample."""
    return [[np.asarray(values, np.float32) for values in outputs] for outputs in logits(tflite, samples)]


def _signal(values: Sequence[Floats]) -> float:
    mean = np.mean(values, axis=0, dtype=np.float64)
    signal = sum(float(np.square(value - mean).sum()) for value in values)
    energy = sum(float(np.vdot(value, value)) for value in values)
    # Of an output that never changes the energy itself counts; rounding of its mean leaves a trace.
    return signal if signal > 1e-12 * energy else energy
