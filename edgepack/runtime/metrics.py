"""Quality metrics of a converted model compared with the float model, accumulated sample by sample."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy in percent of one model on labelled samples."""

    top1: float
    samples: int


@dataclass(frozen=True)
class Quality:
    """Quality of a converted model, measured on `samples` samples.

    Attributes:
        snr_db: 10 log10(sum ref^2 / sum (ref - got)^2) over all outputs, dB; None when the outputs are equal.
        cosine: Mean cosine of the angle between the two output vectors of a sample; 1.0 for equal directions.
        max_error: Largest absolute difference of any output value.
        agreement: Percentage of samples with the same top-1 class, None when the outputs are no class scores.
        top1: Top-1 accuracy of the converted model in percent, None without labels.
        top1_float: Top-1 accuracy of the float model in percent, None without labels.
        samples: Number of samples.
        collapsed: Names of outputs that collapsed to a constant on all samples while the float model's varied.
        logits_snr_db: SNR of the tensor before the last SOFTMAX or LOGISTIC, dB: probabilities near 0 and 1 hide most
            quantization errors. None when the model ends in neither, or when the logits are equal.
    """

    snr_db: float | None
    cosine: float
    max_error: float
    agreement: float | None
    top1: float | None
    top1_float: float | None
    samples: int
    collapsed: tuple[str, ...] = ()
    logits_snr_db: float | None = None

    @property
    def drop(self) -> float | None:
        """Loss of top-1 accuracy in percentage points; without labels, of agreement; None when neither is known."""
        if self.top1 is not None and self.top1_float is not None:
            return self.top1_float - self.top1
        return None if self.agreement is None else 100.0 - self.agreement

    def to_json(self) -> dict[str, Any]:
        """Return the `quality` object of JSON documents, with rounded figures."""
        return {
            "snr_db": None if self.snr_db is None else round(self.snr_db, 2),
            "logits_snr_db": None if self.logits_snr_db is None else round(self.logits_snr_db, 2),
            "cosine": round(self.cosine, 6),
            "max_error": float(f"{self.max_error:.6g}"),
            "agreement": None if self.agreement is None else round(self.agreement, 3),
            "top1": None if self.top1 is None else round(self.top1, 3),
            "top1_float": None if self.top1_float is None else round(self.top1_float, 3),
            "samples": self.samples,
            "collapsed": list(self.collapsed),
        }


class QualityMeter:
    """Accumulates the differences of one model from the reference.

    Args:
        names: Names of the outputs.
        classes: Index of the output with class scores, None without one.
    """

    def __init__(self, names: Sequence[str], classes: int | None) -> None:
        self._names = tuple(names)
        self._classes = classes
        self._signal = 0.0
        self._noise = 0.0
        self._logits_signal = 0.0
        self._logits_noise = 0.0
        self._cosines = 0.0
        self._max_error = 0.0
        self._same = 0
        self._right = 0
        self._right_float = 0
        self._labelled = 0
        self._samples = 0
        infinity = (math.inf, -math.inf)
        self._ranges = [infinity for _ in self._names]
        self._float_ranges = [infinity for _ in self._names]

    def add(self, reference: Sequence[FloatArray], got: Sequence[FloatArray], label: int | None = None) -> None:
        """Add one sample.

        Args:
            reference: Real outputs of the float model.
            got: Real outputs of the converted model, the same shapes.
            label: Class index, None when unknown.
        """
        self._samples += 1
        dot = norm_reference = norm_got = 0.0
        for position, (expected, actual) in enumerate(zip(reference, got, strict=True)):
            difference = expected - actual
            self._signal += float(np.vdot(expected, expected))
            self._noise += float(np.vdot(difference, difference))
            dot += float(np.vdot(expected, actual))
            norm_reference += float(np.vdot(expected, expected))
            norm_got += float(np.vdot(actual, actual))
            if difference.size:
                self._max_error = max(self._max_error, float(np.abs(difference).max()))
                self._ranges[position] = _widen(self._ranges[position], actual)
                self._float_ranges[position] = _widen(self._float_ranges[position], expected)
        denominator = math.sqrt(norm_reference * norm_got)
        self._cosines += dot / denominator if denominator else float(norm_reference == norm_got)
        if self._classes is not None:
            best_reference = int(np.argmax(reference[self._classes]))
            best = int(np.argmax(got[self._classes]))
            self._same += best == best_reference
            if label is not None:
                self._labelled += 1
                self._right += best == label
                self._right_float += best_reference == label

    def add_logits(self, reference: Sequence[FloatArray], got: Sequence[FloatArray]) -> None:
        """Add the logits of one sample: real values, the same shapes."""
        for expected, actual in zip(reference, got, strict=True):
            difference = expected - actual
            self._logits_signal += float(np.vdot(expected, expected))
            self._logits_noise += float(np.vdot(difference, difference))

    def result(self) -> Quality:
        """Return the metrics over all samples added."""
        samples = max(1, self._samples)
        labelled = self._labelled == self._samples and self._labelled > 0
        return Quality(
            snr_db=snr_db(self._signal, self._noise),
            logits_snr_db=snr_db(self._logits_signal, self._logits_noise),
            cosine=self._cosines / samples,
            max_error=self._max_error,
            agreement=None if self._classes is None else 100.0 * self._same / samples,
            top1=100.0 * self._right / samples if labelled else None,
            top1_float=100.0 * self._right_float / samples if labelled else None,
            samples=self._samples,
            collapsed=tuple(
                name
                for name, (low, high), (float_low, float_high) in zip(
                    self._names, self._ranges, self._float_ranges, strict=True
                )
                if low == high and float_high > float_low
            ),
        )


def snr_db(signal: float, noise: float) -> float | None:
    """Return a signal-to-noise ratio in dB, None without noise.

    Args:
        signal: Sum of the squared reference values.
        noise: Sum of the squared differences from them.
    """
    return None if noise == 0.0 else 10.0 * math.log10(max(signal, 1e-300) / noise)


def _widen(limits: tuple[float, float], values: FloatArray) -> tuple[float, float]:
    return min(limits[0], float(values.min())), max(limits[1], float(values.max()))


def class_output(shapes: Sequence[tuple[int, ...]], highest_label: int | None) -> int | None:
    """Return the index of the output with class scores, a vector of two or more values; None without one.

    Args:
        shapes: Shapes of the outputs, batch first.
        highest_label: Largest label, None when there are no labels; the vector must be long enough for it.
    """
    for position, shape in enumerate(shapes):
        size = math.prod(shape)
        if shape and shape[-1] == size and size > max(1, highest_label if highest_label is not None else 1):
            return position
    return None
