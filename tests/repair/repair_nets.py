"""Small float models with one site to rewrite each, and scores that leave chosen ops off the accelerator."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from builders import Net

from edgepack.graph import Model

SHAPE = (1, 6, 6, 8)


def refusing(*names: str, rank: int = 99) -> Callable[[Model], frozenset[int]]:
    """Return a score that leaves ops of these names, or with tensors above the rank, off the accelerator."""

    def score(model: Model) -> frozenset[int]:
        graph = model.main
        return frozenset(
            op.outputs[0]
            for op in graph.ops
            if op.name in names
            or any(t is not None and t.rank > rank for t in (*graph.op_inputs(op), *graph.op_outputs(op)))
        )

    return score


def refusing_groups(model: Model) -> frozenset[int]:
    """Refuse the whole file while it contains a grouped convolution, as a compiler's parser does."""
    graph = model.main
    grouped = [
        op
        for op in graph.ops
        if op.name == "CONV_2D" and graph.tensors[op.inputs[0]].shape[3] != graph.tensors[op.inputs[1]].shape[3]
    ]
    return frozenset(op.outputs[0] for op in graph.ops) if grouped else frozenset()


def net(write: Callable[[Net, int], Iterable[int]], shape: tuple[int, ...] = SHAPE) -> bytes:
    """Return a model with one input; `write` adds the ops and returns the outputs."""
    builder = Net(7)
    x = builder.tensor("x", shape)
    outputs = list(write(builder, x))
    return builder.build([x], outputs, (["image"], [f"result{i}" for i in range(len(outputs))]))


def unary(name: str, shape: tuple[int, ...] = SHAPE, **options: Any) -> bytes:
    """Return a model of one op whose output has the shape of its input."""

    def write(builder: Net, x: int) -> list[int]:
        y = builder.tensor("y", shape)
        builder.op(name, [x], [y], **options)
        return [y]

    return net(write, shape)


def with_constant(name: str, values: Any, out: tuple[int, ...] = SHAPE, **options: Any) -> bytes:
    """Return a model of one op with a constant second input."""

    def write(builder: Net, x: int) -> list[int]:
        y = builder.tensor("y", out)
        builder.op(name, [x, builder.constant("c", values)], [y], **options)
        return [y]

    return net(write)


def grouped(groups: int, *, filters: int = 8, times: int = 1) -> bytes:
    """Return grouped 3x3 convolutions with bias and RELU6, one after the other."""

    def write(builder: Net, x: int) -> list[int]:
        for number in range(times):
            y = builder.tensor(f"y{number}", (1, 6, 6, filters))
            weights = builder.weights(f"w{number}", filters, 3, 3, SHAPE[3] // groups)
            bias = builder.weights(f"b{number}", filters)
            builder.op("CONV_2D", [x, weights, bias], [y], strideW=1, strideH=1, fusedActivationFunction=3)
            x = y
        return [x]

    return net(write)


def moves(steps: list[tuple[str, list[int], tuple[int, ...]]], shape: tuple[int, ...] = SHAPE) -> bytes:
    """Return a chain of ops with one integer parameter each: (name, parameter, result's shape)."""

    def write(builder: Net, x: int) -> list[int]:
        for number, (name, parameter, result) in enumerate(steps):
            y = builder.tensor(f"step{number}", result)
            options = {"halfPixelCenters": False} if name == "RESIZE_NEAREST_NEIGHBOR" else {}
            builder.op(name, [x, builder.constant(f"p{number}", parameter, "INT32")], [y], **options)
            x = y
        return [x]

    return net(write, shape)


def repeated(factors: tuple[int, int], shape: tuple[int, ...] = SHAPE) -> bytes:
    """Return nearest upsampling as TensorFlow 2.21 writes tf.repeat: RESHAPE and TILE in five dimensions."""
    n, h, w, c = shape
    fh, fw = factors
    steps = [
        ("RESHAPE", [n, h, 1, w, c], (n, h, 1, w, c)),
        ("TILE", [1, 1, fh, 1, 1], (n, h, fh, w, c)),
        ("RESHAPE", [n, h * fh, w, 1, c], (n, h * fh, w, 1, c)),
        ("TILE", [1, 1, 1, fw, 1], (n, h * fh, w, fw, c)),
        ("RESHAPE", [n, h * fh, w * fw, c], (n, h * fh, w * fw, c)),
    ]
    return moves(steps, shape)


def shuffled(axes: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...], result: tuple[int, ...]) -> bytes:
    """Return RESHAPE to `axes`, TRANSPOSE, RESHAPE to `result`."""
    moved = tuple(axes[i] for i in order)
    steps = [("RESHAPE", list(axes), axes), ("TRANSPOSE", list(order), moved), ("RESHAPE", list(result), result)]
    return moves(steps, shape)


def split_v(sizes: list[int]) -> bytes:
    """Return SPLIT_V along the channels."""

    def write(builder: Net, x: int) -> list[int]:
        parts = [builder.tensor(f"part{i}", (*SHAPE[:3], size)) for i, size in enumerate(sizes)]
        inputs = [x, builder.constant("sizes", sizes, "INT32"), builder.constant("axis", 3, "INT32")]
        builder.op("SPLIT_V", inputs, parts, numSplits=len(sizes))
        return parts

    return net(write)


def padv2(value: float, *, inner_only: bool = False) -> bytes:
    """Return PADV2 by one pixel, and with `inner_only` a SLICE that removes the padding."""

    def write(builder: Net, x: int) -> list[int]:
        y = builder.tensor("y", (1, 8, 8, 8))
        paddings = builder.constant("paddings", [[0, 0], [1, 1], [1, 1], [0, 0]], "INT32")
        builder.op("PADV2", [x, paddings, builder.constant("value", value)], [y])
        if not inner_only:
            return [y]
        z = builder.tensor("z", SHAPE)
        builder.op(
            "SLICE", [y, builder.constant("b", [0, 1, 1, 0], "INT32"), builder.constant("s", SHAPE, "INT32")], [z]
        )
        return [z]

    return net(write)


def unpack(axis: int) -> bytes:
    """Return UNPACK along an axis."""

    def write(builder: Net, x: int) -> list[int]:
        shape = tuple(size for i, size in enumerate(SHAPE) if i != axis)
        parts = [builder.tensor(f"part{i}", shape) for i in range(SHAPE[axis])]
        builder.op("UNPACK", [x], parts, num=len(parts), axis=axis)
        return parts

    return net(write)


def shrinking_slice() -> bytes:
    """Return x[:, -2, 1::2]: STRIDED_SLICE that drops an axis."""

    def write(builder: Net, x: int) -> list[int]:
        y = builder.tensor("y", (1, 3, 8))
        parameters = [
            builder.constant(name, values, "INT32")
            for name, values in (("begin", [0, -2, 1, 0]), ("end", [0, -1, 0, 0]), ("strides", [1, 1, 2, 1]))
        ]
        builder.op("STRIDED_SLICE", [x, *parameters], [y], beginMask=9, endMask=13, shrinkAxisMask=2)
        return [y]

    return net(write)


def computed_slice() -> bytes:
    """Return the last pixels of each row, x[:, 3:, 4:], with a begin that is computed from the shape of x."""

    def write(builder: Net, x: int) -> list[int]:
        h, y = builder.tensor("h", SHAPE), builder.tensor("y", (1, 3, 2, 8))
        shape, begin = (builder.tensor(name, (4,), dtype="INT32") for name in ("shape", "begin"))
        size = builder.constant("size", [1, 3, 2, 8], "INT32")
        builder.op("RELU", [x], [h])
        builder.op("SHAPE", [h], [shape], outType=2)
        builder.op("SUB", [shape, size], [begin])
        builder.op("SLICE", [h, begin, size], [y])
        return [y]

    return net(write)


def mean(*, keep: bool) -> bytes:
    """Return MEAN over height and width."""

    def write(builder: Net, x: int) -> list[int]:
        y = builder.tensor("y", (1, 1, 1, 8) if keep else (1, 8))
        builder.op("MEAN", [x, builder.constant("axes", [1, 2], "INT32")], [y], keepDims=keep)
        return [y]

    return net(write)


def constant_product() -> bytes:
    """Return BATCH_MATMUL of (1, 6, 6, 8) with a constant (8, 5)."""

    def write(builder: Net, x: int) -> list[int]:
        y = builder.tensor("y", (1, 6, 6, 5))
        builder.op("BATCH_MATMUL", [x, builder.weights("m", 1, 1, 8, 5)], [y])
        return [y]

    return net(write)


def squared_difference() -> bytes:
    """Return (x - c) squared."""
    return with_constant("SQUARED_DIFFERENCE", np.linspace(-1, 1, 8))


#: name: (file, score, codes of the expected rewrites, ops in the result)
SITES: dict[str, tuple[Callable[[], bytes], Callable[[Model], frozenset[int]] | None, list[str], set[str]]] = {
    "grouped": (
        lambda: grouped(2), refusing_groups, ["grouped-convolution"], {"SPLIT", "CONV_2D", "CONCATENATION"},
    ),
    "grouped-twice": (
        lambda: grouped(4, times=2), refusing_groups, ["grouped-convolution"] * 2,
        {"SPLIT", "CONV_2D", "CONCATENATION"},
    ),
    "depthwise-in-disguise": (
        lambda: grouped(8, filters=16), refusing_groups, ["grouped-convolution"], {"DEPTHWISE_CONV_2D"},
    ),
    "leaky-prelu": (lambda: unary("LEAKY_RELU", alpha=0.3), refusing("LEAKY_RELU"), ["leaky-relu"], {"PRELU"}),
    "leaky-maximum": (
        lambda: unary("LEAKY_RELU", alpha=0.3), refusing("LEAKY_RELU", "PRELU"), ["leaky-relu"], {"MUL", "MAXIMUM"},
    ),
    "padv2-zero": (lambda: padv2(0.0), refusing("PADV2"), ["padv2-zero"], {"PAD"}),
    "padv2-shifted": (lambda: padv2(-1.5), refusing("PADV2"), ["padv2-shifted"], {"ADD", "PAD"}),
    "split-equal": (lambda: split_v([2, 2, 2, 2]), refusing("SPLIT_V"), ["split-v-equal"], {"SPLIT"}),
    "split-unequal": (lambda: split_v([1, 5, 2]), refusing("SPLIT_V"), ["split-v-slices"], {"SLICE"}),
    "unpack": (lambda: unpack(2), refusing("UNPACK"), ["unpack"], {"SPLIT", "RESHAPE"}),
    "division": (
        lambda: with_constant("DIV", np.linspace(0.3, 7, 8)), refusing("DIV"), ["constant-division"], {"MUL"},
    ),
    "mean": (lambda: mean(keep=False), None, ["mean-in-two"], {"MEAN"}),
    "mean-keep": (lambda: mean(keep=True), None, ["mean-in-two"], {"MEAN"}),
    "abs": (lambda: unary("ABS"), refusing("ABS"), ["plain-arithmetic"], {"MUL", "MAXIMUM"}),
    "neg": (lambda: unary("NEG"), refusing("NEG"), ["plain-arithmetic"], {"MUL"}),
    "square": (lambda: unary("SQUARE"), refusing("SQUARE"), ["plain-arithmetic"], {"MUL"}),
    "squared-difference": (
        squared_difference, refusing("SQUARED_DIFFERENCE"), ["plain-arithmetic"], {"SUB", "MUL"},
    ),
    "product": (
        constant_product, refusing("BATCH_MATMUL"), ["constant-product"], {"RESHAPE", "FULLY_CONNECTED"},
    ),
    "tile": (
        lambda: moves([("TILE", [1, 2, 1, 3], (1, 12, 6, 24))]), refusing("TILE"), ["tile"], {"CONCATENATION"},
    ),
    "shrinking-slice": (shrinking_slice, None, ["shrinking-slice"], {"STRIDED_SLICE", "RESHAPE"}),
    "upsampling": (
        lambda: repeated((2, 3)), refusing(rank=4), ["nearest-upsampling"], {"RESIZE_NEAREST_NEIGHBOR"},
    ),
    "channel-shuffle": (
        lambda: shuffled((1, 6, 6, 2, 4), (0, 1, 2, 4, 3), SHAPE, SHAPE),
        refusing(rank=4), ["flat-transpose"], {"RESHAPE", "TRANSPOSE"},
    ),
    "depth-to-space": (
        lambda: shuffled((1, 6, 6, 2, 2, 2), (0, 1, 3, 2, 4, 5), SHAPE, (1, 12, 12, 2)),
        refusing(rank=4), ["block-shuffle"], {"DEPTH_TO_SPACE"},
    ),
    "space-to-depth": (
        lambda: shuffled((1, 3, 2, 3, 2, 8), (0, 1, 3, 2, 4, 5), SHAPE, (1, 3, 3, 32)),
        refusing(rank=4), ["block-shuffle"], {"SPACE_TO_DEPTH"},
    ),
    "nothing-moved": (
        lambda: moves([("RESHAPE", [1, 6, 2, 3, 8], (1, 6, 2, 3, 8)), ("RESHAPE", [1, 288], (1, 288))]),
        refusing(rank=4), ["flat-reshape"], {"RESHAPE"},
    ),
}  # fmt: skip
