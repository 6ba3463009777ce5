"""Judge int8 files by the errors of their logits, sample by sample, and tell a gain from chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.graph import read_model
from edgepack.quantize.ptq.activations import Sample, logits
from edgepack.quantize.ptq.layers import Doubles, Floats
from edgepack.quantize.ptq.tuning import SIGNIFICANCE
from edgepack.runtime import signal as metrics


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
        """Return how much lower the errors are than another file's, in dB, averaged over the outputs."""
        mine, theirs = self.errors.sum(0), other.errors.sum(0)
        known = (mine > 0) & (theirs > 0)
        return float(10 * np.log10(theirs[known] / mine[known]).mean()) if known.any() else 0.0

    def beats(self, other: "Score") -> bool:
        """Return whether the errors are lower than another file's by more than chance explains.

        Samples are compared in pairs. Each output counts by how much its errors change relative to the other file's, so
        that a small output counts as much as a large one.
        """
        total = other.errors.mean(axis=0)
        known = total > 0
        if not known.any():
            return False
        change = ((self.errors - other.errors)[:, known] / total[known]).mean(axis=1)
        if not np.isfinite(change).all():
            return False
        error = float(change.std(ddof=1)) / math.sqrt(len(change)) if len(change) > 1 else 0.0
        return float(change.mean()) < -max(SIGNIFICANCE * error, 1e-9)


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
