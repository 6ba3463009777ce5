"""Accuracy by class, confusions and worst samples: counted from the answers, sample by sample."""

import numpy as np

from edgepack.pipeline.class_report import WORST, ClassAccuracy, Confusion, report_classes
from edgepack.runtime.answers import AnswerMeter, Answers
from edgepack.samples import SampleSet


def samples(count: int) -> SampleSet:
    return SampleSet("x", "0", {"x": np.zeros((count, 1), np.float32)}, {"x": (1, 1)}, {"x": np.dtype(np.float32)})


def answers(
    label: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...], lost: tuple[float, ...]
) -> Answers:
    scores = (0.5,) * len(before)
    return Answers(0, 3, before, scores, after, scores, lost, label)


def test_classes_and_confusions_are_counted() -> None:
    """By label: how many each model has right, and which class was taken for which by either."""
    report = report_classes(
        answers((0, 0, 1, 1, 2), (0, 0, 1, 2, 2), (0, 1, 1, 1, 1), (0.0, 0.6, 0.0, -0.3, 0.4)), samples(5), ("a", "b")
    )
    assert report.classes == (
        ClassAccuracy(0, "a", 2, 2, 1), ClassAccuracy(1, "b", 2, 1, 2), ClassAccuracy(2, "2", 1, 1, 0),
    )  # fmt: skip
    assert report.confusions == (Confusion(0, 1, 1, 0), Confusion(2, 1, 1, 0), Confusion(1, 2, 0, 1))
    assert (report.changed, report.worsened, report.improved) == (3, 2, 1)
    assert report.to_json()["confusions"][1]["expected_label"] == "2"


def test_samples_that_became_wrong_are_the_worst() -> None:
    """First what became wrong, then what changed, then what only lost probability; what became right is not listed."""
    report = report_classes(
        answers((0, 0, 1, 1, 2, 2), (0, 0, 0, 2, 2, 2), (1, 0, 2, 1, 0, 2), (0.2, 0.9, 0.5, 0.9, 0.4, 0.001)),
        samples(6),
        (),
    )
    assert [sample.index for sample in report.worst] == [4, 0, 2, 1]
    many = 3 * WORST
    report = report_classes(answers((), (0,) * many, (1,) * many, (0.5,) * many), samples(many), ())
    assert [sample.index for sample in report.worst] == list(range(WORST))
    assert report.worst[0].label is None


def test_without_labels_the_float_model_is_right() -> None:
    """Agreement by the float model's class, said so in the document."""
    report = report_classes(answers((), (0, 0, 2), (0, 1, 2), (0.0, 0.3, 0.0)), samples(3), ())
    assert [(row.index, row.samples, row.right_float, row.right) for row in report.classes] == [
        (0, 2, 2, 1),
        (2, 1, 1, 1),
    ]
    assert report.to_json()["by"] == "float model"


def test_the_meter_records_probabilities() -> None:
    """Logits pass a softmax, probabilities do not; the loss is that of the right class; NaN is an answer like any."""
    logits, bounded = AnswerMeter(0, ()), AnswerMeter(0, {0})
    logits.add([np.log([[0.7, 0.3]])], [np.log([[0.4, 0.6]])], label=0)
    bounded.add([np.array([[0.7, 0.3]])], [np.array([[0.4, 0.6]])])
    for meter in (logits, bounded):
        result = meter.result()
        assert result is not None
        assert (result.float_class, result.file_class, result.classes) == ((0,), (1,), 2)
        assert (result.float_score, result.file_score, result.lost) == ((0.7,), (0.6,), (0.3,))
    bounded.add([np.array([[0.7, 0.3]])], [np.array([[np.nan, 0.1]])])
    result = bounded.result()
    assert result is not None
    assert result.lost[1] == 0.7
    assert AnswerMeter(None, ()).result() is None
