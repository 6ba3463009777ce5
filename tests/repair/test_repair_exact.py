"""Exact rewrites compute the same, are applied only where they help, and result in valid files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import run, samples
from repair_nets import SHAPE, SITES, grouped, moves, net, refusing, refusing_groups, repeated, shuffled, unary

from edgepack.choices import Repair
from edgepack.graph import Model, read_model
from edgepack.graph.edit import write_true_versions
from edgepack.repair import CODES, EXACT, TOLERANCE, prove, repair


def large_means(model: Model) -> frozenset[int]:
    """Refuse MEAN over more than 6 values, as a small accelerator would."""
    graph = model.main
    return frozenset(
        op.outputs[0]
        for op in graph.ops
        if op.name == "MEAN" and graph.tensors[op.inputs[0]].elements > 6 * graph.tensors[op.outputs[0]].elements
    )


def shrinking(model: Model) -> frozenset[int]:
    """Refuse STRIDED_SLICE that drops axes."""
    return frozenset(op.outputs[0] for op in model.main.ops if op.options.get("shrink_axis_mask"))


def score_of(name: str) -> Callable[[Model], frozenset[int]]:
    score = SITES[name][1]
    return score if score is not None else (large_means if name.startswith("mean") else shrinking)


def names(tflite: bytes) -> list[str]:
    return [op.name for op in read_model(tflite).main.ops]


@pytest.mark.parametrize("name", SITES)
def test_computes_the_same_with_ops_that_are_taken(name: str) -> None:
    """An unsupported op is rewritten as supported ones; outputs agree within 1e-5 in the real runtime."""
    file, _, codes, ops = SITES[name]
    before = file()
    result = repair(before, score_of(name))
    assert [rewrite.code for rewrite in result.rewrites] == codes
    assert set(names(result.tflite)) == ops
    assert score_of(name)(read_model(result.tflite)) == frozenset()
    assert result.moved_ops == len(score_of(name)(read_model(before)))
    assert all(rewrite.exact and rewrite.moved_ops > 0 for rewrite in result.rewrites)
    assert prove(before, result.tflite, samples(before, 4)) <= TOLERANCE


@pytest.mark.parametrize("name", SITES)
def test_leaves_alone_what_the_target_takes(name: str) -> None:
    """For a target that supports every op, and in mode `none`, the same bytes come back."""
    before = SITES[name][0]()
    assert repair(before, lambda _: frozenset()).tflite == before
    assert repair(before, score_of(name), mode=Repair.NONE).tflite == before


@pytest.mark.parametrize("name", SITES)
def test_leaves_alone_what_no_rewrite_helps(name: str) -> None:
    """For a target that supports no op, no rewrite helps and the same bytes come back."""
    before = SITES[name][0]()
    result = repair(before, lambda model: frozenset(op.outputs[0] for op in model.main.ops))
    assert (result.tflite, result.rewrites, result.moved_ops) == (before, (), 0)


@pytest.mark.parametrize("name", SITES)
def test_the_file_keeps_its_face(name: str) -> None:
    """Names, shapes and order of inputs and outputs stay, op versions are correct, results are reproducible."""
    before = SITES[name][0]()
    after = repair(before, score_of(name)).tflite
    old, new = read_model(before), read_model(after)
    assert new.input_names() == old.input_names()
    assert new.output_names() == old.output_names()
    for kind in ("inputs", "outputs"):
        mine, theirs = ([m.main.tensors[i] for i in getattr(m.main, kind)] for m in (new, old))
        assert [(t.name, t.shape, t.dtype) for t in mine] == [(t.name, t.shape, t.dtype) for t in theirs]
    assert write_true_versions(after) == after
    assert repair(before, score_of(name)).tflite == after


def test_every_rewrite_has_an_example() -> None:
    """Each exact rewrite function applies to one of the test models."""
    used = set()
    for file, *_ in SITES.values():
        graph = read_model(file()).main
        used |= {rewriter for rewriter in EXACT for op in graph.ops if rewriter(graph, op)}
    assert used == set(EXACT)


def test_weights_that_are_cut_up_are_not_kept_twice() -> None:
    """The weights of a convolution are removed from the file when its parts contain them."""
    before = grouped(4, filters=512)
    after = repair(before, refusing_groups).tflite
    # The tables of SPLIT, four convolutions and CONCATENATION take about 2 kB.
    assert len(after) < len(before) + 4096


def test_grouped_convolutions_lose_their_version() -> None:
    """Without groups, CONV_2D has version 1, which old parsers support, if all grouped ones are rewritten."""
    before = write_true_versions(grouped(2, times=3))
    assert {op.version for op in read_model(before).main.ops} == {6}
    after = read_model(repair(before, refusing_groups).tflite)
    assert {op.version for op in after.main.ops if op.name == "CONV_2D"} == {1}


def test_only_places_that_move_ops_are_rewritten() -> None:
    """Of two equal ops, the one behind the partition boundary is not rewritten: that would move no op."""

    def write(builder: Any, x: int) -> list[int]:
        for number, op in enumerate(("LEAKY_RELU", "FLOOR", "LEAKY_RELU")):
            y = builder.tensor(f"y{number}", SHAPE)
            builder.op(op, [x], [y], **({"alpha": 0.1} if op == "LEAKY_RELU" else {}))
            x = y
        return [x]

    def first_part_only(model: Model) -> frozenset[int]:
        refused, cut = set(), False
        for op in model.main.ops:
            cut = cut or op.name in {"LEAKY_RELU", "FLOOR"}
            refused.update(op.outputs if cut else ())
        return frozenset(refused)

    result = repair(net(write), first_part_only)
    assert names(result.tflite) == ["PRELU", "FLOOR", "LEAKY_RELU"]
    assert [(r.op, r.index, r.moved_ops) for r in result.rewrites] == [("LEAKY_RELU", 0, 1)]


@pytest.mark.parametrize("factors", [(2, 1), (1, 3), (5, 5), (8, 4), (41, 1)], ids=str)
def test_upsampling_by_any_whole_number(factors: tuple[int, int]) -> None:
    """Repeated rows and columns have the same values after the rewrite, also where float32 rounds the scale down."""
    before = repeated(factors, (1, 5, 3, 2))
    result = repair(before, refusing(rank=4))
    assert names(result.tflite) == ["RESIZE_NEAREST_NEIGHBOR"]
    assert prove(before, result.tflite, samples(before, 1)) == 0.0


def test_large_upsampling_goes_in_steps() -> None:
    """Where one op may not scale by more than 4, a factor of 8 becomes two ops."""

    def limited(model: Model) -> frozenset[int]:
        graph = model.main
        return frozenset(
            op.outputs[0]
            for op in graph.ops
            if graph.tensors[op.outputs[0]].shape[1] > 4 * graph.tensors[op.inputs[0]].shape[1]
        )

    before = moves([("RESIZE_NEAREST_NEIGHBOR", [48, 12], (1, 48, 12, 8))])
    result = repair(before, limited)
    assert names(result.tflite) == ["RESIZE_NEAREST_NEIGHBOR"] * 2
    assert prove(before, result.tflite, samples(before, 1)) == 0.0


@pytest.mark.parametrize("seed", range(12))
def test_any_shuffle_of_axes_fits_three_dimensions(seed: int) -> None:
    """Random shuffles of up to 6 axes become transposes of 3 axes that give the same values."""
    random = np.random.default_rng(seed)
    axes = tuple(int(n) for n in random.integers(2, 4, random.integers(3, 7)))
    order = tuple(int(i) for i in random.permutation(len(axes)))
    shape = (1, int(np.prod(axes)))
    before = shuffled(axes, order, shape, shape)

    def effective_rank_3(model: Model) -> frozenset[int]:
        graph = model.main
        return frozenset(
            op.outputs[0]
            for op in graph.ops
            if any(size > 1 for i in (op.inputs[0], op.outputs[0]) for size in graph.tensors[i].shape[:-3])
        )

    result = repair(before, effective_rank_3)
    assert effective_rank_3(read_model(result.tflite)) == frozenset()
    assert prove(before, result.tflite, samples(before, 1)) == 0.0


def test_a_chain_that_others_look_into_is_not_rewritten() -> None:
    """A tensor inside the chain that is an output of the model keeps its op."""

    def write(builder: Any, x: int) -> list[int]:
        inner, last = builder.tensor("inner", (1, 6, 2, 3, 8)), builder.tensor("last", SHAPE)
        builder.op("RESHAPE", [x, builder.constant("a", [1, 6, 2, 3, 8], "INT32")], [inner])
        builder.op("RESHAPE", [inner, builder.constant("b", SHAPE, "INT32")], [last])
        return [inner, last]

    before = net(write)
    assert repair(before, refusing(rank=4)).tflite == before


def test_an_open_batch_is_fixed_when_something_is_rewritten() -> None:
    """A model with a dynamic batch is rewritten for batch 1, and the rewrite is reported."""
    from edgepack.graph.edit import pack, unpack

    file = unpack(unary("LEAKY_RELU", alpha=0.2))
    for tensor in file.subgraphs[0].tensors:
        tensor.shapeSignature = np.array([-1, *SHAPE[1:]], np.int32)
    before = pack(file)
    result = repair(before, refusing("LEAKY_RELU"))
    assert [rewrite.code for rewrite in result.rewrites] == ["batch-1", "leaky-relu"]
    assert not any(tensor.is_dynamic for tensor in read_model(result.tflite).main.tensors)
    assert repair(before, lambda _: frozenset()).tflite == before


def test_the_proof_sees_a_difference() -> None:
    """`prove` reports the difference of files that compute other values, and infinity if values are not finite."""
    one, other = unary("LEAKY_RELU", alpha=0.2), unary("LEAKY_RELU", alpha=0.2001)
    assert prove(one, one, samples(one, 2)) == 0.0
    assert TOLERANCE < prove(one, other, samples(one, 2)) < 1e-3
    assert prove(unary("SQUARE"), unary("SQRT"), samples(one, 1)) == float("inf")


def test_runs_as_rewritten() -> None:
    """The repaired file computes the values that NumPy computes for the original op."""
    before = unary("LEAKY_RELU", alpha=0.3)
    sample = samples(before, 1)[0]
    after = repair(before, refusing("LEAKY_RELU")).tflite
    x = sample["image"]
    np.testing.assert_allclose(run(after, sample)[0], np.where(x < 0, 0.3 * x, x), rtol=1e-6)


def test_every_rewrite_is_documented() -> None:
    """docs/concepts/repairs.md has a row for each rewrite code, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "repairs.md").read_text()
    rows = page.partition("## Exact")[2].splitlines()
    assert sorted(line.split("`")[1] for line in rows if line.startswith("| `")) == sorted(CODES)
