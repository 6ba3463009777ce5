"""Thresholds and words of the judgement: what is unusable, what is only a loss, and what is chance. Pure logic."""

from dataclasses import replace

import pytest

from edgepack.choices import Verdict
from edgepack.pipeline.options import Limits
from edgepack.pipeline.search.acceptance import missed_limits, select_trial
from edgepack.pipeline.search.candidates import Candidate
from edgepack.pipeline.search.loss import acceptable, judge, loss, to_json, unjudged, verdict
from edgepack.pipeline.search.trials import Trial
from edgepack.profiles.model import SchemeRule
from edgepack.runtime.metrics import OutputQuality, Quality


def of_outputs(*outputs: OutputQuality) -> Quality:
    worst = min((o.snr_db for o in outputs if o.snr_db is not None), default=None)
    return Quality(worst, 1.0, 0.1, None, None, None, 100, outputs=outputs)


def of_classes(samples: int, worsened: int, improved: int = 0, *, labels: bool = True, snr: float = 30.0) -> Quality:
    share = 100 / samples
    output = OutputQuality("p", "classes", snr, max_error=0.5, bounded=True)
    top1 = 90.0 - share * (worsened - improved) if labels else None
    agreement = 100 - share * (worsened + improved)
    return Quality(
        snr, 1.0, 0.5, agreement, top1, 90.0 if labels else None, samples,
        outputs=(output,), worsened=worsened, improved=improved, expected_drop=share * worsened, expected_error=share,
    )  # fmt: skip


def test_one_lost_output_makes_a_file_unusable_and_is_named() -> None:
    """Good boxes do not make up for lost scores; the message has figure, interval and name."""
    quality = of_outputs(OutputQuality("boxes", "values", 29.4), OutputQuality("scores", "values", -4.2, (-4.5, -3.9)))
    (finding,) = judge(quality)
    assert verdict(quality) is Verdict.UNUSABLE
    assert str(finding) == (
        "this file is likely unusable: output 'scores' has an SNR of -4.2 dB, below 10 (95 % interval -4.5 to -3.9)"
    )
    assert (to_json(quality) or {})["verdict"] == "unusable"
    assert not acceptable(quality, None)


def test_columns_are_named() -> None:
    """The message says which columns of which axis are lost."""
    lost = OutputQuality("joined", "values", 3.0, columns=tuple(range(4, 84)), axis=2)
    assert "columns 4 to 83 of axis 2 of output 'joined' have an SNR of 3.0 dB" in judge(of_outputs(lost))[0].message
    assert "column 1 of axis 1 of output" in judge(of_outputs(replace(lost, columns=(1,), axis=1)))[0].message


@pytest.mark.parametrize(
    ("samples", "worsened", "improved", "expected"),
    [
        (200, 3, 1, Verdict.SOUND),  # one point on 200 samples is chance
        (200, 6, 2, Verdict.SOUND),  # so are two
        (1000, 40, 10, Verdict.LOSSY),
        (1000, 500, 10, Verdict.UNUSABLE),
        (1000, 5, 0, Verdict.SOUND),  # beyond chance, but half a point
        (20, 3, 0, Verdict.SOUND),
        (20, 10, 0, Verdict.UNUSABLE),
    ],
)
def test_a_drop_counts_only_beyond_chance(samples: int, worsened: int, improved: int, expected: Verdict) -> None:
    """The same share is chance on few samples and a loss on many."""
    assert verdict(of_classes(samples, worsened, improved)) is expected
    assert acceptable(of_classes(samples, worsened, improved), None) == (expected is Verdict.SOUND)


def test_other_classes_without_labels() -> None:
    """Where the float model is not sure, another class is no loss; where it is, it is one."""
    unsure = replace(of_classes(200, 30, labels=False), expected_drop=1.0, expected_error=0.3)
    assert verdict(unsure) is Verdict.SOUND
    assert verdict(of_classes(200, 8, labels=False)) is Verdict.LOSSY
    assert "costs 4.0 points of top-1" in judge(of_classes(200, 8, labels=False))[0].message
    assert verdict(of_classes(200, 70, labels=False)) is Verdict.UNUSABLE


def test_class_scores_are_judged_by_snr_too() -> None:
    """The same class with other scores is a loss; a trained file may have other scores."""
    assert verdict(of_classes(100, 0, snr=7.0)) is Verdict.LOSSY
    assert verdict(of_classes(100, 0, snr=1.0)) is Verdict.UNUSABLE
    assert verdict(replace(of_classes(100, 0, snr=1.0), trained=True)) is Verdict.SOUND


def test_probabilities_within_one_step_are_kept() -> None:
    """Scores that stay below one int8 step have no finer resolution, whatever their SNR or collapse."""
    small = OutputQuality("alarm", "probabilities", -3.0, max_error=0.002, bounded=True)
    assert verdict(replace(of_outputs(small), collapsed=("alarm",))) is Verdict.SOUND
    assert verdict(of_outputs(replace(small, max_error=0.02))) is Verdict.UNUSABLE


def test_a_collapsed_output_is_unusable() -> None:
    """An output with one value is unusable whatever the rest does."""
    quality = replace(of_outputs(OutputQuality("a", "values", 20.0)), collapsed=("a",))
    assert "'a' has one value on all samples" in str(judge(quality)[0])
    assert verdict(quality) is Verdict.UNUSABLE


def test_a_limit_on_the_drop_is_taken_at_its_word() -> None:
    """--max-drop compares the measured drop, without allowance for chance; other outputs must be usable too."""
    assert not acceptable(of_classes(200, 3), 1.0)
    assert acceptable(of_classes(200, 3), 1.5)
    broken = OutputQuality("boxes", "values", 2.0)
    mixed = of_classes(200, 0)
    assert not acceptable(replace(mixed, outputs=(*mixed.outputs, broken)), 1.5)


def test_a_sound_file_is_preferred_to_a_broken_one() -> None:
    """Without limits a broken file gives way where others compete, and of broken ones the least broken is taken."""
    broken, worse = (of_outputs(OutputQuality("y", "values", snr)) for snr in (4.0, -3.0))
    misses, reasons = missed_limits(9, None, broken, Limits())
    assert misses == {"drop"}
    assert "SNR of 4.0 dB" in reasons[0]
    int8, float16 = Candidate(SchemeRule("int8")), Candidate(SchemeRule("float16"))
    trials = [Trial(int8, 9, None, worse, misses), Trial(float16, 9, None, broken, misses)]
    assert select_trial(trials, Limits()) is trials[1]
    assert loss(worse) > loss(broken) > loss(of_outputs(OutputQuality("y", "values", 40.0)))
    assert missed_limits(9, None, broken, Limits(), competing=False)[0] == frozenset()


def test_numbers_and_ranked_lists() -> None:
    """Other class numbers are a loss by their share; a ranked list is not judged, and a warning states it."""
    few = OutputQuality("map", "numbers", None, changed=1.0, changed_interval=(0.8, 1.2))
    assert verdict(replace(of_outputs(few), collapsed=("map",))) is Verdict.SOUND
    many = replace(few, changed=30.0, changed_interval=(25.0, 35.0))
    assert "30.0 % of other numbers" in judge(of_outputs(many))[0].message
    assert verdict(of_outputs(many)) is Verdict.UNUSABLE
    ranked = of_outputs(OutputQuality("boxes", "ranked", 3.0, ranked_by="TOPK_V2"))
    assert verdict(ranked) is Verdict.SOUND
    assert "TOPK_V2 ranks its entries" in unjudged(ranked)[0]
