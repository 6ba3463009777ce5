"""Forward and backward functions of elementwise ops and of ops that only move values; `gradients` has the interface."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op
from edgepack.quantize.ptq.layers import Floats

Shape = tuple[int, ...]
Positions = npt.NDArray[np.int64]

#: Scale of x in the logistic approximation of GELU (Hendrycks and Gimpel, Gaussian Error Linear Units, section 2): its
#: slope is within 0.02 of the true one, and gradients only weigh errors.
_GELU_SCALE = 1.702


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def _swish_slope(x: Floats, scale: float) -> Floats:
    gate = _sigmoid(scale * x)
    return gate + scale * x * gate * (1.0 - gate)


def _positive(x: Floats) -> Floats:
    return np.maximum(x, 1e-12)


def _hard_swish_slope(op: Op, x: Floats, y: Floats) -> Floats:
    return np.where(x <= -3.0, 0.0, np.where(x >= 3.0, 1.0, (2.0 * x + 3.0) / 6.0))


#: (function, slope) of ops with one input; the slope gets the op, the input and the output.
_CURVES: dict[str, tuple[Callable[[Op, Floats], Any], Callable[[Op, Floats, Floats], Any]]] = {
    "ABS": (lambda op, x: np.abs(x), lambda op, x, y: np.sign(x)),
    "ELU": (lambda op, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), lambda op, x, y: np.where(x > 0, 1, y + 1)),
    "EXP": (lambda op, x: np.exp(x), lambda op, x, y: y),
    "GELU": (lambda op, x: x * _sigmoid(_GELU_SCALE * x), lambda op, x, y: _swish_slope(x, _GELU_SCALE)),
    "HARD_SWISH": (lambda op, x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0, _hard_swish_slope),
    "LEAKY_RELU": (
        lambda op, x: np.where(x > 0, x, x * float(op.options.get("alpha", 0.0))),
        lambda op, x, y: np.where(x > 0, 1.0, float(op.options.get("alpha", 0.0))),
    ),
    "LOG": (lambda op, x: np.log(_positive(x)), lambda op, x, y: 1.0 / _positive(x)),
    "LOGISTIC": (lambda op, x: _sigmoid(x), lambda op, x, y: y * (1.0 - y)),
    "NEG": (lambda op, x: -x, lambda op, x, y: np.full_like(x, -1.0)),
    "RELU_N1_TO_1": (lambda op, x: np.clip(x, -1.0, 1.0), lambda op, x, y: np.abs(x) < 1.0),
    "RSQRT": (lambda op, x: _positive(x) ** -0.5, lambda op, x, y: -0.5 * y / _positive(x)),
    "SQRT": (lambda op, x: np.sqrt(np.maximum(x, 0.0)), lambda op, x, y: 0.5 / _positive(y)),
    "SQUARE": (lambda op, x: x * x, lambda op, x, y: 2.0 * x),
    "TANH": (lambda op, x: np.tanh(x), lambda op, x, y: 1.0 - y * y),
}

#: (function, slopes) of ops with two inputs, broadcast against each other.
_PAIRS: dict[str, tuple[Callable[[Floats, Floats], Any], Callable[[Floats, Floats], tuple[Any, Any]]]] = {
    "ADD": (lambda a, b: a + b, lambda a, b: (1.0, 1.0)),
    "DIV": (lambda a, b: a / b, lambda a, b: (1.0 / b, -a / (b * b))),
    "MAXIMUM": (np.maximum, lambda a, b: (a >= b, a < b)),
    "MINIMUM": (np.minimum, lambda a, b: (a <= b, a > b)),
    "MUL": (lambda a, b: a * b, lambda a, b: (b, a)),
    "PRELU": (lambda a, b: np.where(a > 0, a, a * b), lambda a, b: (np.where(a > 0, 1.0, b), np.minimum(a, 0.0))),
    "SQUARED_DIFFERENCE": (lambda a, b: (a - b) ** 2, lambda a, b: (2.0 * (a - b), 2.0 * (b - a))),
    "SUB": (lambda a, b: a - b, lambda a, b: (1.0, -1.0)),
}

CURVES, PAIRS = frozenset(_CURVES), frozenset(_PAIRS)


def curve_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    """One input, one output of the same shape."""
    output = np.asarray(_CURVES[op.name][0](op, inputs[0]), np.float32)
    return output, (inputs[0], output)


def curve_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    """Multiply with the slope."""
    return {op.inputs[0]: np.asarray(gradient * _CURVES[op.name][1](op, *saved), np.float32)}


def pair_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    """Two inputs that are broadcast."""
    return np.asarray(_PAIRS[op.name][0](inputs[0], inputs[1]), np.float32), (inputs[0], inputs[1])


def pair_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    """Multiply with the slopes, and sum over what was broadcast."""
    gradients: dict[int, Floats] = {}
    for index, source, slope in zip(op.inputs, saved, _PAIRS[op.name][1](*saved), strict=True):
        part = _summed(np.asarray(gradient * slope, np.float32), source.shape)
        gradients[index] = gradients[index] + part if index in gradients else part
    return gradients


def _summed(gradient: Floats, shape: Shape) -> Floats:
    """Return a gradient summed over the axes along which a tensor of this shape was broadcast."""
    while gradient.ndim > len(shape):
        gradient = gradient.sum(axis=0)
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis] != 1)
    return gradient.sum(axis=axes, keepdims=True) if axes else gradient


def pair_supported(graph: Graph, op: Op) -> bool:
    """Return whether an op's inputs are broadcast along other axes than the batch."""
    tensors = [graph.tensors[i] for i in op.inputs]
    activations = [t for t in tensors if not t.is_constant]
    rank = graph.tensors[op.outputs[0]].rank
    constants = [t for t in tensors if t.is_constant]
    return (
        bool(activations)
        and all(t.rank == rank and t.shape[0] == 1 for t in activations)
        and all(t.dtype == "FLOAT32" and (t.rank < rank or t.shape[0] == 1) for t in constants)
    )


def _slice_positions(op: Op, x: Positions, inputs: Sequence[Any]) -> Positions | None:
    begin, size = ([int(n) for n in values.ravel()] for values in inputs[1:3])
    ends = [d if s == -1 else b + s for b, s, d in zip(begin, size, x.shape, strict=True)]
    return x[tuple(slice(b, e) for b, e in zip(begin, ends, strict=True))]


def _strided_positions(op: Op, x: Positions, inputs: Sequence[Any]) -> Positions | None:
    if any(op.options.get(name) for name in ("ellipsis_mask", "new_axis_mask", "offset")):
        return None
    begin, end, stride = ([int(n) for n in values.ravel()] for values in inputs[1:4])
    masks = [int(op.options.get(name, 0)) for name in ("begin_mask", "end_mask", "shrink_axis_mask")]
    parts: list[slice] = []
    for axis in range(len(begin)):
        if masks[2] >> axis & 1:
            first = begin[axis] % x.shape[axis]
            parts.append(slice(first, first + 1))
            continue
        start = None if masks[0] >> axis & 1 else begin[axis]
        stop = None if masks[1] >> axis & 1 else end[axis]
        parts.append(slice(start, stop, stride[axis]))
    return x[tuple(parts)]


def _resized_positions(op: Op, x: Positions, inputs: Sequence[Any]) -> Positions | None:
    height, width = (int(n) for n in inputs[1].ravel())
    if height % x.shape[1] or width % x.shape[2] or op.options.get("align_corners"):
        return None
    repeated: Positions = np.repeat(np.repeat(x, height // x.shape[1], axis=1), width // x.shape[2], axis=2)
    return repeated


def _block_positions(op: Op, x: Positions, inputs: Sequence[Any]) -> Positions | None:
    size = int(op.options.get("block_size", 1))
    n, h, w, c = x.shape
    if op.name == "SPACE_TO_DEPTH":
        return x.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h, w, size, size, c // (size * size)).transpose(0, 1, 3, 2, 4, 5)


def _split_positions(op: Op, x: Positions, inputs: Sequence[Any]) -> Positions | None:
    axis = int(inputs[0 if op.name == "SPLIT" else 2].ravel()[0]) % x.ndim
    number = int(op.options["output"])
    sizes = [x.shape[axis] // int(op.options["outputs"])] * int(op.options["outputs"])
    if op.name == "SPLIT_V":
        sizes = [int(n) for n in inputs[1].ravel()]
        if -1 in sizes:
            return None
    start = sum(sizes[:number])
    return np.take(x, np.arange(start, start + sizes[number]), axis=axis)


#: Where the values of ops that only move them come from: (op, positions of the input, inputs) to those of the output.
_MOVES: dict[str, Callable[[Op, Positions, Sequence[Any]], Positions | None]] = {
    "DEPTH_TO_SPACE": _block_positions,
    "RESIZE_NEAREST_NEIGHBOR": _resized_positions,
    "SLICE": _slice_positions,
    "SPACE_TO_DEPTH": _block_positions,
    "SPLIT": _split_positions,
    "SPLIT_V": _split_positions,
    "STRIDED_SLICE": _strided_positions,
    "TILE": lambda op, x, inputs: np.tile(x, inputs[1].ravel()),
    "TRANSPOSE": lambda op, x, inputs: x.transpose(inputs[1].ravel()),
    "UNPACK": lambda op, x, inputs: np.take(x, int(op.options["output"]), axis=int(op.options.get("axis", 0))),
}

MOVES = frozenset(_MOVES)


def _data(op: Op) -> int:
    """Return the input position of the values of an op that moves them."""
    return 1 if op.name == "SPLIT" else 0


def move_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    """Values at other positions, the same for every sample of the batch."""
    x = inputs[_data(op)]
    positions = _MOVES[op.name](op, np.arange(math.prod(x.shape[1:])).reshape(1, *x.shape[1:]), inputs)
    assert positions is not None
    flat = positions.reshape(-1)
    return x.reshape(len(x), -1)[:, flat].reshape(shape), (flat, x.shape)


def move_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    """Add each value's gradient at the position that it came from."""
    positions, shape = saved
    size = math.prod(shape[1:])
    rows = [np.bincount(positions, row, size) for row in gradient.reshape(shape[0], -1)]
    return {op.inputs[_data(op)]: np.array(rows, np.float32).reshape(shape)}


def move_supported(graph: Graph, op: Op) -> bool:
    """Return whether all parameters are constants and no value leaves its sample."""
    source = graph.tensors[op.inputs[_data(op)]]
    others = [graph.tensors[i] for i in op.inputs if i != source.index]
    output = graph.tensors[op.outputs[0]]
    if source.dtype != "FLOAT32" or source.is_dynamic or source.rank < 2 or source.shape[0] != 1:
        return False
    if any(t.data is None for t in others) or not output.rank or output.shape[0] != 1:
        return False
    inputs = [None if i == source.index else graph.tensors[i].data for i in op.inputs]
    try:
        positions = _MOVES[op.name](op, np.arange(source.elements).reshape(source.shape), inputs)
    except (ValueError, IndexError):
        return False
    return positions is not None and positions.size == output.elements
