from pathlib import Path

import pytest

from edgepack.errors import SamplesError, UsageError
from edgepack.profiles.model import BundleRule, OpTable, PartitionRule, SchemeRule, TargetProfile
from edgepack.quantize.select import select
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
    ("target", "available", "requested", "scheme", "candidates"),
    [
        (CPU, {Needs.SAMPLES}, "auto", "int8", ["int8", "dynamic-range", "float16"]),
        (CPU, set(), "auto", "dynamic-range", ["dynamic-range", "float16"]),
        (TPU, {Needs.SAMPLES, Needs.LABELS}, "auto", "int8", ["int8", "int8-qat"]),
        (_target(QAT, INT8), {Needs.SAMPLES, Needs.LABELS}, "auto", "int8-qat", ["int8-qat", "int8"]),
        (_target(QAT, INT8), {Needs.SAMPLES}, "auto", "int8", ["int8"]),
        (CPU, set(), "float16", "float16", ["float16"]),
        (CPU, {Needs.SAMPLES}, "int8", "int8", ["int8"]),
    ],
)
def test_choice(target, available, requested, scheme, candidates):
    """The requested scheme, or the first of the target's that the data allows; the others follow in its order."""
    selection = select(target, available, requested)
    assert selection.rule.scheme == scheme
    assert [rule.scheme for rule in selection.candidates] == candidates


def test_reasons_say_why():
    """The reason names the target, the reason in its profile, and the data that better schemes need."""
    assert select(CPU, {Needs.SAMPLES}).reason == (
        "int8 is the scheme that The Board prefers because its units compute in integers"
    )
    assert select(CPU, set()).reason == (
        "dynamic-range is the best scheme that The Board supports without more data; "
        "int8 needs unlabelled samples (--samples)"
    )
    assert select(CPU, set(), "float16").reason == "float16 was requested"


@pytest.mark.parametrize(
    ("target", "available", "requested", "error", "parts"),
    [
        (TPU, set(), "auto", SamplesError, ["only schemes that need data", "100 to 500", ".npz", "module:function"]),
        (TPU, set(), "int8", SamplesError, ["int8 needs unlabelled samples", "100 to 500", "folder of images"]),
        (TPU, {Needs.SAMPLES}, "float16", UsageError, [
            "does not support float16", "int8 (unlabelled samples (--samples))", "int8-qat (labelled training data"]),
        (CPU, {Needs.SAMPLES}, "int8-qat", SamplesError, ["labelled training data", "--train", "x and y"]),
        (CPU, set(), "int3", UsageError, ["unknown scheme 'int3'", "dynamic-range"]),
        (_target(QAT), {Needs.SAMPLES}, "auto", SamplesError, ["only schemes that need data", "--train"]),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(target, available, requested, error, parts):
    """The error about a scheme that cannot be used lists the supported schemes and the data that each needs."""
    with pytest.raises(error) as caught:
        select(target, available, requested)
    text = f"{caught.value.message} {caught.value.hint}"
    assert [part for part in parts if part not in text] == []


def test_training_is_a_candidate_of_its_own():
    """With labelled data, int8-qat follows the schemes that need no training, in the target's order."""
    selection = select(TPU, {Needs.SAMPLES, Needs.LABELS})
    assert [rule.scheme for rule in selection.candidates] == ["int8", "int8-qat"]
    assert select(TPU, {Needs.LABELS}, "int8-qat").rule.scheme == "int8-qat"
