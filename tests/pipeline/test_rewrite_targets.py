"""Rewrites for real targets: the preview and the check decide which ops move, and what cannot be proven is not done."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import Net

from edgepack.choices import Repair
from edgepack.errors import UsageError
from edgepack.graph import read_model
from edgepack.pipeline.options import ModelOptions, TargetOptions
from edgepack.pipeline.rewrite import off_accelerator, rewrite_proven, rewrite_unproven
from edgepack.pipeline.session import Session
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.registry import get_target

sys.path.insert(0, str(Path(__file__).parent.parent / "repair"))

from repair_nets import computed_slice, grouped, padv2, repeated, unary
from repair_nets import net as make_net

INT8 = SchemeRule("int8", io="INT8", fully_connected="per-tensor")
WISH = TargetOptions()


@pytest.fixture(scope="module")
def edgetpu() -> TargetProfile:
    return get_target("edgetpu")


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ModelOptions(cache=False)) as session:
        yield session


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (lambda: grouped(2, times=2), "grouped-convolution"),
        (lambda: repeated((2, 2)), "nearest-upsampling"),
        (lambda: unary("LEAKY_RELU", alpha=0.1), "leaky-relu"),
        (lambda: padv2(-1.0), "padv2-shifted"),
        (computed_slice, "constant-shape"),
    ],
)
def test_moves_every_op_onto_the_edge_tpu(file: object, code: str, edgetpu: TargetProfile, session: Session) -> None:
    """Models that the Edge TPU compiler would refuse or leave on the host are previewed whole after the rewrites."""
    assert callable(file)
    before = file()
    score = off_accelerator(edgetpu, INT8, WISH)
    assert score(read_model(before))
    proven = rewrite_proven(session, before, edgetpu, INT8, WISH)
    assert {rewrite.code for rewrite in proven.rewrites} == {code}
    assert score(read_model(proven.tflite)) == frozenset()
    assert proven.difference <= 1e-5
    assert proven.notes == ()


def test_what_does_not_prove_is_left_out(edgetpu: TargetProfile, session: Session) -> None:
    """PADV2 by 1000 around small values loses their digits in the sum: the proof fails, the op stays, and a note tells.

    The padding is sliced off again, so that only the small values are compared.
    """
    before = padv2(1000.0, inner_only=True)
    assert rewrite_unproven(before, edgetpu, INT8, WISH).rewrites
    proven = rewrite_proven(session, before, edgetpu, INT8, WISH)
    assert (proven.tflite, proven.rewrites) == (before, ())
    assert "padv2-shifted is left out" in proven.notes[0]


def test_a_bad_rewrite_does_not_take_the_good_ones_with_it(edgetpu: TargetProfile, session: Session) -> None:
    """Only the kind that fails its proof is left out."""

    def write(net: Net, x: int) -> list[int]:
        shape = (1, 6, 6, 8)
        y, z, w = net.tensor("y", (1, 8, 8, 8)), net.tensor("z", shape), net.tensor("w", shape)
        paddings = net.constant("p", [[0, 0], [1, 1], [1, 1], [0, 0]], "INT32")
        net.op("PADV2", [x, paddings, net.constant("v", 1000.0)], [y])
        net.op("SLICE", [y, net.constant("b", [0, 1, 1, 0], "INT32"), net.constant("s", shape, "INT32")], [z])
        net.op("LEAKY_RELU", [z], [w], alpha=0.1)
        return [w]

    proven = rewrite_proven(session, make_net(write), edgetpu, INT8, WISH)
    assert [rewrite.code for rewrite in proven.rewrites] == ["leaky-relu"]
    assert proven.difference <= 1e-5


def test_the_loss_of_an_approximation_is_measured(edgetpu: TargetProfile, session: Session) -> None:
    """Mode `approximate` reports how far the float outputs moved."""
    before = unary("GELU")
    assert rewrite_proven(session, before, edgetpu, INT8, WISH).tflite == before
    proven = rewrite_proven(session, before, edgetpu, INT8, TargetOptions(repair=Repair.APPROXIMATE))
    assert [rewrite.code for rewrite in proven.rewrites] == ["gelu"]
    assert 1e-4 < proven.difference < 0.021
    assert f"{proven.difference:.2g}" in proven.notes[0]


def test_constants_of_a_shape_count_the_ops_that_move(edgetpu: TargetProfile, session: Session) -> None:
    """SHAPE, SUB and SLICE would be off the accelerator; without repairs the file is as it was."""
    before = computed_slice()
    proven = rewrite_proven(session, before, edgetpu, INT8, WISH)
    left = off_accelerator(edgetpu, INT8, WISH)(read_model(before))
    assert [rewrite.moved_ops for rewrite in proven.rewrites] == [len(left)]
    assert proven.moved_ops == len(left)
    assert proven.difference == 0
    assert rewrite_unproven(before, edgetpu, INT8, WISH, mode="none").tflite == before
    skipped = rewrite_unproven(before, edgetpu, INT8, WISH, skip=frozenset({"constant-shape"}))
    assert skipped.tflite == before


def test_the_cpu_gets_the_file_as_it_is() -> None:
    """The host has nothing to move ops to, and in int8 every op of the file is an integer one."""
    before = grouped(2)
    assert rewrite_unproven(before, get_target("cpu"), SchemeRule("int8"), WISH).tflite == before


@pytest.mark.parametrize("target", ["cpu", "edgetpu"])
def test_what_would_stay_float_is_rewritten_for_every_target(target: str, session: Session) -> None:
    """SQUARE has no int8 kernel and its equivalent has: it becomes MUL, also on the CPU; in float16 it stays."""
    before = unary("SQUARE")
    proven = rewrite_proven(session, before, get_target(target), INT8, WISH)
    assert [op.name for op in read_model(proven.tflite).main.ops] == ["MUL"]
    assert [rewrite.code for rewrite in proven.rewrites] == ["plain-arithmetic"]
    assert rewrite_unproven(before, get_target("cpu"), SchemeRule("float16"), WISH).tflite == before


@pytest.mark.parametrize("maximum", [True, False])
@pytest.mark.parametrize("scheme", ["int8", "float16"])
def test_a_softmax_of_an_old_converter_is_fused(maximum: bool, scheme: str, session: Session) -> None:
    """REDUCE_MAX, SUB, EXP, SUM, DIV become SOFTMAX for every target and scheme; a sum that is read elsewhere stays."""

    def write(net: Net, x: int, *, shared: bool = False) -> list[int]:
        shape, kept = (1, 6, 6, 8), (1, 6, 6, 1)
        axis = net.constant("axis", [-1], "INT32")
        source = x
        if maximum:
            largest, source = net.tensor("largest", kept), net.tensor("shifted", shape)
            net.op("REDUCE_MAX", [x, axis], [largest], keepDims=True)
            net.op("SUB", [x, largest], [source])
        powers, total, y = net.tensor("powers", shape), net.tensor("total", kept), net.tensor("y", shape)
        net.op("EXP", [source], [powers])
        net.op("SUM", [powers, axis], [total], keepDims=True)
        net.op("DIV", [powers, total], [y])
        return [y, total] if shared else [y]

    before = make_net(write)
    proven = rewrite_proven(session, before, get_target("cpu"), SchemeRule(scheme), WISH)
    assert [op.name for op in read_model(proven.tflite).main.ops] == ["SOFTMAX"]
    assert [rewrite.code for rewrite in proven.rewrites] == ["softmax"] and proven.difference <= 1e-5
    shared = make_net(lambda net, x: write(net, x, shared=True))
    assert rewrite_unproven(shared, get_target("cpu"), SchemeRule("float16"), WISH).tflite == shared


def test_an_unknown_mode_is_a_usage_error(edgetpu: TargetProfile, session: Session) -> None:
    """The message lists the modes."""
    with pytest.raises(UsageError, match="expected exact, approximate or none, got 'fast'"):
        rewrite_proven(session, unary("RELU"), edgetpu, INT8, TargetOptions(repair="fast"))  # type: ignore[arg-type]


def test_fewer_steps_between_types_are_no_gain(edgetpu: TargetProfile) -> None:
    """NEG needs DEQUANTIZE and QUANTIZE around it and becomes MUL; but while GELU is refused, nothing moves."""

    def write(net: Net, x: int) -> list[int]:
        y, z = net.tensor("y", (1, 6, 6, 8)), net.tensor("z", (1, 6, 6, 8))
        net.op("NEG", [x], [y])
        net.op("GELU", [y], [z])
        return [z]

    before = make_net(write)
    exact = rewrite_unproven(before, edgetpu, INT8, WISH)
    assert [(rewrite.code, rewrite.moved_ops) for rewrite in exact.rewrites] == [("plain-arithmetic", 0)]
    assert exact.moved_ops == 0
    rewritten = rewrite_unproven(before, edgetpu, INT8, WISH, mode="approximate")
    assert {rewrite.code for rewrite in rewritten.rewrites} == {"plain-arithmetic", "gelu"}
