"""The ladder's order, what it leaves out and why, and what it takes: pure logic, no file is made."""

from dataclasses import replace

import pytest

from edgepack.pipeline.options import Limits
from edgepack.pipeline.search.candidates import Candidate, Step, best, chosen, judge, pointless, rungs
from edgepack.profiles.model import SchemeRule
from edgepack.profiles.registry import get_target
from edgepack.profiles.variants import choose_variant
from edgepack.runtime.metrics import Quality
from edgepack.schemes import Needs

EVERYTHING = {Needs.NOTHING, Needs.SAMPLES, Needs.LABELS}
CPU, EDGETPU = (get_target(target).schemes for target in ("cpu", "edgetpu"))
INT8, QAT, FLOAT16 = SchemeRule("int8"), SchemeRule("int8-qat"), SchemeRule("float16")
IN_FLOAT, IN_INT16 = Candidate(INT8, "high", 1.0), Candidate(INT8, "high", 1.0, "int16")
HALF = Candidate(QAT, recipe="prune+qat", sparsity=0.5)


def quality(drop: float) -> Quality:
    return Quality(30.0, 0.99, 0.1, 100.0 - drop, 90.0 - drop, 90.0, 100)


def step(rung: Candidate, *misses: str, drop: float = 0.0, size: int = 1000, gzip_size: int = 900) -> Step:
    return Step(rung, size, gzip_size, quality(drop), frozenset(misses))


def test_after_training_comes_first() -> None:
    """Every rung after training stands below training, training for accuracy below training for size."""
    names = [rung.name for rung in rungs(CPU, EVERYTHING)]
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
    """--scheme keeps the ladder to that scheme; int8 may also be trained, because the file is int8 all the same."""
    assert {rung.rule.scheme for rung in rungs(CPU, EVERYTHING, asked="float16")} == {"float16"}
    assert {rung.rule.scheme for rung in rungs(CPU, EVERYTHING, asked="int8")} == {"int8", "int8-qat"}
    assert {rung.rule.scheme for rung in rungs(CPU, EVERYTHING, asked="int8-qat")} == {"int8-qat"}
    assert [rung.effort for rung in rungs(EDGETPU, EVERYTHING, effort="high")][:1] == ["high"]


def test_single_ops_are_kept_where_the_target_takes_that() -> None:
    """Mixed precision stands above the last effort with its limit: float first on the CPU, int16 by chip on Hexagon."""
    mixed = [rung for rung in rungs(CPU, EVERYTHING, drop=0.5) if rung.mixed is not None]
    assert [rung.mixed_as for rung in mixed] == ["float32", "int16"]
    assert {(rung.rule.scheme, rung.effort, rung.mixed) for rung in mixed} == {("int8", "high", 0.5)}
    hexagon = get_target("hexagon")
    for soc, kinds in (("SM8550", ["int16"]), ("SM8350", []), ("SM8150", []), ("", [])):
        found = rungs(choose_variant(hexagon, soc=soc).schemes, EVERYTHING)
        assert [rung.mixed_as for rung in found if rung.mixed is not None] == kinds
    assert not any(rung.mixed is not None for rung in rungs(hexagon.schemes, EVERYTHING))
    assert not any(rung.mixed is not None for rung in rungs(EDGETPU, EVERYTHING))
    assert not any(rung.mixed is not None for rung in rungs(CPU, EVERYTHING, improvable=False))


def test_random_numbers_are_not_fitted_to() -> None:
    """Without real samples int8 has one rung: more effort would be fitted to noise."""
    names = [rung.name for rung in rungs(EDGETPU, EVERYTHING, effort="medium", improvable=False)]
    assert [name for name in names if name.startswith("int8, ")] == ["int8, effort low"]


def test_what_data_is_missing_for_is_listed_with_the_flag() -> None:
    """A rung without its data stays on the list and names the flag; a model that cannot be trained says so instead."""
    missing = {rung.name: rung.missing for rung in rungs(EDGETPU, {Needs.NOTHING})}
    assert missing["int8, effort low"] == "it needs --samples"
    assert missing["qat"] == "it needs --train"
    refused = {rung.missing for rung in rungs(EDGETPU, EVERYTHING, untrainable="it is a .tflite") if rung.recipe}
    assert refused == {"it is a .tflite"}
    assert not any(rung.missing for rung in rungs(EDGETPU, EVERYTHING))


@pytest.mark.parametrize(
    ("rung", "before", "limits", "words"),
    [
        (Candidate(INT8, "high"), [step(Candidate(INT8), "size")], Limits(size=500), "as large"),
        (Candidate(FLOAT16), [step(Candidate(INT8), "size")], Limits(size=500), "as large"),
        (Candidate(FLOAT16), [step(Candidate(INT8), "download")], Limits(download=500), "larger"),
        (Candidate(INT8, "high"), [step(Candidate(INT8), "download")], Limits(download=500), "accuracy"),
        (IN_INT16, [step(Candidate(INT8), "size")], Limits(1.0, size=500), "as large"),
        (Candidate(QAT, recipe="qat"), [step(Candidate(INT8), "download")], Limits(1.0, download=500), "accuracy"),
        (Candidate(INT8, "high"), [step(Candidate(INT8), "target")], Limits(1.0), "refuses"),
        (HALF, [step(Candidate(INT8), "drop")], Limits(1.0), "--max-download"),
        (HALF, [step(Candidate(INT8), "size")], Limits(size=500), "as large"),
        (HALF, [step(Candidate(INT8), "drop")], Limits(1.0, download=950), "small enough"),
        (HALF, [step(Candidate(QAT, recipe="qat"), "drop", "download")], Limits(1.0, download=500), "already"),
        (replace(HALF, sparsity=0.8), [step(HALF, "drop", "download")], Limits(1.0, download=500), "already"),
    ],
)
def test_what_cannot_help_is_not_tried(rung: Candidate, before: list[Step], limits: Limits, words: str) -> None:
    """A rung is left out only where what is missing is not what it gives, and the reason says what."""
    assert words in pointless(rung, before, limits)


@pytest.mark.parametrize(
    ("rung", "before", "limits"),
    [
        (Candidate(INT8, "medium"), [step(Candidate(INT8), "drop")], Limits(1.0)),
        (Candidate(FLOAT16), [step(Candidate(INT8, "high"), "drop")], Limits(1.0)),
        (Candidate(QAT, recipe="qat"), [step(Candidate(INT8, "high"), "drop")], Limits(1.0)),
        (Candidate(QAT, recipe="qat"), [step(Candidate(INT8), "drop", "download")], Limits(1.0, download=500)),
        (HALF, [step(Candidate(INT8), "download")], Limits(1.0, download=500)),
        (Candidate(INT8), [step(Candidate(FLOAT16), "size")], Limits(size=500)),
        (IN_INT16, [step(Candidate(INT8), "drop"), step(IN_FLOAT, "size")], Limits(1.0, size=500)),
        (Candidate(QAT, recipe="qat"), [step(Candidate(INT8), "drop"), step(IN_FLOAT, "size")], Limits(1.0, size=500)),
    ],
)
def test_what_can_help_is_tried(rung: Candidate, before: list[Step], limits: Limits) -> None:
    """Accuracy asks for effort and training, a download for zeros and clusters, size for fewer bits."""
    assert pointless(rung, before, limits) == ""


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
    """Each limit counts for itself, and a miss is said in words."""
    found = judge(Candidate(INT8), 1000, 900, quality(drop), limits)
    assert found.misses == misses
    assert bool(found.why) == bool(misses)


def test_a_file_the_target_refuses_does_not_hold() -> None:
    """Accurate and small is not enough: the target has to take the file."""
    found = judge(Candidate(INT8), 10, 9, quality(0.0), Limits(1.0), "op 3 is refused")
    assert (found.misses, found.why) == ({"target"}, "op 3 is refused")


def test_the_first_that_holds_is_taken_and_the_nearest_is_named() -> None:
    """With a limit on the drop nothing above it is taken; without one, what loses least of what is small enough is."""
    steps = [
        step(Candidate(INT8), "drop", drop=3.0),
        step(Candidate(INT8, "high"), "drop", drop=1.4),
        step(Candidate(FLOAT16), "size", drop=0.0, size=1900),
    ]
    assert chosen(steps, Limits(1.0, 1000)) is None
    assert best(steps, Limits(1.0, 1000)).rung.effort == "high"
    taken = chosen(steps, Limits(size=1000))
    assert taken is not None
    assert taken.rung.effort == "high"
    assert chosen([*steps, step(Candidate(QAT, recipe="qat"))], Limits(1.0, 1000)) == step(Candidate(QAT, recipe="qat"))
