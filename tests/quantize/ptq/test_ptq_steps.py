"""The search tries one step after another, and keeps those whose gain on other samples is more than chance."""

import builders
import numpy as np
import pytest
from ptq_models import PER_TENSOR, RULE, applied, chain, gated, kinds, minmax, residual, subject

from edgepack.choices import Effort
from edgepack.errors import QuantizationError, UsageError
from edgepack.graph import read_model
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq import folds, reconstruction, steps
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.bias_correction import correct_biases
from edgepack.quantize.ptq.checkpoint import Checkpoint
from edgepack.quantize.ptq.last_layers import SCORES
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants, unshare_biases, weighted_ops
from edgepack.quantize.ptq.model_ranges import MARGIN
from edgepack.quantize.ptq.scoring import Keep
from edgepack.quantize.ptq.sensitivity import sensitivities
from edgepack.quantize.ptq.step import Step
from edgepack.quantize.ptq.steps import EFFORTS, STEPS, Improved, improve
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import METHODS, choose_ranges

IDS = [step.id for step in STEPS]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn little and judge on two folds: for tests of what runs, not of how well it does."""
    monkeypatch.setattr(reconstruction, "FEWEST_STEPS", 4)
    monkeypatch.setattr(reconstruction, "MOST_STEPS", 4)
    monkeypatch.setattr(folds, "MOST_FOLDS", 2)


def _file(tflite: bytes, samples: list, rule=RULE) -> bytes:
    return quantize(tflite, rule, minmax(tflite, samples)).tflite


def _improved(result: Improved, rule=RULE) -> bytes:
    return quantize(result.tflite, rule, result.ranges).tflite


def _db(tflite: bytes, quantized: bytes, samples: list) -> float:
    return snr_db(logits(tflite, samples), logits(quantized, samples))


class Scripted(Step):
    """A step with an effect of the test's choice."""

    source = "test"

    def __init__(self, id: str, effect, effort: Effort = Effort.LOW) -> None:
        self.id, self.effect, self.effort = id, effect, effort

    def configurations(self, subject, kept):
        return [{self.id: "on"}]

    def apply(self, fit, setting, view, subject):
        return self.effect(fit)


class WideRanges(Scripted):
    """The base of every trial, eight times as wide as what the samples contain."""

    def configurations(self, subject, kept):
        return []

    def apply(self, fit, setting, view, subject):
        plain = choose_ranges(view.calibration(fit.reference), read_model(fit.reference), "minmax")
        return _scaled(_with(fit, ranges=plain), 8.0)


def _with(fit, **changes):
    from dataclasses import replace

    return replace(fit, **changes)


def _scaled(fit, factor: float):
    return _with(fit, ranges={key: (low * factor, high * factor) for key, (low, high) in fit.ranges.items()})


def _scripted(monkeypatch, *effects: Step) -> None:
    monkeypatch.setattr(steps, "STEPS", (WideRanges("ranges", None), *effects))


def _fail(fit):
    raise ValueError("no such layer")


def test_only_what_gains_is_kept(monkeypatch):
    """Of four steps, the one without effect, the one with a loss and the one that fails are left out, with figures."""
    tflite = chain("RELU", 2.0)
    _scripted(
        monkeypatch,
        Scripted("nothing", lambda fit: fit),
        Scripted("loss", lambda fit: _scaled(fit, 3.0)),
        Scripted("failure", _fail),
        Scripted("gain", lambda fit: _scaled(fit, 0.25)),
    )
    samples = builders.samples(tflite, 20)
    result = improve(tflite, RULE, samples, "low")
    trials = {trial.id: trial for trial in result.steps}
    assert {name: trial.kept for name, trial in trials.items()} == {
        "nothing": False, "loss": False, "failure": False, "gain": True,
    }  # fmt: skip
    assert trials["nothing"].gain_db == 0.0
    assert trials["loss"].gain_db < -5
    assert trials["gain"].gain_db > 5
    assert trials["failure"].detail == "on failed: no such layer"
    plain = minmax(tflite, samples)
    assert result.ranges == {key: pytest.approx((2 * low, 2 * high)) for key, (low, high) in plain.items()}
    (gain,) = (step for step in result.to_json()["steps"] if step["step"] == "gain")
    assert gain["kept"] and gain["snr_db"] == round(trials["gain"].snr_db, 2) and gain["source"] == "test"


def test_a_step_is_judged_on_samples_that_it_has_not_seen(monkeypatch):
    """Each sample is judged by a fit to the others: what fits its own samples only does not gain."""
    seen: list[tuple[int, tuple[int, ...]]] = []

    class Watching(Scripted):
        def apply(self, fit, setting, view, subject):
            seen.append((len(view.samples), view.held_out))
            return fit

    tflite = chain("RELU", 2.0)
    _scripted(monkeypatch, Watching("watching", None))
    improve(tflite, RULE, builders.samples(tflite, 20), "low")
    held = sorted(position for _, held_out in seen for position in held_out)
    assert held == list(range(20))
    assert all(count + len(held_out) == 20 for count, held_out in seen)


def test_a_step_that_is_replaced_does_not_count_as_kept(monkeypatch):
    """A later step may leave an earlier one out; the report then names the later one only."""

    class Instead(Scripted):
        def configurations(self, subject, kept):
            return [{self.id: "on", "before": None}]

    tflite = chain("RELU", 2.0)
    _scripted(
        monkeypatch,
        Scripted("before", lambda fit: _scaled(fit, 0.5)),
        Instead("after", lambda fit: _scaled(fit, 0.25)),
    )
    before, after = improve(tflite, RULE, builders.samples(tflite, 20), "low").steps
    assert (before.kept, after.kept) == (False, True)
    assert before.gain_db > 0 and before.detail == "on; replaced by a later step"


def test_settings_of_another_search_are_taken_where_they_gain(monkeypatch):
    """They are tried at once and end the search; where they gain nothing it starts anew. The report says which."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 20)
    _scripted(
        monkeypatch, Scripted("gain", lambda fit: _scaled(fit, 0.5)), Scripted("loss", lambda fit: _scaled(fit, 4.0))
    )
    first = improve(tflite, RULE, samples, "low")
    assert first.settings.keys() >= {"gain"} and first.to_json()["kept"] == ["gain"]
    taken = improve(tflite, RULE, samples, "low", settings=first.settings)
    assert [(trial.id, trial.kept) for trial in taken.steps] == [("settings", True)]
    assert (taken.tflite, taken.ranges, taken.settings) == (first.tflite, first.ranges, first.settings)
    refused = improve(tflite, RULE, samples, "low", settings={"ranges": "minmax", "loss": "on"})
    assert [(trial.id, trial.kept) for trial in refused.steps] == [("settings", False), ("gain", True), ("loss", False)]
    assert refused.ranges == first.ranges


def _shifted(fit, amount: float):
    """Move all scores, as errors do that many layers cause together."""
    last = find_layers(read_model(fit.tflite).main)[-1]
    bias = constant_values(read_model(fit.tflite).main, last.bias)
    return _with(fit, tflite=set_constants(fit.tflite, {last.bias: bias + np.float32(amount)}))


class ShiftedScores(WideRanges):
    """The base of every trial, too wide and with scores that are much too high."""

    def apply(self, fit, setting, view, subject):
        return _shifted(super().apply(fit, setting, view, subject), 4.0)


def test_a_gain_that_a_shift_of_the_scores_hides_is_found(monkeypatch):
    """Narrower ranges gain nothing beside a shift of all scores; once it is gone, they are kept with the rest."""
    tflite = chain("RELU", 2.0)
    narrow = Scripted("narrow", lambda fit: _scaled(fit, 0.25))
    monkeypatch.setattr(steps, "STEPS", (ShiftedScores("ranges", None), narrow, SCORES))
    samples = builders.samples(tflite, 20)
    result = improve(tflite, RULE, samples, "low")
    trials = [(trial.id, trial.kept) for trial in result.steps]
    assert trials == [("narrow", False), ("scores", True), ("without shift", True)]
    assert result.steps[-1].gain_db > 3 and result.to_json()["kept"] == ["narrow", "scores"]
    alone = improve(tflite, RULE, samples, "low", off=["scores"])
    assert [(trial.id, trial.kept) for trial in alone.steps] == [("narrow", False)]


def test_what_only_a_shift_could_justify_is_not_taken(monkeypatch):
    """Steps chosen by errors without their shift lose to the others where `scores` cannot take the shift away."""
    tflite = chain("RELU", 2.0)
    # Better about the mean, and shifted for good: the step comes after the one that corrects shifts.
    bad = Scripted("bad", lambda fit: _shifted(_scaled(fit, 0.5), 3.0))
    monkeypatch.setattr(steps, "STEPS", (WideRanges("ranges", None), SCORES, bad))
    result = improve(tflite, RULE, builders.samples(tflite, 20), "low")
    assert "bad" not in result.to_json()["kept"]
    assert [trial.kept for trial in result.steps if trial.id == "without shift"] in ([], [False])


def test_more_effort_tries_steps_together(monkeypatch):
    """Steps that lose one at a time and gain together are kept by medium; what the others do not need is left out."""

    class Key(Scripted):
        def apply(self, fit, setting, view, subject):
            return _with(fit, ranges={**fit.ranges, "opened": (0.0, 1.0)})

    class Door(Scripted):
        def apply(self, fit, setting, view, subject):
            return _scaled(fit, 0.25 if "opened" in fit.ranges else 2.0)

    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 20)
    needless = Scripted("needless", lambda fit: _scaled(fit, 2.0), Effort.MEDIUM)
    _scripted(monkeypatch, Key("key", None), needless, Door("door", None, Effort.MEDIUM))
    low = improve(tflite, RULE, samples, "low")
    assert not [trial for trial in low.steps if trial.kept]
    medium = improve(tflite, RULE, samples, "medium")
    assert [(trial.id, trial.kept) for trial in medium.steps][:2] == [("key", False), ("together", True)]
    narrower = tuple(0.25 * bound for bound in low.ranges["conv"])
    assert medium.ranges["conv"] == pytest.approx(narrower)


@pytest.mark.slow
@pytest.mark.parametrize("make", [chain, residual], ids=["chain", "residual"])
def test_no_effort_is_worse_than_less(make, quick):
    """On unseen samples, low is no worse than TFLiteConverter's min/max and medium no worse than low, at its size."""
    tflite = make()
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 400, seed=9)
    plain = _file(tflite, samples)
    figures = [_db(tflite, plain, unseen)]
    for effort in ("low", "medium"):
        file = _improved(improve(tflite, RULE, samples, effort, off=("center", "absorb", "bias")))
        assert len(file) == pytest.approx(len(plain), rel=0.01, abs=1024)
        figures.append(_db(tflite, file, unseen))
    # Chance: other draws of 40 samples move single figures by half a decibel.
    assert figures[1] > figures[0] - 0.5
    assert figures[2] > max(figures[0] + 1.0, figures[1] - 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "effort"), [(kinds, "low"), (gated, "low"), (kinds, "high"), (gated, "high")])
def test_every_effort_runs_on_every_op(make, effort, quick):
    """SiLU, squeeze and excite, TILE, upsampling, grouped and transposed layers: all steps run, and none fails."""
    tflite = make()
    samples = builders.samples(tflite, 6)
    result = improve(tflite, RULE, samples, effort)
    assert not [trial for trial in result.steps if "failed" in trial.detail]
    tried = {trial.id for trial in result.steps}
    assert "rounding" in tried
    # Ranges by noise may be a part of the channel scales' trial already.
    assert effort == "low" or ({"bias", "reconstruct"} <= tried and {"balance", "bounds"} & tried)
    assert _db(tflite, _improved(result), samples) > _db(tflite, _file(tflite, samples), samples) - 0.5


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_few_samples_lose_nothing(count):
    """With 2 to 9 samples, on unseen ones, low is no worse than min/max of the same samples: it is judged on others."""
    tflite = chain("RELU", 2.0)
    samples, unseen = builders.samples(tflite, count), builders.samples(tflite, 150, seed=9)
    result = improve(tflite, RULE, samples, "low", off=("equalize",))
    assert not [trial for trial in result.steps if "failed" in trial.detail]
    assert _db(tflite, _improved(result), unseen) > _db(tflite, _file(tflite, samples), unseen) - 0.2


@pytest.mark.slow
def test_one_sample_is_enough_for_a_file(quick):
    """A single sample is what steps are fitted to and judged on; all of them run."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 1)
    result = improve(tflite, RULE, samples, "high")
    assert not [trial for trial in result.steps if "failed" in trial.detail]
    assert _db(tflite, _improved(result), samples) > _db(tflite, _file(tflite, samples), samples) - 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("value", "effort"), [(0.0, "low"), (0.37, "high")])
def test_samples_that_never_change_still_give_a_file(value, effort, quick):
    """Constant inputs contain no information about ranges, but quantization still succeeds."""
    tflite = chain()
    samples = [{name: np.full_like(array, value) for name, array in builders.samples(tflite, 1)[0].items()}] * 10
    assert read_model(_improved(improve(tflite, RULE, samples, effort))).main.ops


def test_the_same_samples_give_the_same_bytes():
    """Two runs give equal bytes, ranges and step reports."""
    tflite = chain()
    samples = builders.samples(tflite, 12)
    first, second = (improve(tflite, RULE, samples, "low") for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_learning_gives_the_same_bytes_again(quick, monkeypatch):
    """Gradients and learning repeat to the last bit, also where a run continues one that was killed half way."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 6)
    off = ("center", "equalize", "absorb", "margin", "bias", "bounds")
    parts: list[tuple[str, bytes]] = []
    trained: list[int] = []
    learn = reconstruction._Learner.train
    monkeypatch.setattr(reconstruction._Learner, "train", lambda self: trained.append(1) or learn(self))
    kept = Checkpoint(None, lambda name, data: parts.append((name, data)))
    first, second = (improve(tflite, RULE, samples, "high", off=off, checkpoint=keep) for keep in (kept, None))
    assert {"balance", "reconstruct"} <= {trial.id for trial in first.steps}
    assert first == second
    whole = len(trained) // 2
    # What was being written when the process was killed is damaged, and computed again.
    killed = [*parts[: len(parts) - 3], (parts[-3][0], parts[-3][1][:-100])]
    assert improve(tflite, RULE, samples, "high", off=off, checkpoint=Checkpoint(dict(killed))) == first
    assert 0 < len(trained) - 2 * whole < whole


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["RELU", "RELU6"])
def test_one_scale_for_all_channels_is_saved_by_equalization(activation):
    """With per-tensor weights and channel ranges 100 times apart, effort low gains 10 dB on unseen samples."""
    tflite = chain(activation)
    rule = PER_TENSOR
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 400, seed=9)
    plain = _file(tflite, samples, rule)
    assert all(read_model(plain).main.tensors[o.inputs[1]].quantization.scale.size == 1
               for o in weighted_ops(read_model(plain).main))  # fmt: skip
    result = improve(tflite, rule, samples, "low")
    quantized = quantize(result.tflite, rule, result.ranges).tflite
    assert _db(tflite, plain, unseen) < 20
    assert _db(tflite, quantized, unseen) > _db(tflite, plain, unseen) + 10
    assert "equalize" in [step.id for step in result.steps if step.kept]


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
    result = improve(tflite, RULE, samples, "low", off=("rounding", "equalize"))
    assert not {"rounding", "equalize"} & {step.id for step in result.steps}
    result = improve(tflite, RULE, samples, "high", off=IDS)
    assert (result.tflite, result.steps) == (tflite, ())
    assert result.ranges == choose_ranges(calibrate(tflite, samples, 2), read_model(tflite), "minmax")


def test_unknown_words_are_refused():
    """An unknown effort or step is a usage error that lists the known ones."""
    with pytest.raises(UsageError, match="unknown effort 'extreme'"):
        improve(chain(), RULE, [], "extreme")
    with pytest.raises(UsageError, match="unknown step 'magic'"):
        improve(chain(), RULE, [], "low", off=("magic",))


def test_steps_have_names_of_their_own_and_a_source():
    """No two steps share an id, each says where it comes from, and efforts run from low to high."""
    assert len(set(IDS)) == len(IDS)
    assert all(step.source and step.effort in EFFORTS for step in STEPS)


def test_scores_and_averages_get_room():
    """The margin widens the range of the dense layer only; SOFTMAX's fixed range is unchanged."""
    tflite = chain()
    about = subject(tflite, builders.samples(tflite, 12))
    plain = minmax(about.tflite, about.samples)
    ((change),) = MARGIN.configurations(about, {})
    result = applied(MARGIN, change["margin"], about, plain)
    widened = {key for key, bounds in result.ranges.items() if bounds != plain[key]}
    assert widened == {"dense"}
    assert result.ranges["dense"] == pytest.approx(tuple(1.15 * bound for bound in plain["dense"]))


def test_insurance_is_kept_where_samples_show_no_loss(monkeypatch):
    """A step for samples rarer than a hundred is kept with a loss of nothing much; one that loses more is not."""

    class Insurance(Scripted):
        keep = Keep.NO_LOSS

    tflite = chain("RELU", 2.0)
    _scripted(
        monkeypatch,
        Scripted("gain", lambda fit: _scaled(fit, 0.125)),
        Insurance("cheap", lambda fit: _with(fit, ranges={**fit.ranges, "dense": _wide(fit.ranges["dense"], 1.02)})),
        Insurance("costly", lambda fit: _with(fit, ranges={**fit.ranges, "dense": _wide(fit.ranges["dense"], 8.0)})),
    )
    trials = {trial.id: trial for trial in improve(tflite, RULE, builders.samples(tflite, 20), "low").steps}
    assert {name: trial.kept for name, trial in trials.items()} == {"gain": True, "cheap": True, "costly": False}
    assert trials["cheap"].gain_db < 0.2 and MARGIN.keep is Keep.NO_LOSS


def _wide(bounds, factor: float):
    return bounds[0] * factor, bounds[1] * factor


def test_a_gain_that_few_samples_leave_open_is_judged_on_all(monkeypatch):
    """In a larger network one third of the samples judges; what it cannot tell from chance, all of them decide."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 30)
    judged: list[int] = []

    class Uneven(Scripted):
        """A gain, but a loss on the first view, which judges every third sample."""

        def apply(self, fit, setting, view, subject):
            judged.append(len(view.held_out))
            return _scaled(fit, 0.25)

    monkeypatch.setattr(folds, "FOLD_WORK", 0.0)
    _scripted(monkeypatch, Uneven("uneven", None))
    beats = steps.Score.beats
    few = len(samples) // 3
    monkeypatch.setattr(
        steps.Score, "beats", lambda self, other, keep: len(self.errors) > few and beats(self, other, keep)
    )
    (trial,) = improve(tflite, RULE, samples, "low").steps
    assert trial.kept and judged[:3] == [few] * 3
    # A network that is too large for that stays with one third.
    monkeypatch.setattr(folds, "CHEAP_WORK", 0.0)
    (trial,) = improve(tflite, RULE, samples, "low").steps
    assert not trial.kept


def test_a_range_method_that_fails_is_a_skipped_trial(monkeypatch):
    """One range method that cannot handle a model is reported, and the others decide."""

    def broken(statistics):
        raise IndexError("index 0 is out of bounds")

    monkeypatch.setitem(METHODS, "mse", broken)
    tflite = chain()
    off = tuple(step for step in IDS if step != "ranges")
    (step,) = improve(tflite, RULE, builders.samples(tflite, 12), "low", off=off).steps
    assert step.id == "ranges" and "mse failed: index 0 is out of bounds" in step.detail


def test_another_quantizer_can_make_the_files():
    """Trials are files of the quantizer that is given, and its refusal of the first is the caller's."""
    made = []

    def make(tflite, rule, ranges):
        made.append(rule)
        return quantize(tflite, rule, ranges).tflite

    tflite = chain()
    samples = builders.samples(tflite, 12)
    off = tuple(step for step in IDS if step != "ranges")
    result = improve(tflite, RULE, samples, "low", off=off, quantize_file=make)
    assert result == improve(tflite, RULE, samples, "low", off=off)
    assert len(made) == 20  # four methods on five folds

    def refuse(tflite, rule, ranges):
        raise QuantizationError("not this model")

    with pytest.raises(QuantizationError, match="not this model"):
        improve(tflite, RULE, samples, "low", quantize_file=refuse)


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


def test_a_trial_that_loses_on_the_first_folds_stops_there(monkeypatch):
    """It is reported with the gain on those samples; one that might still gain is judged on all."""
    judged: list[int] = []
    errors = steps.Judge.errors

    def counted(self, quantized, positions):
        judged.append(len(positions))
        return errors(self, quantized, positions)

    monkeypatch.setattr(steps.Judge, "errors", counted)
    tflite = chain("RELU", 2.0)
    _scripted(
        monkeypatch, Scripted("loss", lambda fit: _scaled(fit, 4.0)), Scripted("gain", lambda fit: _scaled(fit, 0.5))
    )
    loss, gain = improve(tflite, RULE, builders.samples(tflite, 20), "low").steps
    assert judged == [4] * (5 + 2 + 5)
    assert not loss.kept and loss.gain_db < -3.0
    assert gain.kept and gain.gain_db > 1.0


def test_insurance_is_judged_on_all_folds(monkeypatch):
    """A step that only must not lose in the sum may lose on most samples, so its trial does not stop early."""
    judged: list[int] = []
    errors = steps.Judge.errors

    def counted(self, quantized, positions):
        judged.append(len(positions))
        return errors(self, quantized, positions)

    monkeypatch.setattr(steps.Judge, "errors", counted)
    tflite = chain("RELU", 2.0)
    insurance = Scripted("insurance", lambda fit: _scaled(fit, 4.0))
    insurance.keep = Keep.NO_LOSS
    _scripted(monkeypatch, insurance)
    (trial,) = improve(tflite, RULE, builders.samples(tflite, 20), "low").steps
    assert judged == [4] * (5 + 5) and not trial.kept
