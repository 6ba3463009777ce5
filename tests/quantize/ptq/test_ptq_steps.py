import builders
import numpy as np
import pytest
from ptq_models import chain, residual

from edgepack.errors import UsageError
from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq.bias import correct_biases
from edgepack.quantize.ptq.layers import find_layers, own_biases, set_constants, values_of, weighted_ops
from edgepack.quantize.ptq.observe import logits, snr_db
from edgepack.quantize.ptq.rounding import fit_rounding
from edgepack.quantize.ptq.sensitivity import sensitivities
from edgepack.quantize.ptq.steps import STEPS, improve
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges

RULE = SchemeRule("int8", "INT8")


def _file(tflite: bytes, samples: list, rule: SchemeRule = RULE) -> bytes:
    return quantize(tflite, rule, choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")).tflite


def _db(tflite: bytes, made: bytes, samples: list) -> float:
    return snr_db(logits(tflite, samples), logits(made, samples))


@pytest.mark.slow
@pytest.mark.parametrize("make", [chain, residual], ids=["chain", "residual"])
def test_more_effort_loses_less(make):
    """On samples it never saw, medium is well above min/max, high not below it, at the same size within 1 %."""
    tflite = make()
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 400, seed=9)
    plain = _file(tflite, samples)
    base = _db(tflite, plain, unseen)
    found = {}
    for effort in ("low", "medium", "high"):
        done = improve(tflite, RULE, samples, effort)
        file = quantize(done.tflite, RULE, done.ranges).tflite
        assert len(file) == pytest.approx(len(plain), rel=0.01, abs=256)
        assert [step.id for step in done.steps] == [s for s in STEPS if s in {step.id for step in done.steps}]
        found[effort] = _db(tflite, file, unseen) - base
    # The margin of the scores may cost up to 1 dB where the samples happened to hold the extremes.
    assert found["low"] > -1.0
    assert found["medium"] > 1.0
    assert found["high"] > found["medium"] - 0.5


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 0.37])
def test_samples_that_never_change_still_give_a_file(value):
    """Inputs without any spread leave nothing to learn from, and that is no failure."""
    tflite = chain()
    samples = [{name: np.full_like(array, value) for name, array in builders.samples(tflite, 1)[0].items()}] * 10
    done = improve(tflite, RULE, samples, "high")
    assert read_model(quantize(done.tflite, RULE, done.ranges).tflite).main.ops


@pytest.mark.slow
def test_the_same_samples_give_the_same_bytes():
    """Two runs agree byte for byte and figure for figure."""
    tflite = chain()
    samples = builders.samples(tflite, 15)
    first, second = (improve(tflite, RULE, samples, "high") for _ in range(2))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["RELU", "RELU6"])
def test_one_scale_for_all_channels_is_saved_by_equalization(activation):
    """Per-tensor weights, channels 100 times apart: equalization alone is worth 10 dB and more on unseen samples."""
    tflite = chain(activation)
    rule = SchemeRule("int8", "INT8", "per-tensor", weights="per-tensor")
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 400, seed=9)
    plain = _file(tflite, samples, rule)
    assert all(read_model(plain).main.tensors[o.inputs[1]].quantization.scale.size == 1
               for o in weighted_ops(read_model(plain).main))  # fmt: skip
    done = improve(tflite, rule, samples, "medium", off=("bounds", "bias"))
    made = quantize(done.tflite, rule, done.ranges).tflite
    assert _db(tflite, plain, unseen) < 20
    assert _db(tflite, made, unseen) > _db(tflite, plain, unseen) + 10
    assert "equalize" in [step.id for step in done.steps if step.kept]


def test_rounded_weights_survive_the_quantizer():
    """The quantizer reads the very integers that were fitted: the file's weights are the float model's."""
    tflite = own_biases(chain())
    samples = builders.samples(tflite, 20)
    ranges = choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")
    fitted = fit_rounding(tflite, tflite, lambda model: quantize(model, RULE, ranges).tflite, samples)
    graph, made = read_model(fitted).main, read_model(quantize(fitted, RULE, ranges).tflite).main
    moved = 0
    for layer in find_layers(graph):
        tensor = made.tensors[weighted_ops(made)[layer.place].inputs[1]]
        scale = tensor.quantization.scale
        real = tensor.data.astype(np.float32) * (layer.along_output(scale) if scale.size > 1 else scale)
        np.testing.assert_allclose(real, values_of(graph, layer.weights), rtol=1e-5, atol=1e-7)
        before = layer.rows(values_of(read_model(tflite).main, layer.weights))
        plain = np.rint(before / (np.abs(before).max(axis=1, keepdims=True) / 127))
        moved += int((layer.rows(tensor.data.astype(np.float32)) != plain).sum())
    assert moved > 20


def test_biases_give_back_the_mean():
    """Weights that are all a little too large shift the scores' mean; bias correction takes the shift back."""
    tflite = own_biases(chain())
    samples = builders.samples(tflite, 30)
    graph = read_model(tflite).main
    layer = find_layers(graph)[2]
    spoilt = set_constants(tflite, {layer.weights: values_of(graph, layer.weights) + 0.05})
    ranges = choose_ranges(calibrate(spoilt, samples), read_model(spoilt), "minmax")

    def quantized(model: bytes) -> bytes:
        return quantize(model, RULE, ranges).tflite

    def shift(model: bytes) -> float:
        want, got = (np.mean([out[0] for out in logits(m, samples)], axis=0) for m in (tflite, quantized(model)))
        return float(np.abs(want - got).max())

    assert shift(correct_biases(tflite, spoilt, quantized, samples)) < 0.3 * shift(spoilt)


def test_sensitivity_finds_the_costly_place():
    """An activation given a range a hundred times too wide comes out as the costliest by far."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 10)
    ranges = choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")
    ranges["point"] = (0.0, ranges["point"][1] * 100)
    found = sensitivities(tflite, ranges, samples)
    assert (found[0].tensor, found[0].kind) == ("point", "activation")
    assert found[0].snr_db < found[1].snr_db - 10
    assert {one.kind for one in found} == {"activation", "weights"}


def test_steps_can_be_switched_off():
    """A step that is off is not tried, and with all of them off the model and min/max ranges come back."""
    tflite = chain()
    samples = builders.samples(tflite, 12)
    done = improve(tflite, RULE, samples, "medium", off=("pools", "equalize", "balance"))
    assert not {"pools", "equalize", "balance"} & {step.id for step in done.steps}
    done = improve(tflite, RULE, samples, "high", off=tuple(STEPS))
    assert (done.tflite, done.steps) == (tflite, ())
    assert done.ranges == choose_ranges(calibrate(tflite, samples, 2), read_model(tflite), "minmax")


def test_unknown_words_are_refused():
    """An effort or a step that does not exist is a usage error that lists what there is."""
    with pytest.raises(UsageError, match="unknown effort 'extreme'"):
        improve(chain(), RULE, [], "extreme")
    with pytest.raises(UsageError, match="unknown step 'magic'"):
        improve(chain(), RULE, [], "low", off=("magic",))


def test_scores_and_averages_get_room():
    """The margin widens the dense layer's range and the pool's, and nothing else; SOFTMAX's fixed range stays."""
    tflite = chain()
    samples = builders.samples(tflite, 12)
    everything_else = tuple(step for step in STEPS if step != "margin")
    plain = choose_ranges(calibrate(tflite, samples, 2), read_model(tflite), "minmax")
    done = improve(tflite, RULE, samples, "low", off=everything_else)
    assert done.steps[0].kept
    widened = {key for key, bounds in done.ranges.items() if bounds != plain[key]}
    assert widened == {"dense"}
    assert done.ranges["dense"] == pytest.approx(tuple(1.15 * bound for bound in plain["dense"]))
