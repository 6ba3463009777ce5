"""Every exact rewrite computes the same, is done where it helps and nowhere else, and leaves a sound file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import run, samples
from repair_nets import PLACES, SHAPE, grouped, moves, net, refusing, refusing_groups, repeated, shuffled, unary

from edgepack.graph import Model, read_model
from edgepack.graph.edit import write_true_versions
from edgepack.repair import CODES, EXACT, TOLERANCE, prove, repair


def large_means(model: Model) -> frozenset[int]:
    """Refuse MEAN over more than 6 values, as a small accelerator does."""
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
    given = PLACES[name][1]
    return given if given is not None else (large_means if name.startswith("mean") else shrinking)


def names(tflite: bytes) -> list[str]:
    return [op.name for op in read_model(tflite).main.ops]


@pytest.mark.parametrize("name", PLACES)
def test_computes_the_same_with_ops_that_are_taken(name: str) -> None:
    """A refused op is rewritten by ops the target takes; outputs agree within 1e-5 in the real runtime."""
    file, _, codes, ops = PLACES[name]
    before = file()
    done = repair(before, score_of(name))
    assert [rewrite.code for rewrite in done.rewrites] == codes
    assert set(names(done.tflite)) == ops
    assert score_of(name)(read_model(done.tflite)) == frozenset()
    assert done.moved_ops == len(score_of(name)(read_model(before)))
    assert all(rewrite.exact and rewrite.moved_ops > 0 for rewrite in done.rewrites)
    assert prove(before, done.tflite, samples(before, 4)) <= TOLERANCE


@pytest.mark.parametrize("name", PLACES)
def test_leaves_alone_what_the_target_takes(name: str) -> None:
    """Nothing is rewritten for a target that takes every op, and nothing in mode `none`: the same bytes come back."""
    before = PLACES[name][0]()
    assert repair(before, lambda _: frozenset()).tflite == before
    assert repair(before, score_of(name), mode="none").tflite == before


@pytest.mark.parametrize("name", PLACES)
def test_leaves_alone_what_no_rewrite_helps(name: str) -> None:
    """A target that takes nothing gains nothing, so the file comes back as it was."""
    before = PLACES[name][0]()
    done = repair(before, lambda model: frozenset(op.outputs[0] for op in model.main.ops))
    assert (done.tflite, done.rewrites, done.moved_ops) == (before, (), 0)


@pytest.mark.parametrize("name", PLACES)
def test_the_file_keeps_its_face(name: str) -> None:
    """Names, shapes, signature and order of inputs and outputs stay; versions are true; the same bytes every time."""
    before = PLACES[name][0]()
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
    """Each exact rewrite function is exercised by the files above."""
    used = set()
    for file, *_ in PLACES.values():
        graph = read_model(file()).main
        used |= {rewriter for rewriter in EXACT for op in graph.ops if rewriter(graph, op)}
    assert used == set(EXACT)


def test_weights_that_are_cut_up_are_not_kept_twice() -> None:
    """The convolution's own weights leave the file when its parts hold them."""
    before = grouped(4, filters=512)
    after = repair(before, refusing_groups).tflite
    # SPLIT, four convolutions and CONCATENATION cost some 2 kB of tables.
    assert len(after) < len(before) + 4096


def test_grouped_convolutions_lose_their_version() -> None:
    """Without groups, CONV_2D goes back to version 1, which old parsers know; that is why all of them must go."""
    before = write_true_versions(grouped(2, times=3))
    assert {op.version for op in read_model(before).main.ops} == {6}
    after = read_model(repair(before, refusing_groups).tflite)
    assert {op.version for op in after.main.ops if op.name == "CONV_2D"} == {1}


def test_only_places_that_move_ops_are_rewritten() -> None:
    """Of two equal ops, the one behind the cut stays as it is: rewriting it would move nothing."""

    def write(made: Any, x: int) -> list[int]:
        for number, op in enumerate(("LEAKY_RELU", "FLOOR", "LEAKY_RELU")):
            y = made.tensor(f"y{number}", SHAPE)
            made.op(op, [x], [y], **({"alpha": 0.1} if op == "LEAKY_RELU" else {}))
            x = y
        return [x]

    def first_part_only(model: Model) -> frozenset[int]:
        found, cut = set(), False
        for op in model.main.ops:
            cut = cut or op.name in {"LEAKY_RELU", "FLOOR"}
            found.update(op.outputs if cut else ())
        return frozenset(found)

    done = repair(net(write), first_part_only)
    assert names(done.tflite) == ["PRELU", "FLOOR", "LEAKY_RELU"]
    assert [(r.op, r.index, r.moved_ops) for r in done.rewrites] == [("LEAKY_RELU", 0, 1)]


@pytest.mark.parametrize("factors", [(2, 1), (1, 3), (5, 5), (8, 4), (41, 1)], ids=str)
def test_upsampling_by_any_whole_number(factors: tuple[int, int]) -> None:
    """Repeated rows and columns are the same values after the rewrite, also where float32 rounds the scale down."""
    before = repeated(factors, (1, 5, 3, 2))
    done = repair(before, refusing(rank=4))
    assert names(done.tflite) == ["RESIZE_NEAREST_NEIGHBOR"]
    assert prove(before, done.tflite, samples(before, 1)) == 0.0


def test_large_upsampling_goes_in_steps() -> None:
    """Where one step may not scale by more than 4, a factor of 8 becomes two steps."""

    def limited(model: Model) -> frozenset[int]:
        graph = model.main
        return frozenset(
            op.outputs[0]
            for op in graph.ops
            if graph.tensors[op.outputs[0]].shape[1] > 4 * graph.tensors[op.inputs[0]].shape[1]
        )

    before = moves([("RESIZE_NEAREST_NEIGHBOR", [48, 12], (1, 48, 12, 8))])
    done = repair(before, limited)
    assert names(done.tflite) == ["RESIZE_NEAREST_NEIGHBOR"] * 2
    assert prove(before, done.tflite, samples(before, 1)) == 0.0


@pytest.mark.parametrize("seed", range(12))
def test_any_shuffle_of_axes_fits_three_dimensions(seed: int) -> None:
    """Random shuffles of up to 6 axes become transposes of 3 axes that give the very same values."""
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

    done = repair(before, effective_rank_3)
    assert effective_rank_3(read_model(done.tflite)) == frozenset()
    assert prove(before, done.tflite, samples(before, 1)) == 0.0


def test_a_chain_that_others_look_into_is_not_rewritten() -> None:
    """A value inside the chain that is an output of the model keeps its op."""

    def write(made: Any, x: int) -> list[int]:
        inner, last = made.tensor("inner", (1, 6, 2, 3, 8)), made.tensor("last", SHAPE)
        made.op("RESHAPE", [x, made.constant("a", [1, 6, 2, 3, 8], "INT32")], [inner])
        made.op("RESHAPE", [inner, made.constant("b", SHAPE, "INT32")], [last])
        return [inner, last]

    before = net(write)
    assert repair(before, refusing(rank=4)).tflite == before


def test_an_open_batch_is_fixed_when_something_is_rewritten() -> None:
    """A model with an open batch is rewritten for batch 1, and says so."""
    from edgepack.graph.edit import pack, unpack

    file = unpack(unary("LEAKY_RELU", alpha=0.2))
    for tensor in file.subgraphs[0].tensors:
        tensor.shapeSignature = np.array([-1, *SHAPE[1:]], np.int32)
    before = pack(file)
    done = repair(before, refusing("LEAKY_RELU"))
    assert [rewrite.code for rewrite in done.rewrites] == ["batch-1", "leaky-relu"]
    assert not any(tensor.is_dynamic for tensor in read_model(done.tflite).main.tensors)
    assert repair(before, lambda _: frozenset()).tflite == before


def test_the_proof_sees_a_difference() -> None:
    """Files that do not compute the same do not prove the same, and what is not finite proves nothing."""
    one, other = unary("LEAKY_RELU", alpha=0.2), unary("LEAKY_RELU", alpha=0.2001)
    assert prove(one, one, samples(one, 2)) == 0.0
    assert TOLERANCE < prove(one, other, samples(one, 2)) < 1e-3
    assert prove(unary("SQUARE"), unary("SQRT"), samples(one, 1)) == float("inf")


def test_runs_as_rewritten() -> None:
    """The numbers of the repaired file are those NumPy computes for the original op."""
    before = unary("LEAKY_RELU", alpha=0.3)
    sample = samples(before, 1)[0]
    after = repair(before, refusing("LEAKY_RELU")).tflite
    x = sample["image"]
    np.testing.assert_allclose(run(after, sample)[0], np.where(x < 0, 0.3 * x, x), rtol=1e-6)


def test_every_rewrite_is_documented() -> None:
    """docs/concepts/repairs.md has a row for each code that a rewrite can carry, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "repairs.md").read_text()
    rows = page.partition("## Exact")[2].splitlines()
    assert sorted(line.split("`")[1] for line in rows if line.startswith("| `")) == sorted(CODES)
