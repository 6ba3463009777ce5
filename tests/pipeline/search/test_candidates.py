"""The order of candidates, which are skipped and why, and which trial is taken: pure logic, no file is produced."""

from dataclasses import replace

import pytest

from edgepack.errors import UnfitModelError
from edgepack.pipeline.options import Limits
from edgepack.pipeline.search.acceptance import missed_limits, nearest, no_choice, select_trial
from edgepack.pipeline.search.candidates import Candidate, search_order
from edgepack.pipeline.search.trials import Trial, reason_to_skip
from edgepack.profiles.model import SchemeRule
from edgepack.profiles.registry import get_target
from edgepack.profiles.variants import choose_variant
from edgepack.runtime.metrics import Quality
from edgepack.schemes import Needs

EVERYTHING = {Needs.NOTHING, Needs.SAMPLES, Needs.LABELS}
CPU, EDGETPU = (get_target(target).schemes for target in ("cpu", "edgetpu"))
INT8, QAT, FLOAT16 = SchemeRule("int8"), SchemeRule("int8-qat"), SchemeRule("float16")
IN_FLOAT, IN_INT16 = Candidate(INT8, "high", 1.0), Candidate(INT8, "high", 1.0, "int16")
TRAINED = Candidate(QAT, recipe="qat")
HALF = Candidate(QAT, recipe="prune+qat", sparsity=0.5)


def quality(drop: float) -> Quality:
    return Quality(30.0, 0.99, 0.1, 100.0 - drop, 90.0 - drop, 90.0, 100)


def trial(candidate: Candidate, *misses: str, drop: float = 0.0, size: int = 1000, gzip_size: int = 900) -> Trial:
    return Trial(candidate, size, gzip_size, quality(drop), frozenset(misses))


def test_after_training_comes_first() -> None:
    """Post-training quantization comes before training, and training for accuracy before training for size."""
    names = [candidate.name for candidate in search_order(CPU, EVERYTHING)]
    assert names[:7] == [
        "int8, effort low", "int8, effort medium", "int8, effort high", "int8, effort high, single ops in float",
        "int8, effort high, single ops in int16", "dynamic-range", "float16",
    ]  # fmt: skip
    assert names[names.index("qat") :] == [
        "qat",
        "prune+qat, 50 % zeros",
        "cluster+qat, 16 clusters",
        "prune+cluster+qat, 50 % zeros, 16 clusters",
        "prune+cluster+qat, 80 % zeros, 16 clusters",
        "prune+cluster+qat, 90 % zeros, 16 clusters",
    ]
    assert len(names) == len(set(names))


def test_a_scheme_that_was_asked_for_stays() -> None:
    """--scheme limits the search to that scheme; int8 may also be trained, because the result is int8 as well."""
    assert {c.rule.scheme for c in search_order(CPU, EVERYTHING, requested="float16")} == {"float16"}
    assert {c.rule.scheme for c in search_order(CPU, EVERYTHING, requested="int8")} == {
        "int8",
        "int8-qat",
    }
    assert {c.rule.scheme for c in search_order(CPU, EVERYTHING, requested="int8-qat")} == {"int8-qat"}
    assert [candidate.effort for candidate in search_order(EDGETPU, EVERYTHING, effort="high")][:1] == ["high"]


def test_single_ops_are_kept_where_the_target_takes_that() -> None:
    """Mixed precision comes after the last effort, with its limit: float first on the CPU, int16 by chip on Hexagon."""
    mixed = [candidate for candidate in search_order(CPU, EVERYTHING, drop=0.5) if candidate.mixed is not None]
    assert [candidate.mixed_as for candidate in mixed] == ["float32", "int16"]
    assert {(c.rule.scheme, c.effort, c.mixed) for c in mixed} == {("int8", "high", 0.5)}
    hexagon = get_target("hexagon")
    for soc, kinds in (("SM8550", ["int16"]), ("SM8350", []), ("SM8150", []), ("", [])):
        candidates = search_order(choose_variant(hexagon, soc=soc).schemes, EVERYTHING)
        assert [candidate.mixed_as for candidate in candidates if candidate.mixed is not None] == kinds
    assert not any(candidate.mixed is not None for candidate in search_order(hexagon.schemes, EVERYTHING))
    assert not any(candidate.mixed is not None for candidate in search_order(EDGETPU, EVERYTHING))
    assert not any(candidate.mixed is not None for candidate in search_order(CPU, EVERYTHING, improvable=False))


def test_random_numbers_are_not_fitted_to() -> None:
    """Without real samples int8 has one candidate: more effort would be fitted to noise."""
    names = [candidate.name for candidate in search_order(EDGETPU, EVERYTHING, effort="medium", improvable=False)]
    assert [name for name in names if name.startswith("int8, ")] == ["int8, effort low"]


def test_what_data_is_missing_for_is_listed_with_the_flag() -> None:
    """A candidate without its data is listed and names the flag; a model that cannot be trained says so instead."""
    missing = {candidate.name: candidate.missing for candidate in search_order(EDGETPU, {Needs.NOTHING})}
    assert missing["int8, effort low"] == "it needs --samples"
    assert missing["qat"] == "it needs --train"
    refused = {
        candidate.missing
        for candidate in search_order(EDGETPU, EVERYTHING, untrainable="it is a .tflite")
        if candidate.recipe
    }
    assert refused == {"it is a .tflite"}
    assert not any(candidate.missing for candidate in search_order(EDGETPU, EVERYTHING))


@pytest.mark.parametrize(
    ("candidate", "before", "limits", "words"),
    [
        (Candidate(INT8, "high"), [trial(Candidate(INT8), "size")], Limits(size=500), "as large"),
        (Candidate(FLOAT16), [trial(Candidate(INT8), "size")], Limits(size=500), "as large"),
        (Candidate(FLOAT16), [trial(Candidate(INT8), "download")], Limits(download=500), "larger"),
        (Candidate(INT8, "high"), [trial(Candidate(INT8), "download")], Limits(download=500), "accuracy"),
        (IN_INT16, [trial(Candidate(INT8), "size")], Limits(1.0, size=500), "as large"),
        (Candidate(QAT, recipe="qat"), [trial(Candidate(INT8), "download")], Limits(1.0, download=500), "accuracy"),
        (Candidate(INT8, "high"), [trial(Candidate(INT8), "target")], Limits(1.0), "refuses"),
        (HALF, [trial(Candidate(INT8), "drop")], Limits(1.0), "--max-download"),
        (HALF, [trial(Candidate(INT8), "size")], Limits(size=500), "as large"),
        (HALF, [trial(Candidate(INT8), "drop")], Limits(1.0, download=950), "small enough"),
        (HALF, [trial(Candidate(QAT, recipe="qat"), "drop", "download")], Limits(1.0, download=500), "already"),
        (replace(HALF, sparsity=0.8), [trial(HALF, "drop", "download")], Limits(1.0, download=500), "already"),
    ],
)
def test_what_cannot_help_is_not_tried(candidate: Candidate, before: list[Trial], limits: Limits, words: str) -> None:
    """A candidate is skipped only where it cannot add what is missing, and the reason says so."""
    assert words in reason_to_skip(candidate, before, limits)


@pytest.mark.parametrize(
    ("candidate", "before", "limits"),
    [
        (Candidate(INT8, "medium"), [trial(Candidate(INT8), "drop")], Limits(1.0)),
        (Candidate(FLOAT16), [trial(Candidate(INT8, "high"), "drop")], Limits(1.0)),
        (Candidate(QAT, recipe="qat"), [trial(Candidate(INT8, "high"), "drop")], Limits(1.0)),
        (Candidate(QAT, recipe="qat"), [trial(Candidate(INT8), "drop", "download")], Limits(1.0, download=500)),
        (HALF, [trial(Candidate(INT8), "download")], Limits(1.0, download=500)),
        (Candidate(INT8), [trial(Candidate(FLOAT16), "size")], Limits(size=500)),
        (IN_INT16, [trial(Candidate(INT8), "drop"), trial(IN_FLOAT, "size")], Limits(1.0, size=500)),
        (
            Candidate(QAT, recipe="qat"),
            [trial(Candidate(INT8), "drop"), trial(IN_FLOAT, "size")],
            Limits(1.0, size=500),
        ),
    ],
)
def test_what_can_help_is_tried(candidate: Candidate, before: list[Trial], limits: Limits) -> None:
    """Accuracy asks for effort and training, a download for zeros and clusters, size for fewer bits."""
    assert reason_to_skip(candidate, before, limits) == ""


@pytest.mark.parametrize(
    ("limits", "drop", "misses"),
    [
        (Limits(1.0), 1.0, set()),
        (Limits(1.0), 1.1, {"drop"}),
        (Limits(3.0, 999), 2.0, {"size"}),
        (Limits(3.0, 1000, 900), 2.0, set()),
        (Limits(0.0, 10, 10), 0.5, {"drop", "size", "download"}),
    ],
)
def test_a_file_is_held_against_every_limit(limits: Limits, drop: float, misses: set[str]) -> None:
    """Each limit counts for itself, and a missed one has a reason in words."""
    missed, reasons = missed_limits(1000, 900, quality(drop), limits)
    assert missed == misses
    assert len(reasons) == len(misses)


def test_a_file_the_target_refuses_does_not_hold() -> None:
    """Accurate and small is not enough: a file that the target refuses is never taken, and its error is the build's."""
    error = UnfitModelError("op 3 is refused")
    trials = [Trial(Candidate(INT8), 10, 9, quality(0.0), frozenset({"target"}), "op 3 is refused", error)]
    assert select_trial(trials, Limits()) is None
    assert no_choice(trials, Limits(1.0), get_target("edgetpu")) is error


def test_the_first_that_holds_is_taken_and_the_nearest_is_named() -> None:
    """With a limit on the drop nothing above it is taken; without one, what loses least of what is small enough is."""
    trials = [
        trial(Candidate(INT8), "drop", drop=3.0),
        trial(Candidate(INT8, "high"), "drop", drop=1.4),
        trial(Candidate(FLOAT16), "size", drop=0.0, size=1900),
    ]
    assert select_trial(trials, Limits(1.0, 1000)) is None
    best = nearest(trials, Limits(1.0, 1000))
    assert best is not None
    assert best.candidate.effort == "high"
    taken = select_trial(trials, Limits(size=1000))
    assert taken is not None
    assert taken.candidate.effort == "high"
    assert select_trial([*trials, trial(Candidate(QAT, recipe="qat"))], Limits(1.0, 1000)) == trial(
        Candidate(QAT, recipe="qat")
    )
