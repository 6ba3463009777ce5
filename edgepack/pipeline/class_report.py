"""What a file got wrong: accuracy by class, confusions, and the samples that lost most."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgepack.runtime.answers import Answers
from edgepack.samples import SampleSet

#: Samples of a file that are listed as its worst.
WORST = 8
#: Least loss of probability for which a sample is listed: float16 loses a ten-thousandth everywhere.
NOTICED = 0.01


@dataclass(frozen=True)
class ClassAccuracy:
    """One class.

    Attributes:
        index: Its number.
        label: Its name, the number as text where names are unknown.
        samples: Samples of the class: with its label, without labels those for which the float model chose it.
        right_float: How many of them the float model classifies as this class.
        right: How many of them the file classifies as this class.
    """

    index: int
    label: str
    samples: int
    right_float: int
    right: int


@dataclass(frozen=True)
class Confusion:
    """A class that was taken for another one.

    Attributes:
        expected: Number of the right class.
        answered: Number of the class that was chosen.
        count: How often the file chose it.
        count_float: How often the float model chose it.
    """

    expected: int
    answered: int
    count: int
    count_float: int


@dataclass(frozen=True)
class WorstSample:
    """A sample whose right class lost probability.

    Attributes:
        index: Position in the samples, counted from 0.
        file: Name of the image file, empty for samples of an array.
        label: Its label, None without labels.
        float_class: Class of the float model.
        float_score: Its probability.
        file_class: Class of the file.
        file_score: Its probability.
        lost: How much less probable the right class is in the file, 0..1.
    """

    index: int
    file: str
    label: int | None
    float_class: int
    float_score: float
    file_class: int
    file_score: float
    lost: float


@dataclass(frozen=True)
class ClassReport:
    """The answers of a file beside the float model's.

    Attributes:
        by_label: True when labels say which class is right, False when the float model does.
        names: Name of each class; a number where it is unknown.
        samples: Number of samples.
        changed: Samples with another class than the float model's.
        worsened: Samples that only the float model has right; without labels the same as `changed`.
        improved: Samples that only the file has right.
        classes: Classes that have samples, by number.
        confusions: Pairs of different classes, the most frequent of the file first.
        worst: Samples that lost most: first those that became wrong, then those whose class changed, then the others;
            in each group the largest `lost` first. A sample that kept its class counts from a loss of `NOTICED` on.
    """

    by_label: bool
    names: tuple[str, ...]
    samples: int
    changed: int
    worsened: int
    improved: int
    classes: tuple[ClassAccuracy, ...]
    confusions: tuple[Confusion, ...]
    worst: tuple[WorstSample, ...]

    def to_json(self) -> dict[str, Any]:
        """Return `classes` of an entry of `compare --json`."""
        return {
            "by": "label" if self.by_label else "float model",
            "samples": self.samples,
            "changed": self.changed,
            "worsened": self.worsened,
            "improved": self.improved,
            "accuracy": [asdict(entry) for entry in self.classes],
            "confusions": [
                {
                    **asdict(pair),
                    "expected_label": self.names[pair.expected],
                    "answered_label": self.names[pair.answered],
                }
                for pair in self.confusions
            ],
            "worst": [
                {
                    **asdict(sample),
                    "label_text": None if sample.label is None else self.names[sample.label],
                    "float_label": self.names[sample.float_class],
                    "file_label": self.names[sample.file_class],
                }
                for sample in self.worst
            ],
        }


def report_classes(answers: Answers, samples: SampleSet, labels: Sequence[str]) -> ClassReport:
    """Return the report of a file's answers.

    Args:
        answers: What the float model and the file answered.
        samples: The samples, for the names of image files.
        labels: Names of the classes in order, empty when they are unknown.
    """
    expected = answers.expected
    # A label that is no class of the output still has a row.
    count = max(answers.classes, max(expected) + 1)
    names = tuple(labels[at] if at < len(labels) else str(at) for at in range(count))
    rows = list(zip(expected, answers.float_class, answers.file_class, strict=True))
    total = Counter(expected)
    right_float = Counter(right for right, before, _ in rows if before == right)
    right_file = Counter(right for right, _, after in rows if after == right)
    pairs = Counter((right, after) for right, _, after in rows if after != right)
    pairs_float = Counter((right, before) for right, before, _ in rows if before != right)
    confusions = [Confusion(*pair, pairs[pair], pairs_float[pair]) for pair in {**pairs, **pairs_float}]
    return ClassReport(
        by_label=bool(answers.labels),
        names=names,
        samples=len(rows),
        changed=sum(before != after for _, before, after in rows),
        worsened=sum(before == right != after for right, before, after in rows),
        improved=sum(after == right != before for right, before, after in rows),
        classes=tuple(ClassAccuracy(at, names[at], total[at], right_float[at], right_file[at]) for at in sorted(total)),
        confusions=tuple(
            sorted(confusions, key=lambda pair: (-pair.count, -pair.count_float, pair.expected, pair.answered))
        ),
        worst=_worst(answers, samples),
    )


def _worst(answers: Answers, samples: SampleSet) -> tuple[WorstSample, ...]:
    def rank(index: int) -> tuple[int, float, int]:
        right, before, after = expected[index], answers.float_class[index], answers.file_class[index]
        group = 0 if before == right != after else 1 if before != after else 2
        return group, -answers.lost[index], index

    expected = answers.expected
    lost = [
        index
        for index, (right, before, after) in enumerate(
            zip(expected, answers.float_class, answers.file_class, strict=True)
        )
        # A sample that became right is no loss, whatever the probabilities say.
        if (before != after or answers.lost[index] >= NOTICED) and not before != right == after
    ]
    return tuple(
        WorstSample(
            index=index,
            file=samples.images[index].name if samples.images else "",
            label=answers.labels[index] if answers.labels else None,
            float_class=answers.float_class[index],
            float_score=answers.float_score[index],
            file_class=answers.file_class[index],
            file_score=answers.file_score[index],
            lost=answers.lost[index],
        )
        for index in sorted(lost, key=rank)[:WORST]
    )
