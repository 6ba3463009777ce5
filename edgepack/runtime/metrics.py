"""Quality metrics of a converted model compared with the float model, accumulated sample by sample."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.runtime.confidence import Z, paired_interval, wilson_interval
from edgepack.runtime.signal import SignalMeter
from edgepack.runtime.task_metrics import TaskQuality

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy in percent of one model on labelled samples."""

    top1: float
    samples: int


@dataclass(frozen=True)
class MeasuredAccuracy:
    """Accuracy against the truth, in percent.

    Attributes:
        metric: `top-1`, `mAP@50` or `mIoU`.
        value: Of the converted model.
        value_float: Of the float model, None where there is none.
    """

    metric: str
    value: float
    value_float: float | None

    @property
    def change(self) -> str:
        """`99.11 -> 98.90`, or the value alone where there is no float model."""
        before = "" if self.value_float is None else f"{self.value_float:.2f} -> "
        return f"{before}{self.value:.2f}"

    @property
    def text(self) -> str:
        """The value, with the metric unless it is top-1."""
        return self._with_metric(f"{self.value:.2f}")

    def __str__(self) -> str:
        """Return the change, with the metric unless it is top-1."""
        return self._with_metric(self.change)

    def _with_metric(self, figures: str) -> str:
        return figures if self.metric == "top-1" else f"{figures} {self.metric}"


def measured_accuracy(quality: Mapping[str, Any] | None) -> MeasuredAccuracy | None:
    """Return the accuracy in the `quality` object of a JSON document: `Quality.accuracy`, rounded as it is there."""
    if quality is None:
        return None
    task, top1 = quality.get("task"), quality.get("top1")
    if task is not None:
        return MeasuredAccuracy(task["metric"], task["value"], task["value_float"])
    return None if top1 is None else MeasuredAccuracy("top-1", top1, quality.get("top1_float"))


@dataclass(frozen=True)
class OutputQuality:
    """Quality of one output.

    Attributes:
        name: Name of the output.
        kind: `classes`, `probabilities` (the model ends in SOFTMAX or LOGISTIC), `numbers` (integers that stand for
            something, such as classes), `ranked` (entries that an op sorts or selects) or `values`.
        snr_db: 10 log10(signal / noise), dB: the signal is the sum of the squared differences of the float model's
            values from the mean of their element over the samples, the noise the sum of the squared errors. Of columns
            in groups of different variation (`columns.column_groups`) the worst group counts. At least `LOWEST_SNR`,
            also for values that are not finite; None when the values are equal.
        interval: 95 % confidence interval of the SNR, dB; None when the values are equal or with one sample.
        columns: Columns of the worst group, empty when the output is one group.
        axis: Axis of the columns, None without.
        logits_snr_db: SNR of the tensor before the SOFTMAX or LOGISTIC; None without one, or when that is equal.
        max_error: Largest absolute difference of a value.
        bounded: True when the values are probabilities.
        changed: Percentage of the elements that differ, for `numbers`, which have no SNR; else None.
        changed_interval: 95 % confidence interval of it from the spread over the samples.
        ranked_by: Op that ranks the entries, empty without one.
        constant: True when the float model's values are the same on all samples. The SNR is then the one about zero.
    """

    name: str
    kind: str
    snr_db: float | None
    interval: tuple[float, float] | None = None
    columns: tuple[int, ...] = ()
    axis: int | None = None
    logits_snr_db: float | None = None
    max_error: float = 0.0
    bounded: bool = False
    constant: bool = False
    changed: float | None = None
    changed_interval: tuple[float, float] | None = None
    ranked_by: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `quality.outputs` of JSON documents, with rounded figures."""
        return {
            "name": self.name,
            "kind": self.kind,
            "snr_db": _rounded(self.snr_db),
            "interval_db": None if self.interval is None else [round(value, 2) for value in self.interval],
            "columns": list(self.columns),
            "axis": self.axis,
            "logits_snr_db": _rounded(self.logits_snr_db),
            "max_error": float(f"{self.max_error:.6g}"),
            "constant": self.constant,
            "changed": None if self.changed is None else round(self.changed, 3),
        }


@dataclass(frozen=True)
class Quality:
    """Quality of a converted model, measured on `samples` samples.

    Attributes:
        snr_db: SNR of the worst output, dB; None when all outputs are equal.
        cosine: Mean cosine of the angle between the two output vectors of a sample; 1.0 for equal directions.
        max_error: Largest absolute difference of any output value.
        agreement: Percentage of samples with the same top-1 class, None when the outputs are no class scores.
        top1: Top-1 accuracy of the converted model in percent, None without labels.
        top1_float: Top-1 accuracy of the float model in percent, None without labels.
        samples: Number of samples.
        collapsed: Names of outputs that collapsed to a constant on all samples while the float model's varied.
        logits_snr_db: Lowest SNR of the tensors before the last SOFTMAX or LOGISTIC, dB: probabilities near 0 and 1
            hide most quantization errors. None when the model ends in neither, or when the logits are equal.
        outputs: Quality of each output.
        worsened: Samples that only the float model classifies right, without labels those with another class.
        improved: Samples that only the converted model classifies right; 0 without labels.
        expected_drop: Estimated loss of top-1 in percentage points, by the float model's probabilities: the mean
            difference between those of its class and of the converted model's. It needs no labels, and a sample that
            the float model is not sure of counts little. None when the outputs are no class scores.
        expected_error: Standard error of it, points.
        trained: True for a file with further training: it may differ from the float model without being worse.
        task: Accuracy at the model's task, None without samples with a truth.
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
    outputs: tuple[OutputQuality, ...] = ()
    worsened: int | None = None
    improved: int = 0
    expected_drop: float | None = None
    expected_error: float = 0.0
    trained: bool = False
    task: TaskQuality | None = None

    @property
    def drop(self) -> float | None:
        """Loss of accuracy in percentage points: at the task, of top-1, or of agreement; None when none is known."""
        if self.task is not None:
            return self.task.drop
        if self.top1 is not None and self.top1_float is not None:
            return self.top1_float - self.top1
        return None if self.agreement is None else 100.0 - self.agreement

    @property
    def accuracy(self) -> "MeasuredAccuracy | None":
        """Accuracy against the truth of the samples: at the task, else of the class; None where it is not known."""
        if self.task is not None:
            return MeasuredAccuracy(self.task.metric, self.task.value, self.task.value_float)
        return None if self.top1 is None else MeasuredAccuracy("top-1", self.top1, self.top1_float)

    @property
    def drop_interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of `drop` in percentage points, None when it is not known."""
        drop = self.drop
        if self.task is not None:
            return self.task.interval
        if drop is None or not self.samples:
            return None
        worsened = round(max(drop, 0.0) * self.samples / 100) if self.worsened is None else self.worsened
        if self.top1 is not None and self.top1_float is not None:
            return paired_interval(worsened, self.improved, self.samples)
        return wilson_interval(worsened, self.samples)

    @property
    def expected_interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of `expected_drop`, None when that is not known."""
        if self.expected_drop is None:
            return None
        half = Z * self.expected_error
        return max(0.0, self.expected_drop - half), min(100.0, self.expected_drop + half)

    @property
    def worst(self) -> OutputQuality | None:
        """The output with the lowest SNR, None when all outputs are equal."""
        return worst_output(self.outputs)

    def to_json(self) -> dict[str, Any]:
        """Return the `quality` object of JSON documents, with rounded figures."""
        interval, worst = self.drop_interval, self.worst
        return {
            "snr_db": _rounded(self.snr_db),
            "worst_output": None if worst is None else worst.name,
            "logits_snr_db": _rounded(self.logits_snr_db),
            "cosine": round(self.cosine, 6),
            "max_error": float(f"{self.max_error:.6g}"),
            "agreement": None if self.agreement is None else round(self.agreement, 3),
            "top1": None if self.top1 is None else round(self.top1, 3),
            "top1_float": None if self.top1_float is None else round(self.top1_float, 3),
            "expected_drop": None if self.expected_drop is None else round(self.expected_drop, 3),
            "drop_interval": None if interval is None else [round(value, 2) for value in interval],
            **({} if self.task is None else {"task": self.task.to_json()}),
            "samples": self.samples,
            "collapsed": list(self.collapsed),
            "outputs": [output.to_json() for output in self.outputs],
        }


def worst_output(outputs: Sequence[OutputQuality]) -> OutputQuality | None:
    """Return the output with the lowest SNR, None when all are equal."""
    different = [output for output in outputs if output.snr_db is not None]
    return min(different, key=lambda output: output.snr_db or 0.0) if different else None


class QualityMeter:
    """Accumulates the differences of one model from the reference.

    Args:
        names: Names of the outputs.
        classes: Index of the output with class scores, None without one.
        probabilities: Indices of the outputs that a SOFTMAX or LOGISTIC produces.
        numbers: Indices of the outputs of integers that stand for something.
        ranked: Op that ranks the entries of an output, by its index.
    """

    def __init__(
        self,
        names: Sequence[str],
        classes: int | None,
        probabilities: Collection[int] = (),
        numbers: Collection[int] = (),
        ranked: Mapping[int, str] | None = None,
    ) -> None:
        self._names = tuple(names)
        self._classes = classes
        self._probabilities = frozenset(probabilities)
        self._changed: dict[int, list[float]] = {at: [] for at in numbers}
        self._ranked = dict(ranked or {})
        self._outputs = [
            SignalMeter(columns=at != classes and at not in self._probabilities) for at in range(len(self._names))
        ]
        self._logits = {at: SignalMeter(columns=False) for at in range(len(self._names))}
        self._cosines = 0.0
        self._same = 0
        self._right = 0
        self._right_float = 0
        self._worsened = 0
        self._improved = 0
        self._labelled = 0
        self._samples = 0
        self._given_up: list[float] = []
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
            self._outputs[position].add(expected, actual)
            dot += float(np.vdot(expected, actual))
            norm_reference += float(np.vdot(expected, expected))
            norm_got += float(np.vdot(actual, actual))
            if position in self._changed:
                self._changed[position].append(float(np.mean(expected != actual)) if expected.size else 0.0)
            if expected.size:
                self._ranges[position] = _widen(self._ranges[position], actual)
                self._float_ranges[position] = _widen(self._float_ranges[position], expected)
        denominator = math.sqrt(norm_reference * norm_got)
        self._cosines += dot / denominator if denominator else float(norm_reference == norm_got)
        if self._classes is not None:
            best_reference, best = (int(np.argmax(values[self._classes])) for values in (reference, got))
            self._classify(best_reference, best, label)
            scores = reference[self._classes].ravel()
            self._given_up.append(self._probability_difference(scores, best_reference, best))

    def add_logits(self, output: int, reference: FloatArray, got: FloatArray) -> None:
        """Add the logits of one sample of an output: real values, the same shapes."""
        self._logits[output].add(reference, got)

    def _classify(self, best_reference: int, best: int, label: int | None) -> None:
        self._same += best == best_reference
        if label is not None:
            self._labelled += 1
            self._right += best == label
            self._right_float += best_reference == label
            self._worsened += best_reference == label != best
            self._improved += best == label != best_reference

    def _probability_difference(self, scores: FloatArray, first: int, second: int) -> float:
        """Return the difference of the probabilities of two classes; scores that are logits pass a softmax."""
        if first == second or not np.isfinite(scores).all():
            return float(first != second)
        if self._classes not in self._probabilities:
            scores = np.exp(scores - scores.max())
            scores = scores / scores.sum()
        return float(np.clip(scores[first] - scores[second], 0.0, 1.0))

    def result(self) -> Quality:
        """Return the metrics over all samples added."""
        samples = max(1, self._samples)
        labelled = self._labelled == self._samples and self._labelled > 0
        outputs = tuple(self._output(position) for position in range(len(self._names)))
        logits = [output.logits_snr_db for output in outputs if output.logits_snr_db is not None]
        worst = worst_output(outputs)
        return Quality(
            snr_db=None if worst is None else worst.snr_db,
            logits_snr_db=min(logits, default=None),
            cosine=self._cosines / samples,
            max_error=max((output.max_error for output in outputs), default=0.0),
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
            outputs=outputs,
            worsened=self._worsened if labelled else self._samples - self._same,
            improved=self._improved if labelled else 0,
            expected_drop=100.0 * float(np.mean(self._given_up)) if self._given_up else None,
            expected_error=100.0 * float(np.std(self._given_up)) / math.sqrt(samples) if self._given_up else 0.0,
        )

    def _output(self, position: int) -> OutputQuality:
        bounded = position in self._probabilities
        figures = self._outputs[position].result()
        if position in self._changed:
            shares = 100.0 * np.array(self._changed[position])
            changed, half = float(shares.mean()), Z * float(shares.std()) / math.sqrt(len(shares))
            return OutputQuality(
                name=self._names[position],
                kind="numbers",
                snr_db=None,
                max_error=figures.max_error,
                changed=changed,
                changed_interval=(max(0.0, changed - half), min(100.0, changed + half)),
            )
        ranked = self._ranked.get(position, "")
        kind = "classes" if position == self._classes else "probabilities" if bounded else "values"
        return OutputQuality(
            name=self._names[position],
            kind="ranked" if ranked else kind,
            snr_db=figures.snr_db,
            interval=figures.interval,
            columns=figures.columns,
            axis=figures.axis,
            ranked_by=ranked,
            logits_snr_db=self._logits[position].result().snr_db,
            max_error=figures.max_error,
            bounded=bounded,
            constant=figures.constant,
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _widen(limits: tuple[float, float], values: FloatArray) -> tuple[float, float]:
    return min(limits[0], float(values.min())), max(limits[1], float(values.max()))
