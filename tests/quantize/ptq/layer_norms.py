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

    def mean(self, tensor: int, axes: Sequence[int] = (-1,)) -> int:
        """The mean over axes, which stay as dimensions of 1."""
        shape = list(self._shapes[tensor])
        for axis in axes:
            shape[axis] = 1
        result = self.tensor(tuple(shape), "MEAN")
        self.net.op("MEAN", [tensor, self.net.constant(f"axes{result}", list(axes), "INT32")], [result], keepDims=True)
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
    split = (*shape[:-1], 2, shape[-1] // 2)
    parted = ops.tensor(split, "groups")
    ops.net.op("RESHAPE", [x, ops.net.constant("parted", split, "INT32")], [parted])
    normalized = _over(1, 2, 4)(ops, parted)
    result = ops.tensor(shape, "joined")
    ops.net.op("RESHAPE", [normalized, ops.net.constant("whole", shape, "INT32")], [result])
    return result


IMAGE = (1, 3, 4, 6)

#: What is no LayerNorm over the last axis, or none that L2_NORMALIZATION can compute, with the input's shape.
OTHERS: dict[str, tuple[Part, tuple[int, ...]]] = {
    "other-axis": (_over(1), IMAGE),
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
