"""Ops between two layers whose channels may be scaled: those that commute with positive factors do, others are left."""

from collections.abc import Callable, Sequence
from typing import Any

import builders
import numpy as np
import pytest

from edgepack.graph import read_model
from edgepack.graph.read import schema
from edgepack.quantize.ptq.cross_layer_equalization import (
    channel_ranges,
    equalize,
    equalize_weights,
    find_equalization_groups,
    scale_channels,
)
from edgepack.quantize.ptq.layers import find_layers

CHANNELS = 6
IMAGE, ROWS, VECTOR = (1, 4, 6, CHANNELS), (1, 6, CHANNELS), (1, CHANNELS)

#: Adds ops to a net behind the tensors of the first layers, of one shape, and returns (result, its shape).
Part = Callable[[builders.Net, Sequence[int], tuple[int, ...]], tuple[int, tuple[int, ...]]]


def _op(name: str, shape: tuple[int, ...] | None = None, *constants: Any, operands: int = 1, **options: Any) -> Part:
    """One op, of the first layers' results and constants; `shape` is that of its result, the operands' by default."""

    def part(net: builders.Net, sources: Sequence[int], before: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        after = before if shape is None else shape
        result = net.tensor("op", after)
        values = [np.asarray(constant) for constant in constants]
        made = [net.constant(f"c{n}", v, "INT32" if v.dtype.kind == "i" else "FLOAT32") for n, v in enumerate(values)]
        net.op(name, [*sources[:operands], *made], [result], **options)
        return result, after

    return part


def _with_itself(name: str) -> Part:
    """An op of one tensor as both of its operands."""

    def part(net: builders.Net, sources: Sequence[int], before: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        result = net.tensor("op", before)
        net.op(name, [sources[0], sources[0]], [result])
        return result, before

    return part


def _broadcast(name: str) -> Part:
    """An op of an image and the means of another's channels: it is not scaled, though it would commute."""

    def part(net: builders.Net, sources: Sequence[int], before: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        small, result = net.tensor("small", (1, 1, 1, CHANNELS)), net.tensor("op", before)
        net.op("MEAN", [sources[1], net.constant("axes", [1, 2], "INT32")], [small], keepDims=True)
        net.op(name, [sources[0], small], [result])
        return result, before

    return part


_RELU, _RELU_N1_TO_1, _SIGN_BIT = (
    getattr(schema().ActivationFunctionType, name) for name in ("RELU", "RELU_N1_TO_1", "SIGN_BIT")
)

SLOPES = np.linspace(-0.5, 1.5, CHANNELS)
BLOCKS, CROPS = [2, 3], [[0, 0], [0, 0]]

#: Ops that commute in each form of their attributes, with the shape of their operands.
COMMUTING: dict[str, tuple[Part, tuple[int, ...]]] = {
    "PRELU": (_op("PRELU", None, SLOPES.reshape(1, 1, CHANNELS)), IMAGE),
    "PRELU-one-slope": (_op("PRELU", None, np.full((1, 1, 1), -0.3)), IMAGE),
    "PRELU-every-place": (_op("PRELU", None, np.linspace(-1, 1, 144).reshape(IMAGE[1:])), IMAGE),
    "PRELU-rank-2": (_op("PRELU", None, SLOPES), VECTOR),
    "PRELU-by-a-result": (_op("PRELU", operands=2), IMAGE),
    "SUB": (_op("SUB", operands=2), IMAGE),
    "SUB-rank-3": (_op("SUB", operands=2), ROWS),
    "SUB-RELU": (_op("SUB", operands=2, fusedActivationFunction=_RELU), IMAGE),
    "MAXIMUM": (_op("MAXIMUM", operands=2), IMAGE),
    "MINIMUM": (_op("MINIMUM", operands=2), IMAGE),
    "MAXIMUM-rank-2": (_op("MAXIMUM", operands=2), VECTOR),
    "MAXIMUM-with-itself": (_with_itself("MAXIMUM"), IMAGE),
    "ABS": (_op("ABS"), IMAGE),
    "NEG": (_op("NEG"), IMAGE),
    "NEG-rank-3": (_op("NEG"), ROWS),
    "SUM": (_op("SUM", (1, 1, 1, CHANNELS), [1, 2], keepDims=True), IMAGE),
    "SUM-one-axis": (_op("SUM", (1, 4, CHANNELS), [2]), IMAGE),
    "SUM-negative-axis": (_op("SUM", (1, CHANNELS), [-2]), ROWS),
    "SUM-of-as-many-rows-as-channels": (_op("SUM", (1, CHANNELS), [1]), ROWS),
    "MEAN": (_op("MEAN", (1, CHANNELS), [1, -2]), IMAGE),
    "EXPAND_DIMS": (_op("EXPAND_DIMS", (1, 1, 6, CHANNELS), 1), ROWS),
    "EXPAND_DIMS-first": (_op("EXPAND_DIMS", (1, 1, CHANNELS), 0), VECTOR),
    "EXPAND_DIMS-negative": (_op("EXPAND_DIMS", (1, 1, CHANNELS), -2), VECTOR),
    "SPACE_TO_BATCH_ND": (_op("SPACE_TO_BATCH_ND", (6, 2, 2, CHANNELS), BLOCKS, CROPS), IMAGE),
    "SPACE_TO_BATCH_ND-padded": (_op("SPACE_TO_BATCH_ND", (6, 3, 3, CHANNELS), BLOCKS, [[1, 1], [2, 1]]), IMAGE),
    "SPACE_TO_BATCH_ND-rank-3": (_op("SPACE_TO_BATCH_ND", (3, 2, CHANNELS), [3], [[0, 0]]), ROWS),
    "RESHAPE": (_op("RESHAPE", (1, 24, CHANNELS), [1, 24, CHANNELS]), IMAGE),
    "PAD": (_op("PAD", (1, 5, 8, CHANNELS), [[0, 0], [0, 1], [1, 1], [0, 0]]), IMAGE),
    "CONCATENATION": (_op("CONCATENATION", (1, 8, 6, CHANNELS), operands=2, axis=1), IMAGE),
}

#: Ops that do not commute in this form, or of which that is not known.
OTHERS: dict[str, tuple[Part, tuple[int, ...]]] = {
    "PRELU-by-itself": (_with_itself("PRELU"), IMAGE),
    "SUB-constant": (_op("SUB", None, SLOPES), IMAGE),
    "SUB-broadcast": (_broadcast("SUB"), IMAGE),
    "SUB-RELU_N1_TO_1": (_op("SUB", operands=2, fusedActivationFunction=_RELU_N1_TO_1), IMAGE),
    "SUB-SIGN_BIT": (_op("SUB", operands=2, fusedActivationFunction=_SIGN_BIT), IMAGE),
    "MAXIMUM-constant": (_op("MAXIMUM", None, SLOPES), IMAGE),
    "MINIMUM-constant": (_op("MINIMUM", None, np.float32(0.5)), IMAGE),
    "MAXIMUM-broadcast": (_broadcast("MAXIMUM"), IMAGE),
    "SUM-of-channels": (_op("SUM", (1, 6), [2]), ROWS),
    "SUM-of-channels-negative": (_op("SUM", (1, 6), [-1]), ROWS),
    "SUM-of-everything": (_op("SUM", (1, 1, 1), [0, 1, 2], keepDims=True), ROWS),
    "MEAN-of-channels": (_op("MEAN", (1, 6), [-1]), ROWS),
    "EXPAND_DIMS-last": (_op("EXPAND_DIMS", (1, CHANNELS, 1), 2), VECTOR),
    "EXPAND_DIMS-negative-last": (_op("EXPAND_DIMS", (1, CHANNELS, 1), -1), VECTOR),
    "RESHAPE-of-channels": (_op("RESHAPE", (1, 4 * 6 * CHANNELS), [1, 4 * 6 * CHANNELS]), IMAGE),
    "PAD-of-channels": (_op("PAD", (1, 4, 6, 8), [[0, 0], [0, 0], [0, 0], [1, 1]]), IMAGE),
    "CONCATENATION-of-channels": (_op("CONCATENATION", (1, 4, 6, 12), operands=2, axis=-1), IMAGE),
    "SQUARE": (_op("SQUARE"), IMAGE),
}


def _layer(net: builders.Net, source: int, shape: tuple[int, ...], name: str, units: int) -> int:
    """A 1x1 convolution or a dense layer along the last axis."""
    result = net.tensor(name, (*shape[:-1], units))
    bias = net.weights(f"{name}/b", units)
    if len(shape) == 4:
        net.op("CONV_2D", [source, net.weights(f"{name}/w", units, 1, 1, shape[-1]), bias], [result],
               strideW=1, strideH=1)  # fmt: skip
    else:
        net.op("FULLY_CONNECTED", [source, net.weights(f"{name}/w", units, shape[-1]), bias], [result],
               keepNumDims=True)  # fmt: skip
    return result


def network(part: Part, shape: tuple[int, ...]) -> bytes:
    """Two layers beside each other, the op, and a layer behind it."""
    net = builders.Net(8)
    x = net.tensor("x", shape)
    sources = [_layer(net, x, shape, name, CHANNELS) for name in ("left", "right")]
    result, after = part(net, sources, shape)
    ends = [_layer(net, result, after, "end", 5)]
    # What the op does not read is an output.
    tflite = net.build([x], ends)
    read = {index for op in read_model(tflite).main.ops for index in op.inputs}
    return tflite if read.issuperset(sources) else net.build([x], [*ends, *(s for s in sources if s not in read)])


def _groups(tflite: bytes) -> list[set[str]]:
    """The names of the tensors of each group."""
    graph = read_model(tflite).main
    groups = find_equalization_groups(graph, find_layers(graph))
    return [{graph.tensors[index].name for index in group.tensors} for group in groups]


def _assert_same(before: bytes, after: bytes, samples: list[dict[str, np.ndarray]]) -> None:
    for sample in samples:
        for expected, actual in zip(builders.run(before, sample), builders.run(after, sample), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", COMMUTING)
def test_scaled_channels_pass_through(name):
    """Factors from 1/8 to 8 of each channel in front of the op, taken back behind it, change no output."""
    tflite = network(*COMMUTING[name])
    graph = read_model(tflite).main
    (group,) = find_equalization_groups(graph, find_layers(graph))
    assert {"left", "op"} <= {graph.tensors[index].name for index in group.tensors}
    samples = builders.samples(tflite, 3)
    factors = np.array([8.0, 0.125, 1.0, 3.0, 0.4, 5.0], np.float32)
    changed = scale_channels(tflite, [(group, factors)])
    assert changed != tflite
    _assert_same(tflite, changed, samples)
    ranges = channel_ranges(tflite, [group], samples)
    for other in (equalize(tflite, ranges, 1.0), equalize_weights(tflite, ranges)):
        _assert_same(tflite, other, samples)


@pytest.mark.parametrize("name", OTHERS)
def test_other_ops_keep_their_channels(name):
    """Where a factor per channel would change the result, or constants would have to change, nothing is scaled."""
    tflite = network(*OTHERS[name])
    assert not {"left", "right", "op", "small"} & set().union(*_groups(tflite))


@pytest.mark.parametrize("shape", [(6, 2, 2, CHANNELS), (3, 2, CHANNELS)], ids=str)
def test_batches_become_space_again(shape):
    """SPACE_TO_BATCH_ND, a layer and BATCH_TO_SPACE_ND, as converters write dilation: scaled in front and behind."""
    net = builders.Net(9)
    before = IMAGE if len(shape) == 4 else ROWS
    blocks, crops = (BLOCKS, CROPS) if len(shape) == 4 else ([3], [[0, 0]])
    x = net.tensor("x", before)
    first = _layer(net, x, before, "first", CHANNELS)
    parted, joined = net.tensor("parted", shape), net.tensor("joined", before)
    block, crop = net.constant("block", blocks, "INT32"), net.constant("crop", crops, "INT32")
    net.op("SPACE_TO_BATCH_ND", [first, block, crop], [parted])
    middle = _layer(net, parted, shape, "middle", CHANNELS)
    net.op("BATCH_TO_SPACE_ND", [middle, block, crop], [joined])
    tflite = net.build([x], [_layer(net, joined, before, "end", 5)])
    assert sorted(map(sorted, _groups(tflite))) == [["first", "parted"], ["joined", "middle"]]
    graph = read_model(tflite).main
    groups = find_equalization_groups(graph, find_layers(graph))
    random = np.random.default_rng(0)
    changed = scale_channels(tflite, [(group, random.uniform(0.1, 9.0, CHANNELS)) for group in groups])
    _assert_same(tflite, changed, builders.samples(tflite, 3))
