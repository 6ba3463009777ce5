"""Judge int8 files by the errors of their logits, sample by sample, and tell a gain from chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from edgepack.graph import read_model
from edgepack.quantize.ptq.activations import Sample, logits
from edgepack.quantize.ptq.layers import Doubles, Floats
from edgepack.quantize.ptq.tuning import FEWEST_WITH_OUTLIERS, LEAST_ERROR, LEAST_GAIN, OUTLIERS, SIGNIFICANCE
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

    def gain_db(self, other: "Score") -> float:
        """Return how much lower the errors are than another file's: dB, the mean over samples and outputs.

        Samples count alike. One sample unlike all others can have half of the error, and its error says little about
        the next ones: on ResNet8 such a sample hid a gain of 8 dB on unseen samples behind a loss of 5.
        """
        return float(self._gains(other).mean()) if self.errors.size else 0.0

    def beats(self, other: "Score", keep: Keep = Keep.GAIN) -> bool:
        """Return whether this file is to be taken instead of another one.

        Samples are compared in pairs. The sum of the errors must be lower as well, but for those of the few samples
        with the largest ones.

        Args:
            other: Errors of the other file.
            keep: What is asked for. Without loss means that the sum of all errors rises by less than `LEAST_GAIN`.
        """
        if not self.errors.size or not np.isfinite(self.errors).all():
            return False
        if not np.isfinite(other.errors).all():
            return True
        gains = self._gains(other)
        error = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
        if keep is Keep.NO_LOSS:
            return bool((self.errors != other.errors).any()) and self._total_gain_db(other) > -LEAST_GAIN
        needed = max(SIGNIFICANCE * error, LEAST_GAIN) if keep is Keep.GAIN else 0.0
        return float(gains.mean()) > needed and self._is_lower_without_outliers(other)

    def _gains(self, other: "Score") -> Doubles:
        """Return the gain on each sample, dB, the mean over the outputs, (samples,)."""
        floor = LEAST_ERROR * self.signal / max(1, len(self.errors)) + 1e-300
        # Errors that are no numbers count as 1e12 times the signal.
        mine, theirs = (
            np.where(np.isfinite(errors), errors, 1e12 * (self.signal + 1.0)) + floor
            for errors in (self.errors, other.errors)
        )
        return np.asarray((10.0 * np.log10(theirs / mine)).mean(axis=1))

    def _total_gain_db(self, other: "Score") -> float:
        """Return how much lower the sum of all errors is, dB, each output's share counted alike."""
        return -10.0 * math.log10(max(1e-30, self._shares(other).sum()) / max(1e-30, other._shares(other).sum()))

    def _shares(self, other: "Score") -> Doubles:
        """Return the errors of each sample as shares of another file's sums, the mean over the outputs, (samples,)."""
        total = np.maximum(other.errors.sum(axis=0), 1e-300)
        return np.asarray((self.errors / total).mean(axis=1))

    def _is_lower_without_outliers(self, other: "Score") -> bool:
        mine, theirs = self._shares(other), other._shares(other)
        count = len(mine)
        dropped = max(1, int(OUTLIERS * count)) if count >= FEWEST_WITH_OUTLIERS else 0
        kept = np.argsort(np.maximum(mine, theirs), kind="stable")[: count - dropped]
        return float(mine[kept].sum()) < float(theirs[kept].sum())


class Judge:
    """Compares files with the float model on samples.

    Args:
        tflite: The float model.
        samples: All samples.
    """

    def __init__(self, tflite: bytes, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self._names = read_model(tflite).input_names()
        self._reference = [
            [np.asarray(values, np.float32) for values in outputs] for outputs in logits(tflite, samples)
        ]
        self.signal = np.array([_signal(values) for values in zip(*self._reference, strict=True)])

    def errors(self, quantized: bytes, positions: Sequence[int]) -> Doubles:
        """Return the squared errors of a file on the samples at these positions, (positions, outputs)."""
        names = read_model(quantized).input_names()
        samples = [{new: self._samples[i][old] for new, old in zip(names, self._names, strict=True)} for i in positions]
        measured = logits(quantized, samples)
        return np.array(
            [
                [float(np.square(one - two).sum()) for one, two in zip(outputs, self._reference[i], strict=True)]
                for i, outputs in zip(positions, measured, strict=True)
            ]
        )


def _signal(values: Sequence[Floats]) -> float:
    mean = np.mean(values, axis=0, dtype=np.float64)
    signal = sum(float(np.square(value - mean).sum()) for value in values)
    energy = sum(float(np.vdot(value, value)) for value in values)
    # Of an output that never changes the energy itself counts; rounding of its mean leaves a trace.
    return signal if signal > 1e-12 * energy else energy
