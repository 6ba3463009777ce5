from pathlib import Path

import pytest

from edgepack.errors import SamplesError, UsageError
from edgepack.profiles.model import BundleRule, OpTable, PartitionRule, SchemeRule, TargetProfile
from edgepack.quantize.select import better, select
from edgepack.schemes import Needs


def _target(*schemes: SchemeRule) -> TargetProfile:
    return TargetProfile(
        id="board", title="The Board", summary="", folder=Path(), schemes=schemes, batch=0, fallback="host",
        partition=PartitionRule(), ops=OpTable({}, {}), compiler=None, memory=None, bundle=BundleRule("linux"),
        variants=(), socs={}, sources=(), sha256="",
    )  # fmt: skip


INT8 = SchemeRule("int8", "INT8", why="its units compute in integers")
DYNAMIC, HALF, QAT = SchemeRule("dynamic-range"), SchemeRule("float16"), SchemeRule("int8-qat", "INT8")
CPU = _target(INT8, DYNAMIC, HALF, QAT)
TPU = _target(INT8, QAT)


@pytest.mark.parametrize(
    ("target", "given", "asked", "scheme", "candidates"),
    [
        (CPU, {Needs.SAMPLES}, "auto", "int8", ["int8", "dynamic-range", "float16"]),
        (CPU, set(), "auto", "dynamic-range", ["dynamic-range", "float16"]),
        (TPU, {Needs.SAMPLES, Needs.LABELS}, "auto", "int8", ["int8"]),
        (_target(QAT, INT8), {Needs.SAMPLES, Needs.LABELS}, "auto", "int8", ["int8"]),
        (CPU, set(), "float16", "float16", ["float16"]),
        (CPU, {Needs.SAMPLES}, "int8", "int8", ["int8"]),
    ],
)
def test_choice(target, given, asked, scheme, candidates):
    """Asked for, or the first of the target's schemes that the data allows; the others follow in its order."""
    chosen = select(target, given, asked)
    assert chosen.rule.scheme == scheme
    assert [rule.scheme for rule in chosen.candidates] == candidates


def test_reasons_say_why():
    """The reason names the target, the profile's why, and what the better schemes would have needed."""
    assert select(CPU, {Needs.SAMPLES}).reason == (
        "int8 is what The Board prefers because its units compute in integers"
    )
    assert select(CPU, set()).reason == (
        "dynamic-range is the best The Board takes without more data; int8 needs unlabelled samples (--samples)"
    )
    assert select(CPU, set(), "float16").reason == "float16 was asked for"


@pytest.mark.parametrize(
    ("target", "given", "asked", "error", "says"),
    [
        (TPU, set(), "auto", SamplesError, ["only schemes that need data", "100 to 500", ".npz", "module:function"]),
        (TPU, set(), "int8", SamplesError, ["int8 needs unlabelled samples", "100 to 500", "folder of images"]),
        (TPU, {Needs.SAMPLES}, "float16", UsageError, [
            "does not take float16", "int8 (unlabelled samples (--samples))", "int8-qat (labelled training data"]),
        (CPU, {Needs.LABELS}, "int8-qat", UsageError, ["made by training", "--scheme int8"]),
        (CPU, set(), "int3", UsageError, ["unknown scheme 'int3'", "dynamic-range"]),
        (_target(QAT), {Needs.LABELS}, "auto", UsageError, ["takes no scheme that build can make"]),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(target, given, asked, error, says):
    """A scheme that cannot be had is an error that lists what can, and what each needs."""
    with pytest.raises(error) as caught:
        select(target, given, asked)
    text = f"{caught.value.message} {caught.value.hint}"
    assert [part for part in says if part not in text] == []


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ({"int8": 0.4, "dynamic-range": 0.0}, "int8"),
        ({"int8": 3.0, "dynamic-range": 0.2}, "dynamic-range"),
        ({"int8": 3.0, "dynamic-range": 2.0, "float16": 2.5}, "dynamic-range"),
        ({"float16": 0.0}, "float16"),
    ],
)
def test_too_much_loss_moves_on(losses, chosen):
    """The preferred scheme stays while it loses little; then the next that does, or the one that loses least."""
    rule, why = better((INT8, DYNAMIC, HALF), losses, 1.0)
    assert rule.scheme == chosen
    assert f"{losses[chosen]:.2f}" in why


def test_nothing_measured():
    """Without figures nothing can be preferred."""
    with pytest.raises(UsageError, match="no scheme was measured"):
        better((INT8,), {}, 1.0)
