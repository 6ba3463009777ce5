"""A gain counts when it is more than chance: paired by sample, averaged over outputs."""

import builders
import numpy as np
import pytest
import state_models
from ptq_models import RULE, chain, gated, minmax

from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.folds import fold_positions
from edgepack.quantize.ptq.scoring import Judge, Keep, Score
from edgepack.quantize.ptq.step import Subject
from edgepack.quantize.quantizer import quantize


def _score(errors: np.ndarray) -> Score:
    return Score(errors.reshape(len(errors), -1), np.ones(errors.reshape(len(errors), -1).shape[1]) * 1e3)


def test_a_gain_on_every_sample_counts_however_unequal_they_are():
    """Errors that differ by orders between samples hide a gain of 7 %, unless samples are compared in pairs."""
    errors = 10.0 ** np.random.default_rng(0).uniform(-1, 1, 40)
    assert _score(errors * 0.93).beats(_score(errors))
    assert not _score(errors).beats(_score(errors * 0.93))


def test_what_changes_nothing_or_only_by_chance_does_not_count():
    """Equal errors never win; of changes without a mean, fewer than one in six pass one standard error."""
    random = np.random.default_rng(1)
    errors = random.uniform(0.5, 1.5, 50)
    assert not _score(errors).beats(_score(errors))
    wins = [_score(errors * 10 ** random.normal(0, 0.1, 50)).beats(_score(errors)) for _ in range(400)]
    assert 0.01 < np.mean(wins) < 0.17
    wins = [_score(errors * 10 ** random.normal(0.03, 0.1, 50)).beats(_score(errors)) for _ in range(400)]
    assert np.mean(wins) < 0.03


def test_what_was_not_fitted_needs_no_margin_over_chance():
    """A gain of 2 % counts where no sample decided about it; a loss does not."""
    errors = np.random.default_rng(2).uniform(0.5, 1.5, 50)
    before, after = _score(errors), _score(errors * 0.98)
    assert after.beats(before, Keep.ANY_GAIN) and not after.beats(before)
    assert not before.beats(after, Keep.ANY_GAIN) and not before.beats(before, Keep.ANY_GAIN)


def test_what_insures_against_rare_samples_is_kept_without_a_loss():
    """2 % more error, or more on all but the one sample that it saves, is no loss; 10 % more is one."""
    errors = np.random.default_rng(2).uniform(0.5, 1.5, 50)
    before = _score(errors)
    assert _score(errors * 1.02).beats(before, Keep.NO_LOSS) and not _score(errors * 1.02).beats(before)
    assert not _score(errors * 1.10).beats(before, Keep.NO_LOSS) and not before.beats(before, Keep.NO_LOSS)
    rare = errors.copy()
    rare[7] = 30.0
    saved = errors * 1.2
    assert _score(saved).beats(_score(rare), Keep.NO_LOSS) and not _score(saved).beats(_score(rare))


def test_one_sample_unlike_all_others_does_not_decide():
    """It may have half of the error: a file that is better on all others wins, one that is worse on them does not."""
    errors = np.ones(40)
    errors[7] = 40.0
    better = errors * 0.3
    better[7] = 150.0
    assert better.sum() > errors.sum()
    assert _score(better).beats(_score(errors))
    assert not _score(errors).beats(_score(better))


def test_a_loss_on_more_samples_than_a_few_counts():
    """A gain on most samples is no gain where a tenth of them pays a hundred times for it."""
    errors = np.ones(40)
    worse = np.full(40, 0.5)
    worse[:4] = 20.0
    assert not _score(worse).beats(_score(errors))


def test_outputs_count_alike():
    """A gain on a small output counts against a loss of the same share on one a million times larger."""
    errors = np.random.default_rng(2).uniform(0.9, 1.1, (40, 2)) * [1.0, 1e6]
    better = errors * [0.7, 1.04]
    assert _score(better).beats(_score(errors))
    assert _score(better).gain_db(_score(errors)) == pytest.approx(5 * np.log10(1 / 0.7 / 1.04))
    assert not _score(errors * [0.95, 1.3]).beats(_score(errors))


def test_the_worst_output_loses_nothing():
    """A gain on one output does not pay for a loss on the one with the lowest SNR, only for one on another."""
    errors = np.random.default_rng(2).uniform(0.9, 1.1, (40, 2)) * [1.0, 1e6]
    assert not _score(errors * [0.5, 1.1]).beats(_score(errors))
    assert _score(errors * [1.1, 0.5]).beats(_score(errors))


def test_an_output_that_is_always_zero_does_not_decide():
    """Whether it has an error or none, a gain on the other output counts."""
    errors = np.random.default_rng(2).uniform(0.9, 1.1, (40, 2))
    for dead in (0.0, 1e-9):
        errors[:, 1] = dead
        before = Score(errors, np.array([1e3, 0.0]))
        after = Score(errors * [0.7, 1.0], np.array([1e3, 0.0]))
        assert after.beats(before) and not before.beats(after)
        assert after.gain_db(before) == pytest.approx(5 * np.log10(1 / 0.7))


@pytest.mark.parametrize("broken", [np.inf, np.nan])
def test_a_file_whose_errors_are_no_numbers_never_wins(broken):
    """One sample without a finite result is enough to lose."""
    errors = np.ones(20)
    better = np.full(20, 0.5)
    better[3] = broken
    assert not _score(better).beats(_score(errors))


def test_without_error_there_is_nothing_to_gain():
    """Equal outputs have an SNR of infinity, and nothing beats them."""
    none = _score(np.zeros(10))
    assert none.snr_db == np.inf
    assert not _score(np.zeros(10)).beats(none)
    assert not _score(np.ones(10)).beats(none)
    assert none.beats(_score(np.ones(10)))


def test_one_sample_decides_by_itself():
    """A single sample has no standard error: the smaller error wins."""
    assert _score(np.array([0.8])).beats(_score(np.array([1.0])))
    assert not _score(np.array([1.1])).beats(_score(np.array([1.0])))


def test_errors_are_those_of_the_logits():
    """Summed over the samples they give the SNR that is reported, whatever order the samples are judged in."""
    tflite = chain()
    samples = builders.samples(tflite, 8)
    file = quantize(tflite, RULE, minmax(tflite, samples)).tflite
    judge = Judge(tflite, samples)
    errors = judge.errors(file, range(8)).squared
    assert Score(errors, judge.signal).snr_db == pytest.approx(snr_db(logits(tflite, samples), logits(file, samples)))
    np.testing.assert_array_equal(judge.errors(file, [5, 2]).squared, errors[[5, 2]])


@pytest.mark.parametrize("make", [chain, gated], ids=["vector", "image"])
def test_errors_without_their_shift_are_those_about_the_mean_of_each_channel(make):
    """One value per channel is left out, whatever the sample and the position: what a bias can take away."""
    tflite = make()
    samples = builders.samples(tflite, 8)
    file = quantize(tflite, RULE, minmax(tflite, samples)).tflite
    expected, actual = (np.array([each[0][0] for each in logits(data, samples)]) for data in (tflite, file))
    errors = (actual - expected).astype(np.float64).reshape(8, -1, expected.shape[-1])
    shift = errors.mean(axis=(0, 1))
    assert np.abs(shift).max() > 0
    found = Judge(tflite, samples).errors(file, range(8)).without_shift
    np.testing.assert_allclose(found[:, 0], np.square(errors - shift).sum(axis=(1, 2)), rtol=1e-4)


def test_offsets_do_not_flatter():
    """SNR is about each element's mean over the samples, and the worst output governs."""
    random = np.random.default_rng(0)
    reference = [[1000.0 + random.normal(0, 1, 4), random.normal(0, 1, 2)] for _ in range(50)]
    measured = [[one + random.normal(0, 1, 4), other] for one, other in reference]
    assert -2 < snr_db(reference, measured) < 2
    assert snr_db(reference, reference) == np.inf
    assert snr_db([[np.ones(3)]], [[np.ones(3) * 1.1]]) == pytest.approx(20.0)


def test_frames_of_a_stream_are_judged_from_the_first_of_their_part():
    """What came before a part is unknown to the file and to the reference alike: the same model has no error."""
    tflite = state_models.memory()
    samples = [{"x": np.full((1, 4), number, np.float32)} for number in range(1, 10)]
    judge = Judge(tflite, samples)
    assert not judge.errors(tflite, range(3, 6)).squared.any() and not judge.errors(tflite, range(9)).squared.any()
    positions = fold_positions(Subject(tflite, RULE, "low", samples, quantize, lambda *_: None))
    assert [list(part) for part in positions] == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
