"""SNR of each output about its mean, of columns of different variation, and its sampling error."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepack.graph import read_model
from edgepack.runtime.class_scores import OutputKinds, labelled_vector, output_kinds
from edgepack.runtime.columns import column_axes, column_groups
from edgepack.runtime.confidence import paired_interval, wilson_interval
from edgepack.runtime.metrics import Quality, QualityMeter
from edgepack.runtime.signal import LOWEST_SNR, SignalMeter

RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Give every test the same numbers, whichever tests ran before it."""
    RNG.bit_generator.state = np.random.default_rng(3).bit_generator.state


def measured(expected: np.ndarray, got: np.ndarray, *, columns: bool = True):
    meter = SignalMeter(columns=columns)
    for one, other in zip(expected, got, strict=True):
        meter.add(one[None].astype(np.float64), other[None].astype(np.float64))
    return meter.result()


def about_mean(expected: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected - expected.mean(0)).sum() / np.square(expected - got).sum()))


def test_a_constant_offset_is_no_signal() -> None:
    """A forecast around 1013 is judged by its variation; the figure equals the formula on all samples together."""
    truth = 1013 + 5 * RNG.normal(size=(300, 1))
    got = truth + RNG.normal(size=truth.shape)
    assert measured(truth, got).snr_db == pytest.approx(about_mean(truth, got), abs=1e-9)
    assert 12 < about_mean(truth, got) < 16


def test_outputs_are_not_pooled() -> None:
    """Scores that are lost beside boxes in pixels are found and named, and the worst output is the model's figure."""
    meter = QualityMeter(["boxes", "scores"], None, {1})
    for _ in range(50):
        boxes, scores = 400 * RNG.normal(size=(1, 16, 4)), RNG.random((1, 16, 2))
        meter.add([boxes, scores], [boxes + RNG.normal(size=boxes.shape), np.full_like(scores, 0.5)])
    quality = meter.result()
    figures = {output.name: output.snr_db for output in quality.outputs}
    assert figures["boxes"] > 45
    assert figures["scores"] == pytest.approx(0, abs=1)
    assert quality.snr_db == figures["scores"]
    assert quality.to_json()["worst_output"] == "scores"
    assert [entry["kind"] for entry in quality.to_json()["outputs"]] == ["values", "probabilities"]


@pytest.mark.parametrize("axis", [1, 2])
def test_columns_of_different_kinds_are_judged_separately(axis: int) -> None:
    """Scores joined to boxes in one tensor are found on either axis, as detectors have both layouts."""
    joined = np.concatenate([300 * RNG.normal(size=(60, 90, 4)), RNG.random((60, 90, 80))], axis=2)
    step = joined.max() / 127
    got = np.round(joined / step) * step
    if axis == 1:
        joined, got = joined.transpose(0, 2, 1), got.transpose(0, 2, 1)
    result = measured(joined, got)
    assert result.axis == axis
    assert result.columns == tuple(range(4, 84))
    assert result.snr_db is not None and result.snr_db < 0 < 30 < about_mean(joined, got)


def test_two_regression_values_in_one_vector() -> None:
    """Of two values whose sizes differ by two orders, the lost one is named."""
    values = RNG.normal(size=(200, 2)) * [100.0, 1.0]
    result = measured(values, values + RNG.normal(size=values.shape) * 2)
    assert result.columns == (1,)
    assert result.snr_db == pytest.approx(-6, abs=1)


@pytest.mark.parametrize("kind", ["logits", "embedding", "constant columns", "one rare element"])
def test_columns_of_one_kind_raise_no_alarm(kind: str) -> None:
    """1,000 logits, a ReLU embedding with dead and rare elements, and constant columns are judged as a whole."""
    sizes = {"logits": RNG.uniform(0.5, 4, 1000), "embedding": RNG.lognormal(0, 1, 1280)}.get(kind, np.ones(64))
    values = RNG.normal(size=(100, len(sizes))) * sizes
    if kind == "embedding":
        values = np.maximum(values - sizes, 0)
        values[:, RNG.choice(1280, 40, replace=False)] = 0.0
    if kind == "constant columns":
        values[:, 3:9] = 7.0
    if kind == "one rare element":
        values[:, 30] *= 1e-3
    step = np.abs(values).max() / 127
    got = np.round(values / step) * step + RNG.normal(size=values.shape) * step / 4
    result = measured(values, got)
    assert result.columns == ()
    assert result.snr_db == pytest.approx(about_mean(values, got), abs=1e-9)


def test_nested_kinds_of_columns() -> None:
    """A concatenation of inputs of four sizes has four groups."""
    spread = np.repeat([1.0, 10.0, 100.0, 1000.0], [2, 4, 6, 8])
    assert [len(group) for group in column_groups(spread, spread)] == [8, 6, 4, 2]


def test_axes_that_may_hold_columns() -> None:
    """The last axis does, of three the shorter second one too; positions and pixels are no columns."""
    assert column_axes((1, 84, 8400)) == (1,)
    assert column_axes((1, 8400, 84)) == (2,)
    assert column_axes((1, 20, 64)) == (2, 1)
    assert column_axes((1, 257, 257, 21)) == (3,)
    assert column_axes((1, 1)) == column_axes(()) == ()


def test_values_that_are_not_finite_are_the_lowest_snr() -> None:
    """NaN and infinity of the converted model count as lost; those of the float model are no reference."""
    values = RNG.normal(size=(20, 3))
    broken = values.copy()
    broken[4, 1] = math.nan
    assert measured(values, broken).snr_db == LOWEST_SNR
    assert measured(broken, values).snr_db is None


def test_constant_outputs_and_single_samples() -> None:
    """Without variation over the samples, the SNR is that about zero, or of one sample that about the elements."""
    anchors = np.tile(RNG.random((1, 10, 4)), (30, 1, 1))
    result = measured(anchors, anchors + 0.01)
    assert result.constant
    assert result.snr_db is not None and result.snr_db > 30
    one = RNG.normal(size=(1, 50))
    assert measured(one, one + 0.1).snr_db == pytest.approx(20, abs=3)


def test_the_interval_covers_the_true_snr() -> None:
    """Of 200 draws of 60 samples, the 95 % interval holds the SNR of many samples in at least 90 %."""
    covered = 0
    for _ in range(200):
        values = RNG.normal(size=(60, 4))
        result = measured(values, values + 0.3 * RNG.normal(size=values.shape), columns=False)
        assert result.interval is not None
        covered += result.interval[0] <= -20 * math.log10(0.3) <= result.interval[1]
    assert covered >= 180


def test_intervals_of_shares() -> None:
    """Wilson's interval has its published values; that of a paired loss has zero inside where gains equal losses."""
    assert wilson_interval(0, 10) == pytest.approx((0.0, 27.75), abs=0.01)
    assert wilson_interval(15, 50) == pytest.approx((19.10, 43.75), abs=0.01)
    low, high = paired_interval(3, 3, 200)
    assert low < 0 < high
    assert paired_interval(20, 2, 200)[0] > 0


def test_a_drop_has_an_interval() -> None:
    """With labels the loss is paired over the samples, without them it is the share of other classes."""
    meter, unlabelled = QualityMeter(["p"], 0), QualityMeter(["p"], 0)
    for number in range(100):
        expected, got = np.eye(2)[[0]], np.eye(2)[[int(number < 10)]]
        meter.add([expected], [got], 0)
        unlabelled.add([expected], [got])
    assert meter.result().drop == 10.0
    assert meter.result().drop_interval == pytest.approx(paired_interval(10, 0, 100))
    assert unlabelled.result().drop_interval == pytest.approx(wilson_interval(10, 100))
    assert Quality(30.0, 1.0, 0.1, None, None, None, 10).drop_interval is None


@pytest.mark.parametrize(
    ("shapes", "label", "expected"),
    [
        ([(1, 10)], 9, 0),
        ([(1, 4), (1, 10)], 9, 1),
        ([(1, 1)], None, None),
        ([(1, 5, 5, 2)], None, None),
        ([(1, 10)], 12, None),
    ],
)
def test_which_output_has_a_value_for_each_label(
    shapes: list[tuple[int, ...]], label: int | None, expected: int | None
) -> None:
    """The output with class scores is a vector with a value for every label."""
    assert labelled_vector(shapes, label) == expected


def test_a_vector_is_no_class_output_without_a_reason() -> None:
    """A SOFTMAX at the end, class names or labels are reasons; a vector alone is none."""
    graph = read_model((Path(__file__).resolve().parents[1] / "data/digits_float.tflite").read_bytes()).main
    kinds = output_kinds(graph, [(1, 10)])
    assert (kinds.classes, kinds.probabilities) == (0, frozenset({0}))
    (softmax,) = [op for op in graph.ops if op.name == "SOFTMAX"]
    logits = replace(graph, outputs=(softmax.inputs[0],))
    assert output_kinds(logits, [(1, 10)]) == OutputKinds(None, frozenset())
    assert output_kinds(logits, [(1, 10)], {0}).classes == 0
    assert output_kinds(logits, [(1, 10)], highest_label=9).classes == 0
    assert output_kinds(logits, [(1, 10)], highest_label=12).classes is None


@pytest.mark.parametrize("probabilities", [True, False])
def test_the_expected_loss_counts_what_the_float_model_was_sure_of(probabilities: bool) -> None:
    """Another class costs the difference of the float model's probabilities, of logits after a softmax."""
    meter = QualityMeter(["p"], 0, {0} if probabilities else ())
    for sure in (0.55, 0.95):
        scores = np.array([[sure, 1 - sure]])
        expected = scores if probabilities else np.log(scores) + 7
        meter.add([expected], [expected[:, ::-1]])
        meter.add([expected], [expected])
    quality = meter.result()
    assert quality.expected_drop == pytest.approx(100 * (0.1 + 0.9) / 4)
    assert quality.expected_interval is not None and quality.expected_interval[1] > quality.expected_drop


def test_class_numbers_are_counted_and_not_measured_in_db() -> None:
    """Of a map of class numbers the share that differs counts, whichever class it is; integers have no SNR."""
    meter = QualityMeter(["map"], None, numbers=[0])
    for _ in range(40):
        classes = RNG.integers(0, 21, (1, 10, 10)).astype(np.float64)
        got = classes.copy()
        got[0, 0, 0] = 20 - classes[0, 0, 0] + (classes[0, 0, 0] == 10)
        meter.add([classes], [got])
    (output,) = meter.result().outputs
    assert (output.kind, output.snr_db) == ("numbers", None)
    assert output.changed == pytest.approx(1.0)
    assert meter.result().snr_db is None


def test_ranked_outputs_are_recognized() -> None:
    """What depends on TOPK_V2 is ranked; ARG_MAX gives numbers."""
    graph = read_model((Path(__file__).resolve().parents[1] / "data/digits_float.tflite").read_bytes()).main
    (softmax,) = [op for op in graph.ops if op.name == "SOFTMAX"]
    ops = tuple(replace(op, name="TOPK_V2") if op is softmax else op for op in graph.ops)
    assert output_kinds(replace(graph, ops=ops), [(1, 10)]).ranked == {0: "TOPK_V2"}
    tensors = tuple(replace(t, dtype="INT64") if t.index in graph.outputs else t for t in graph.tensors)
    assert output_kinds(replace(graph, tensors=tensors), [(1, 1)]).numbers == {0}
