import builders
import numpy as np
import pytest
from ptq_models import chain, residual

from edgepack.errors import UsageError
from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.bias_correction import correct_biases
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants, unshare_biases, weighted_ops
from edgepack.quantize.ptq.rounding import fit_rounding
from edgepack.quantize.ptq.sensitivity import sensitivities
from edgepack.quantize.ptq.steps import STEPS, improve
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import METHODS, choose_ranges

RULE = SchemeRule("int8", "INT8")


def _file(tflite: bytes, samples: list, rule: SchemeRule = RULE) -> bytes:
    return quantize(tflite, rule, choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")).tflite


def _db(tflite: bytes, quantized: bytes, samples: list) -> float:
    return snr_db(logits(tflite, samples), logits(quantized, samples))


@pytest.mark.slow
@pytest.mark.parametrize("make", [chain, residual], ids=["chain", "residual"])
def test_more_effort_loses_less(make):
    """On unseen samples, medium gains more than 1 dB over min/max and high no less, at the same size within 1 %."""
    tflite = make()
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 400, seed=9)
    plain = _file(tflite, samples)
    base = _db(tflite, plain, unseen)
    gains = {}
    for effort in ("low", "medium", "high"):
        result = improve(tflite, RULE, samples, effort)
        file = quantize(result.tflite, RULE, result.ranges).tflite
        assert len(file) == pytest.approx(len(plain), rel=0.01, abs=256)
        assert [step.id for step in result.steps] == [s for s in STEPS if s in {step.id for step in result.steps}]
        gains[effort] = _db(tflite, file, unseen) - base
    # The margin of the scores may cost up to 1 dB where the calibration samples happen to contain the extremes.
    assert gains["low"] > -1.0
    assert gains["medium"] > 1.0
    assert gains["high"] > gains["medium"] - 0.5


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 0.37])
def test_samples_that_never_change_still_give_a_file(value):
    """Constant inputs contain no information about ranges, but quantization still succeeds."""
    tflite = chain()
    samples = [{name: np.full_like(array, value) for name, array in builders.samples(tflite, 1)[0].items()}] * 10
    result = improve(tflite, RULE, samples, "high")
    assert read_model(quantize(result.tflite, RULE, result.ranges).tflite).main.ops


@pytest.mark.slow
def test_the_same_samples_give_the_same_bytes():
    """Two runs give equal bytes, ranges and step reports."""
    tflite = chain()
    samples = builders.samples(tflite, 15)
    first, second = (improve(tflite, RULE, samples, "high") for _ in range(2))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["RELU", "RELU6"])
def test_one_scale_for_all_channels_is_saved_by_equalization(activation):
    """With per-tensor weights and channel ranges 100 times apart, equalization alone gains 10 dB on unseen samples."""
    tflite = chain(activation)
    rule = SchemeRule("int8", "INT8", "per-tensor", weights="per-tensor")
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 400, seed=9)
    plain = _file(tflite, samples, rule)
    assert all(read_model(plain).main.tensors[o.inputs[1]].quantization.scale.size == 1
               for o in weighted_ops(read_model(plain).main))  # fmt: skip
    result = improve(tflite, rule, samples, "medium", off=("bounds", "bias"))
    quantized = quantize(result.tflite, rule, result.ranges).tflite
    assert _db(tflite, plain, unseen) < 20
    assert _db(tflite, quantized, unseen) > _db(tflite, plain, unseen) + 10
    assert "equalize" in [step.id for step in result.steps if step.kept]


def test_rounded_weights_survive_the_quantizer():
    """The quantizer derives the integers that were fitted: the file's weights are those of the float model."""
    tflite = unshare_biases(chain())
    samples = builders.samples(tflite, 20)
    ranges = choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")
    fitted = fit_rounding(tflite, tflite, lambda model: quantize(model, RULE, ranges).tflite, samples)
    graph, quantized = read_model(fitted).main, read_model(quantize(fitted, RULE, ranges).tflite).main
    moved = 0
    for layer in find_layers(graph):
        tensor = quantized.tensors[weighted_ops(quantized)[layer.position].inputs[1]]
        scale = tensor.quantization.scale
        real = tensor.data.astype(np.float32) * (layer.per_output_channel(scale) if scale.size > 1 else scale)
        np.testing.assert_allclose(real, constant_values(graph, layer.weights), rtol=1e-5, atol=1e-7)
        before = layer.rows(constant_values(read_model(tflite).main, layer.weights))
        plain = np.rint(before / (np.abs(before).max(axis=1, keepdims=True) / 127))
        moved += int((layer.rows(tensor.data.astype(np.float32)) != plain).sum())
    assert moved > 20


def test_biases_give_back_the_mean():
    """Weights with a constant offset shift the mean of the scores; bias correction removes the shift."""
    tflite = unshare_biases(chain())
    samples = builders.samples(tflite, 30)
    graph = read_model(tflite).main
    layer = find_layers(graph)[2]
    shifted = set_constants(tflite, {layer.weights: constant_values(graph, layer.weights) + 0.05})
    ranges = choose_ranges(calibrate(shifted, samples), read_model(shifted), "minmax")

    def quantized(model: bytes) -> bytes:
        return quantize(model, RULE, ranges).tflite

    def shift(model: bytes) -> float:
        expected, actual = (np.mean([out[0] for out in logits(m, samples)], axis=0) for m in (tflite, quantized(model)))
        return float(np.abs(expected - actual).max())

    assert shift(correct_biases(tflite, shifted, quantized, samples)) < 0.3 * shift(shifted)


def test_sensitivity_finds_the_costly_place():
    """An activation whose range is a hundred times too wide has the lowest SNR by at least 10 dB."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 10)
    ranges = choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")
    ranges["point"] = (0.0, ranges["point"][1] * 100)
    results = sensitivities(tflite, ranges, samples)
    assert (results[0].tensor, results[0].kind) == ("point", "activation")
    assert results[0].snr_db < results[1].snr_db - 10
    assert {result.kind for result in results} == {"activation", "weights"}


def test_steps_can_be_switched_off():
    """A step that is off is not tried; with all steps off the model is unchanged and ranges are min/max."""
    tflite = chain()
    samples = builders.samples(tflite, 12)
    result = improve(tflite, RULE, samples, "medium", off=("pools", "equalize", "balance"))
    assert not {"pools", "equalize", "balance"} & {step.id for step in result.steps}
    result = improve(tflite, RULE, samples, "high", off=tuple(STEPS))
    assert (result.tflite, result.steps) == (tflite, ())
    assert result.ranges == choose_ranges(calibrate(tflite, samples, 2), read_model(tflite), "minmax")


def test_unknown_words_are_refused():
    """An unknown effort or step is a usage error that lists the known ones."""
    with pytest.raises(UsageError, match="unknown effort 'extreme'"):
        improve(chain(), RULE, [], "extreme")
    with pytest.raises(UsageError, match="unknown step 'magic'"):
        improve(chain(), RULE, [], "low", off=("magic",))


def test_scores_and_averages_get_room():
    """The margin widens the range of the dense layer only; SOFTMAX's fixed range is unchanged."""
    tflite = chain()
    samples = builders.samples(tflite, 12)
    everything_else = tuple(step for step in STEPS if step != "margin")
    plain = choose_ranges(calibrate(tflite, samples, 2), read_model(tflite), "minmax")
    result = improve(tflite, RULE, samples, "low", off=everything_else)
    assert result.steps[0].kept
    widened = {key for key, bounds in result.ranges.items() if bounds != plain[key]}
    assert widened == {"dense"}
    assert result.ranges["dense"] == pytest.approx(tuple(1.15 * bound for bound in plain["dense"]))


@pytest.mark.slow
def test_a_range_method_that_fails_is_a_skipped_trial(monkeypatch):
    """One range method that cannot handle a model is reported, and the others decide."""

    def broken(statistics):
        raise IndexError("index 0 is out of bounds")

    monkeypatch.setitem(METHODS, "mse", broken)
    tflite = chain()
    step = improve(tflite, RULE, builders.samples(tflite, 12), "low", off=("margin", "bounds")).steps[0]
    assert step.id == "ranges" and "mse failed: index 0 is out of bounds" in step.detail


@pytest.mark.slow
def test_a_step_that_fails_leaves_the_result_of_the_steps_before_it(monkeypatch):
    """A step that fails on an unusual model is left out, with the reason."""

    def broken(*_args, **_options):
        raise ValueError("no such layer")

    monkeypatch.setattr("edgepack.quantize.ptq.model_builder.center_channels", broken)
    monkeypatch.setattr("edgepack.quantize.ptq.steps.plan_offsets", lambda graph: True)
    tflite = chain()
    result = improve(tflite, RULE, builders.samples(tflite, 12), "medium", off=("balance", "equalize", "bias"))
    step = next(step for step in result.steps if step.id == "center")
    assert not step.kept and "no such layer" in step.detail


@pytest.mark.slow
def test_more_effort_never_ends_worse_than_less(monkeypatch):
    """Steps that are kept at a small loss each are undone when together they lose against the lower effort."""
    monkeypatch.setattr("edgepack.quantize.ptq.steps._ACCEPTED_LOSS", 1000.0)
    monkeypatch.setattr("edgepack.quantize.ptq.model_builder.center_channels", lambda model, samples: _spoiled(model))
    monkeypatch.setattr("edgepack.quantize.ptq.steps.plan_offsets", lambda graph: True)
    tflite = chain()
    samples = builders.samples(tflite, 12)
    low, medium = (improve(tflite, RULE, samples, effort, off=("balance", "equalize")) for effort in ("low", "medium"))
    assert (medium.tflite, medium.ranges) == (low.tflite, low.ranges)
    undone = [step for step in medium.steps if step.detail.startswith("undone: effort low is better by")]
    assert "center" in {step.id for step in undone} and not any(step.kept for step in undone)


def _spoiled(tflite: bytes) -> bytes:
    """Return the model with the weights of its first layer cut to a tenth."""
    graph = read_model(tflite).main
    weights = find_layers(graph)[0].weights
    return set_constants(tflite, {weights: constant_values(graph, weights) * 0.1})


@pytest.mark.slow
def test_a_note_names_what_keeps_effort_from_helping():
    """A layer with a large constant output has too few int8 steps for what changes: it is named as the limit."""
    net = builders.Net(4)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "conv", (1, 8, 8, 3), 8)
    pooled, out = net.tensor("pooled", (1, 8)), net.tensor("dense", (1, 4))
    net.op("MEAN", [a, net.constant("axes", [1, 2], "INT32")], [pooled])
    bias = net.constant("bias", [40.0, -40.0, 40.0, -40.0])
    net.op("FULLY_CONNECTED", [pooled, net.weights("w", 4, 8), bias], [out])
    tflite = net.build([x], [out], (["x"], ["out"]))
    result = improve(tflite, RULE, builders.samples(tflite, 20), "medium")
    assert len(result.notes) == 1 and "the limit is FULLY_CONNECTED 'dense'" in result.notes[0]
    assert result.to_json()["notes"] == list(result.notes)
    assert improve(tflite, RULE, builders.samples(tflite, 20), "low").notes == ()


def test_offsets_do_not_flatter():
    """SNR is about each element's mean over the samples, and the worst output governs."""
    random = np.random.default_rng(0)
    reference = [[1000.0 + random.normal(0, 1, 4), random.normal(0, 1, 2)] for _ in range(50)]
    measured = [[one + random.normal(0, 1, 4), other] for one, other in reference]
    assert -2 < snr_db(reference, measured) < 2
    assert snr_db(reference, reference) == np.inf
    assert snr_db([[np.ones(3)]], [[np.ones(3) * 1.1]]) == pytest.approx(20.0)
