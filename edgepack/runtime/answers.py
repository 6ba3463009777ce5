"""What the float model and a file answer for each sample, for models with class scores."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.runtime.metrics import FloatArray, Quality


@dataclass(frozen=True)
class Answers:
    """The classes that the float model and a file chose, sample by sample.

    Attributes:
        output: Position of the output with the scores of the classes.
        classes: Number of classes.
        float_class: Class of the float model for each sample.
        float_score: Its probability; scores that are logits pass a softmax.
        file_class: Class of the file for each sample.
        file_score: Its probability.
        lost: How much less probable the right class is in the file than in the float model, -1..1. The right class is
            the label, without labels the float model's class.
        labels: Label of each sample, empty without labels.
    """

    output: int
    classes: int
    float_class: tuple[int, ...]
    float_score: tuple[float, ...]
    file_class: tuple[int, ...]
    file_score: tuple[float, ...]
    lost: tuple[float, ...]
    labels: tuple[int, ...] = ()

    @property
    def expected(self) -> tuple[int, ...]:
        """The right class of each sample: its label, without labels the float model's class."""
        return self.labels or self.float_class


@dataclass(frozen=True)
class Evaluation:
    """What one pass over the samples says of a file.

    Attributes:
        quality: Figures over all samples.
        answers: The classes sample by sample, None when no output has class scores.
    """

    quality: Quality
    answers: Answers | None = None


class AnswerMeter:
    """Records the answers of one file.

    Args:
        output: Position of the output with class scores, None without one.
        probabilities: Positions of the outputs that a SOFTMAX or LOGISTIC produces.
    """

    def __init__(self, output: int | None, probabilities: Collection[int]) -> None:
        self._output = output
        self._bounded = output in probabilities
        self._classes = 0
        self._rows: list[tuple[int, float, int, float, float]] = []
        self._labels: list[int] = []

    def add(self, reference: Sequence[FloatArray], got: Sequence[FloatArray], label: int | None = None) -> None:
        """Add the real outputs of one sample, of the float model and of the file."""
        if self._output is None:
            return
        before, after = (self._probabilities(values[self._output].ravel()) for values in (reference, got))
        # The class is chosen from the scores: rounding of the softmax must not decide between two near ones.
        first, second = (int(np.argmax(values[self._output])) for values in (reference, got))
        self._classes = before.size
        right = first if label is None else label
        lost = float(before[right] - after[right]) if 0 <= right < before.size else 0.0
        self._rows.append((first, _rounded(before[first]), second, _rounded(after[second]), _rounded(lost)))
        if label is not None:
            self._labels.append(label)

    def _probabilities(self, scores: FloatArray) -> npt.NDArray[np.float64]:
        """Return scores as probabilities; values that are not finite count as 0."""
        if not self._bounded and np.isfinite(scores).all():
            powers = np.exp(scores - scores.max())
            return np.asarray(powers / powers.sum(), np.float64)
        return np.nan_to_num(np.asarray(scores, np.float64), nan=0.0, posinf=0.0, neginf=0.0)

    def result(self) -> Answers | None:
        """Return the answers of all samples added, None when no output has class scores."""
        if self._output is None or not self._rows:
            return None
        float_class, float_score, file_class, file_score, lost = zip(*self._rows, strict=True)
        return Answers(
            output=self._output,
            classes=self._classes,
            float_class=float_class,
            float_score=float_score,
            file_class=file_class,
            file_score=file_score,
            lost=lost,
            labels=tuple(self._labels) if len(self._labels) == len(self._rows) else (),
        )


def _rounded(value: float) -> float:
    return round(float(value), 4)
