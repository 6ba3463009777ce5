"""Graphs with LayerNorm and RMSNorm in the forms that converters write, and others that look alike and are none."""

from collections.abc import Callable, Sequence
from typing import Any

import builders
import numpy as np

from edgepack.graph.read import schema

EPSILON = 1e-3

#: A function that adds ops to a net and returns the tensor with their result.
Part = Callable[["Ops", int], int]


class Ops:
    """A net in which each op is one call, with outputs shaped by NumPy's rules of broadcasting."""

    def __init__(self, shape: Sequence[int], seed: int = 5) -> None:
        self.net = builders.Net(seed)
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._count = 0
        self.x = self.tensor(tuple(shape), "x")

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return self._shapes[self.x][-1]

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._shapes[tensor]

    def constant(self, values: Any) -> int:
        """A float constant."""
        self._count += 1
        index = self.net.constant(f"constant{self._count}", values)
        self._shapes[index] = np.shape(values)
        return index

    def gain(self) -> int:
        """A factor of each channel, one of them zero and some of them negative."""
        values = self.net.random.normal(1.0, 1.0, self.channels)
        values[0] = 0.0
        return self.constant(values)

    def offset(self) -> int:
        """A summand of each channel."""
        return self.constant(self.net.random.normal(0.0, 1.0, self.channels))

    def op(self, name: str, *inputs: int, activation: str = "NONE") -> int:
        """The result of an op that works value by value."""
        result = self.tensor(np.broadcast_shapes(*(self._shapes[index] for index in inputs)), name)
        fused = {"fusedActivationFunction": getattr(schema().ActivationFunctionType, activation)}
        self.net.op(name, list(inputs), [result], **(fused if name in {"ADD", "SUB", "MUL"} else {}))
        return result

    def mean(self, tensor: int, axes: Sequence[int] = (-1,), *, keep: bool = True) -> int:
        """The mean over axes, which stay as dimensions of 1."""
        before = self._shapes[tensor]
        gone = {axis % len(before) for axis in axes}
        sizes = [1 if axis in gone else size for axis, size in enumerate(before) if keep or axis not in gone]
        result = self.tensor(tuple(sizes), "MEAN")
        self.net.op("MEAN", [tensor, self.net.constant(f"axes{result}", list(axes), "INT32")], [result], keepDims=keep)
        return result

    def build(self, *outputs: int) -> bytes:
        """The file."""
        return self.net.build([self.x], list(outputs))

    def tensor(self, shape: tuple[int, ...], name: str) -> int:
        """A tensor that an op writes."""
        self._count += 1
        index = self.net.tensor(name if name == "x" else f"{name.lower()}{self._count}", shape)
        self._shapes[index] = shape
        return index


def inverse_root(ops: Ops, mean_square: int, epsilon: float = EPSILON) -> int:
    """1 / sqrt(mean square + epsilon), by RSQRT."""
    return ops.op("RSQRT", ops.op("ADD", mean_square, ops.constant(epsilon)))


def root(ops: Ops, mean_square: int) -> int:
    """sqrt(mean square + epsilon), with the epsilon in front."""
    return ops.op("SQRT", ops.op("ADD", ops.constant([EPSILON]), mean_square))


def keras(ops: Ops, x: int) -> int:
    """Keras 3: x * (r * gain) + (offset + -mean * (r * gain)), the variance by SQUARED_DIFFERENCE."""
    mean = ops.mean(x)
    factor = ops.op("MUL", inverse_root(ops, ops.mean(ops.op("SQUARED_DIFFERENCE", x, mean))), ops.gain())
    rest = ops.op("ADD", ops.op("MUL", ops.op("NEG", mean), factor), ops.offset())
    return ops.op("ADD", ops.op("MUL", x, factor), rest)


def keras2(ops: Ops, x: int) -> int:
    """Keras 2 and tf.nn.batch_normalization: x * (r * gain) + (offset - mean * (r * gain))."""
    mean = ops.mean(x)
    factor = ops.op("MUL", inverse_root(ops, ops.mean(ops.op("SQUARED_DIFFERENCE", mean, x))), ops.gain())
    return ops.op("ADD", ops.op("MUL", x, factor), ops.op("SUB", ops.offset(), ops.op("MUL", mean, factor)))


def torch(ops: Ops, x: int) -> int:
    """PyTorch's exporters: (x - mean) / sqrt(var + epsilon) * gain + offset, the variance by SQUARE(x - mean)."""
    difference = ops.op("SUB", x, ops.mean(x))
    unit = ops.op("DIV", difference, root(ops, ops.mean(ops.op("SQUARE", difference))))
    return ops.op("ADD", ops.op("MUL", unit, ops.gain()), ops.offset())


def product(ops: Ops, x: int) -> int:
    """The variance by MUL(d, d), the gain in front of the root's inverse."""
    difference = ops.op("SUB", x, ops.mean(x))
    inverse = inverse_root(ops, ops.mean(ops.op("MUL", difference, difference)))
    return ops.op("ADD", ops.op("MUL", ops.op("MUL", difference, ops.gain()), inverse), ops.offset())


def reciprocal(ops: Ops, x: int) -> int:
    """The inverse root by DIV(1, SQRT), the difference taken twice."""
    mean = ops.mean(x)
    squared = ops.op("SQUARE", ops.op("SUB", x, mean))
    inverse = ops.op("DIV", ops.constant(1.0), root(ops, ops.mean(squared)))
    return ops.op("MUL", ops.op("SUB", x, mean), inverse)


def reverse(ops: Ops, x: int) -> int:
    """The difference the other way round, negated behind the root, divided by a constant."""
    mean = ops.mean(x)
    difference = ops.op("SUB", mean, x)
    unit = ops.op("MUL", difference, inverse_root(ops, ops.mean(ops.op("SQUARED_DIFFERENCE", x, mean))))
    return ops.op("DIV", ops.op("NEG", unit), ops.constant(0.25))


def rms(ops: Ops, x: int) -> int:
    """RMSNorm, the mean square by SQUARE."""
    return ops.op("MUL", ops.op("MUL", x, inverse_root(ops, ops.mean(ops.op("SQUARE", x)))), ops.gain())


def rms_by_product(ops: Ops, x: int) -> int:
    """RMSNorm by MUL(x, x), SQRT and DIV."""
    return ops.op("MUL", ops.gain(), ops.op("DIV", x, root(ops, ops.mean(ops.op("MUL", x, x)))))


def relu_at_the_end(ops: Ops, x: int) -> int:
    """The last ADD has a fused activation: the norm ends in front of it."""
    difference = ops.op("SUB", x, ops.mean(x))
    inverse = inverse_root(ops, ops.mean(ops.op("SQUARE", difference)))
    scaled = ops.op("MUL", ops.op("MUL", difference, inverse), ops.gain())
    return ops.op("ADD", scaled, ops.offset(), activation="RELU")


#: Norms of each form.
FORMS: dict[str, Part] = {
    "keras": keras, "keras-2": keras2, "torch": torch, "product": product, "reciprocal": reciprocal,
    "reverse": reverse, "rms": rms, "rms-by-product": rms_by_product, "relu-at-the-end": relu_at_the_end,
}  # fmt: skip


def batch_norm(ops: Ops, x: int) -> int:
    """Keras 2's layer: a batch normalization of the columns, after the positions were moved to the last axis."""
    shape = ops.shape(x)
    positions = int(np.prod(shape[:-1]))
    columns = moved(ops, moved(ops, x, (1, positions, shape[-1], 1)), order=(0, 2, 3, 1))
    unit = _batch_norm(ops, columns, np.ones(positions), np.zeros(positions))
    back = moved(ops, moved(ops, unit, order=(0, 3, 1, 2)), shape)
    return ops.op("ADD", ops.op("MUL", back, ops.gain()), ops.offset())


def batch_norm_by_root(ops: Ops, x: int) -> int:
    """The same by one RESHAPE each, for one position, with SQRT and DIV, one gain and one offset for all channels."""
    shape = ops.shape(x)
    columns = (
        moved(ops, x, (1, shape[-1], 1, 1)) if np.prod(shape[:-1]) == 1 else moved(ops, _rows(ops, x), order=(1, 0))
    )
    axes = tuple(range(len(ops.shape(columns)) - 1))
    difference = ops.op("SUB", columns, ops.mean(columns, axes))
    unit = ops.op("DIV", difference, root(ops, ops.mean(ops.op("SQUARE", difference), axes)))
    scaled = ops.op("ADD", ops.op("MUL", unit, ops.constant(0.5)), ops.constant(0.25))
    return moved(ops, scaled if np.prod(shape[:-1]) == 1 else moved(ops, scaled, order=(1, 0)), shape)


def _rows(ops: Ops, x: int) -> int:
    shape = ops.shape(x)
    return moved(ops, x, (int(np.prod(shape[:-1])), shape[-1]))


def _batch_norm(ops: Ops, columns: int, gain: Any, offset: Any) -> int:
    """What TFLiteConverter makes of FusedBatchNormV3 in training, with means without their dimensions of 1."""
    mean = ops.mean(columns, (0, 1, 2), keep=False)
    variance = ops.mean(ops.op("SQUARED_DIFFERENCE", columns, mean), (0, 1, 2), keep=False)
    factor = ops.op("MUL", inverse_root(ops, variance), ops.constant(gain))
    return ops.op(
        "ADD", ops.op("MUL", columns, factor), ops.op("SUB", ops.constant(offset), ops.op("MUL", mean, factor))
    )


def moved(ops: Ops, x: int, shape: Sequence[int] = (), order: Sequence[int] = ()) -> int:
    """The values in another shape, or with their axes in another order."""
    after = tuple(ops.shape(x)[axis] for axis in order) if order else tuple(shape)
    result = ops.tensor(after, "moved")
    name, constant = ("TRANSPOSE", order) if order else ("RESHAPE", after)
    ops.net.op(name, [x, ops.net.constant(f"moved{result}", constant, "INT32")], [result])
    return result


#: Norms that are computed along other axes than the last, after RESHAPE and TRANSPOSE.
MOVED: dict[str, Part] = {"batch-norm": batch_norm, "batch-norm-by-root": batch_norm_by_root}


def _gains_of_positions(ops: Ops, x: int) -> int:
    """A batch normalization with a gain of each column, which is a position."""
    columns = moved(ops, moved(ops, x, (1, 12, 6, 1)), order=(0, 2, 3, 1))
    unit = _batch_norm(ops, columns, np.linspace(0.5, 1.5, 12), np.zeros(12))
    return moved(ops, moved(ops, unit, order=(0, 3, 1, 2)), ops.shape(x))


def _another_way_back(ops: Ops, x: int) -> int:
    """The values do not return to their places."""
    columns = moved(ops, moved(ops, x, (1, 12, 6, 1)), order=(0, 2, 3, 1))
    return moved(ops, _batch_norm(ops, columns, np.ones(12), np.zeros(12)), ops.shape(x))


def _real_batch_norm(ops: Ops, x: int) -> int:
    """The statistics of each channel over all positions, without and with a RESHAPE in front."""
    channels = ops.shape(x)[-1]
    first = _batch_norm(ops, x, np.ones(channels), np.zeros(channels))
    flat = moved(ops, first, (1, 1, 12, channels))
    return moved(ops, _batch_norm(ops, flat, np.ones(channels), np.zeros(channels)), ops.shape(x))


def _mixed_rows(ops: Ops, x: int) -> int:
    """Columns that hold values of several positions."""
    columns = moved(ops, x, (1, 6, 1, 12))
    return moved(ops, _batch_norm(ops, columns, np.ones(12), np.zeros(12)), ops.shape(x))


def _over(*axes: int) -> Part:
    def norm(ops: Ops, x: int) -> int:
        difference = ops.op("SUB", x, ops.mean(x, axes))
        return ops.op("MUL", difference, inverse_root(ops, ops.mean(ops.op("SQUARE", difference), axes)))

    return norm


def _mixed_axes(ops: Ops, x: int) -> int:
    difference = ops.op("SUB", x, ops.mean(x, (1,)))
    return ops.op("MUL", x, inverse_root(ops, ops.mean(ops.op("SQUARE", difference), (1,))))


def _two_factors(ops: Ops, x: int) -> int:
    other = ops.op("TANH", x)
    return ops.op("MUL", x, inverse_root(ops, ops.mean(ops.op("MUL", x, other))))


def _another_numerator(ops: Ops, x: int) -> int:
    return ops.op("MUL", ops.op("TANH", x), inverse_root(ops, ops.mean(ops.op("SQUARE", x))))


def _uncentred_numerator(ops: Ops, x: int) -> int:
    """The variance is centred, what is divided is not."""
    return ops.op("MUL", x, inverse_root(ops, ops.mean(ops.op("SQUARED_DIFFERENCE", x, ops.mean(x)))))


def _activation(place: str) -> Part:
    def norm(ops: Ops, x: int) -> int:
        def fused(here: str) -> str:
            return "RELU" if here == place else "NONE"

        square = ops.op("MUL", x, x, activation=fused("square"))
        total = ops.op("ADD", ops.mean(square), ops.constant(EPSILON), activation=fused("sum"))
        return ops.op("MUL", x, ops.op("RSQRT", total), activation=fused("result"))

    return norm


def _epsilon_computed(ops: Ops, x: int) -> int:
    mean_square = ops.mean(ops.op("SQUARE", x))
    epsilon = ops.op("ABS", ops.mean(x))
    return ops.op("MUL", x, ops.op("RSQRT", ops.op("ADD", mean_square, epsilon)))


def _negative_epsilon(ops: Ops, x: int) -> int:
    return ops.op("MUL", x, inverse_root(ops, ops.mean(ops.op("SQUARE", x)), -1e-9))


def _constants_only(ops: Ops, x: int) -> int:
    return ops.op("MUL", x, ops.op("RSQRT", ops.op("ADD", ops.constant(1.0), ops.constant(2.0))))


def _without_root(ops: Ops, x: int) -> int:
    """The input divided by the mean square, not by its root."""
    inverse = inverse_root(ops, ops.mean(ops.op("SQUARE", x)))
    return ops.op("MUL", x, ops.op("MUL", inverse, inverse))


def _group(ops: Ops, x: int) -> int:
    """GroupNorm over height, width and the channels of each of two groups."""
    shape = ops.shape(x)
    return moved(ops, _over(1, 2, 4)(ops, moved(ops, x, (*shape[:-1], 2, shape[-1] // 2))), shape)


IMAGE = (1, 3, 4, 6)

#: What is no LayerNorm over the last axis, or none that L2_NORMALIZATION can compute, with the input's shape.
OTHERS: dict[str, tuple[Part, tuple[int, ...]]] = {
    "other-axis": (_over(1), IMAGE),
    "gains-of-positions": (_gains_of_positions, IMAGE),
    "another-way-back": (_another_way_back, IMAGE),
    "batch-norm": (_real_batch_norm, IMAGE),
    "mixed-rows": (_mixed_rows, IMAGE),
    "two-axes": (_over(1, 2), IMAGE),
    "last-two-axes": (_over(2, 3), IMAGE),
    "numerator-of-another-axis": (_mixed_axes, IMAGE),
    "rank-5": (_over(-1), (1, 2, 2, 2, 6)),
    "rank-1": (_over(-1), (6,)),
    "group": (_group, IMAGE),
    "two-factors": (_two_factors, IMAGE),
    "another-numerator": (_another_numerator, IMAGE),
    "uncentred-numerator": (_uncentred_numerator, IMAGE),
    "activation-of-the-square": (_activation("square"), IMAGE),
    "activation-of-the-sum": (_activation("sum"), IMAGE),
    "activation-of-the-result": (_activation("result"), IMAGE),
    "epsilon-computed": (_epsilon_computed, IMAGE),
    "negative-epsilon": (_negative_epsilon, IMAGE),
    "constants-only": (_constants_only, IMAGE),
    "without-root": (_without_root, IMAGE),
}
