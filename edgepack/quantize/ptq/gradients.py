"""What the ops of a network compute and how gradients go back through them, in NumPy.

Each kind has a forward function, (op, inputs, result's shape) to (result before a fused activation, what the gradient
needs), and a backward one, (op, gradient of the result, what was kept) to gradients by tensor index.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.graph import Graph, Op
from edgepack.graph.op_layout import RELU6_MAX
from edgepack.quantize.ptq.layers import Floats
from edgepack.quantize.ptq.windows import from_rows, into_rows, windows

Shape = tuple[int, ...]


def activate(op: Op, values: Floats) -> Floats:
    """Apply the activation fused into an op."""
    kind = op.options.get("fused_activation") or "NONE"
    if kind == "RELU":
        return np.maximum(values, 0.0, dtype=np.float32)
    return np.clip(values, 0.0, RELU6_MAX, dtype=np.float32) if kind == "RELU6" else values


def deactivate(op: Op, made: Floats, gradient: Floats) -> Floats:
    """Return the gradient in front of the fused activation, from what came out of it."""
    kind = op.options.get("fused_activation") or "NONE"
    if kind == "NONE":
        return gradient
    passed: Floats = gradient * ((made > 0.0) if kind == "RELU" else (made > 0.0) & (made < RELU6_MAX))
    return passed


def _linear_forward(op: Op, given: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    """CONV_2D and FULLY_CONNECTED: both one matrix product over rows of inputs."""
    x, weights = given[0], given[1]
    flat = weights.reshape(len(weights), -1)
    if op.name == "CONV_2D":
        place = windows(op, x, weights.shape[1:3])
        rows = into_rows(place)
    else:
        rows, place = x.reshape(-1, flat.shape[1]), x.shape
    made = rows @ flat.T
    if len(given) > 2 and given[2] is not None:
        made += given[2]
    return made.reshape(shape), (rows, flat, place, weights.shape)


def _linear_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    rows, flat, place, shape = saved
    wide = np.ascontiguousarray(gradient).reshape(-1, len(flat))
    found = {op.inputs[1]: (wide.T @ rows).reshape(shape)}
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        found[op.inputs[2]] = wide.sum(axis=0)
    back = wide @ flat
    found[op.inputs[0]] = from_rows(place, back) if op.name == "CONV_2D" else back.reshape(place)
    return found


def _depthwise_forward(op: Op, given: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    x, weights = given[0], given[1]
    times = weights.shape[3] // x.shape[3]
    wide = np.repeat(x, times, axis=3) if times > 1 else x
    place = windows(op, wide, weights.shape[1:3])
    made = np.zeros((*place.out, weights.shape[3]), np.float32)
    for i, j, tap in place.views(place.padded):
        made += tap * weights[0, i, j]
    if len(given) > 2 and given[2] is not None:
        made += given[2]
    return made, (place, weights, times)


def _depthwise_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    place, weights, times = saved
    mine = np.empty_like(weights)
    back = np.zeros_like(place.padded)
    seen = {(i, j): tap for i, j, tap in place.views(place.padded)}
    for i, j, tap in place.views(back):
        mine[0, i, j] = np.einsum("nhwc,nhwc->c", seen[i, j], gradient)
        tap += gradient * weights[0, i, j]
    inner = place.cropped(back)
    if times > 1:
        inner = inner.reshape(*inner.shape[:3], -1, times).sum(axis=4)
    found = {op.inputs[1]: mine, op.inputs[0]: inner}
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        found[op.inputs[2]] = gradient.sum(axis=(0, 1, 2))
    return found


def _pool_forward(op: Op, given: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    place = windows(op, given[0], (int(op.options["filter_height"]), int(op.options["filter_width"])))
    ones = windows(op, np.ones_like(given[0][:1]), place.window)
    views = [tap for _, _, tap in place.views(place.padded)]
    if op.name == "MAX_POOL_2D":
        # Padding holds zeros, which must not win.
        inside = [tap for _, _, tap in ones.views(ones.padded)]
        stacked = np.stack([np.where(a > 0, v, -np.inf) for a, v in zip(inside, views, strict=True)])
        winner = stacked.argmax(axis=0)
        return np.take_along_axis(stacked, winner[np.newaxis], 0)[0].astype(np.float32), (place, winner)
    count = np.sum([tap for _, _, tap in ones.views(ones.padded)], axis=0)
    return (np.sum(views, axis=0) / count).astype(np.float32), (place, count)


def _pool_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    place, extra = saved
    back = np.zeros_like(place.padded)
    for number, (_, _, tap) in enumerate(place.views(back)):
        tap += gradient * (extra == number) if op.name == "MAX_POOL_2D" else gradient / extra
    return {op.inputs[0]: place.cropped(back)}


def _mean_forward(op: Op, given: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    x = given[0]
    axes = tuple(sorted(int(axis) % x.ndim for axis in given[1].reshape(-1)))
    made: Floats = x.mean(axis=axes, keepdims=bool(op.options.get("keep_dims")), dtype=np.float32)
    return made, (x.shape, axes)


def _mean_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    shape, axes = saved
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    count = np.prod([shape[axis] for axis in axes])
    return {op.inputs[0]: np.broadcast_to(gradient.reshape(kept) / count, shape).astype(np.float32)}


def _add_forward(op: Op, given: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    return (given[0] + given[1]).astype(np.float32), None


def _add_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    if op.inputs[0] == op.inputs[1]:
        return {op.inputs[0]: 2.0 * gradient}
    return {op.inputs[0]: gradient, op.inputs[1]: gradient}


def _reshape_forward(op: Op, given: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    return given[0].reshape(shape), given[0].shape


def _reshape_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    return {op.inputs[0]: gradient.reshape(saved)}


def _pad_forward(op: Op, given: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    return np.pad(given[0], given[1]), (given[1], given[0].shape)


def _pad_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    pads, shape = saved
    inner = tuple(slice(int(before), int(before) + size) for (before, _), size in zip(pads, shape, strict=True))
    return {op.inputs[0]: gradient[inner]}


def _concat_forward(op: Op, given: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    axis = int(op.options["axis"]) % given[0].ndim
    return np.concatenate(given, axis=axis), (axis, np.cumsum([x.shape[axis] for x in given])[:-1])


def _concat_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    found: dict[int, Floats] = {}
    for index, part in zip(op.inputs, np.split(gradient, saved[1], axis=saved[0]), strict=True):
        found[index] = found[index] + part if index in found else part
    return found


def _relu_forward(op: Op, given: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    top = RELU6_MAX if op.name == "RELU6" else np.inf
    return np.clip(given[0], 0.0, top, dtype=np.float32), (given[0] > 0.0) & (given[0] < top)


def _relu_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    return {op.inputs[0]: gradient * saved}


@dataclass(frozen=True)
class Kind:
    """One kind of op.

    Attributes:
        forward: See the module.
        backward: See the module.
        takes: Whether an op of this kind is one that the functions can do.
    """

    forward: Callable[[Op, Sequence[Any], Shape], tuple[Floats, Any]]
    backward: Callable[[Op, Floats, Any], dict[int, Floats]]
    takes: Callable[[Graph, Op], bool]


def _any(graph: Graph, op: Op) -> bool:
    """Take the op when activations keep the batch as their first dimension and the fused activation is known."""
    known = (op.options.get("fused_activation") or "NONE") in ("NONE", "RELU", "RELU6")
    ends = [graph.tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0]
    return known and all(t.is_constant or (t.rank > 1 and t.shape[0] == 1 and t.dtype == "FLOAT32") for t in ends)


def _weighted(graph: Graph, op: Op) -> bool:
    weights, source = graph.tensors[op.inputs[1]], graph.tensors[op.inputs[0]]
    whole = op.name != "CONV_2D" or (bool(source.shape) and weights.shape[-1] == source.shape[-1])
    return _any(graph, op) and weights.is_constant and weights.dtype == "FLOAT32" and whole


def _sum(graph: Graph, op: Op) -> bool:
    ends = [graph.tensors[i] for i in (*op.inputs, *op.outputs)]
    return _any(graph, op) and len({t.shape for t in ends}) == 1 and not any(t.is_constant for t in ends)


def _along_inner(graph: Graph, op: Op) -> bool:
    ends = [graph.tensors[i] for i in op.inputs]
    return _any(graph, op) and int(op.options["axis"]) % ends[0].rank > 0 and not any(t.is_constant for t in ends)


def _over_inner(graph: Graph, op: Op) -> bool:
    axes, rank = graph.tensors[op.inputs[1]].data, graph.tensors[op.inputs[0]].rank
    return _any(graph, op) and axes is not None and all(int(axis) % rank > 0 for axis in axes.reshape(-1))


def _inner_pads(graph: Graph, op: Op) -> bool:
    pads = graph.tensors[op.inputs[1]].data
    return _any(graph, op) and pads is not None and not pads[0].any()


#: Ops that gradients go through.
KINDS: dict[str, Kind] = {
    "ADD": Kind(_add_forward, _add_backward, _sum),
    "AVERAGE_POOL_2D": Kind(_pool_forward, _pool_backward, _any),
    "CONCATENATION": Kind(_concat_forward, _concat_backward, _along_inner),
    "CONV_2D": Kind(_linear_forward, _linear_backward, _weighted),
    "DEPTHWISE_CONV_2D": Kind(_depthwise_forward, _depthwise_backward, _weighted),
    "FULLY_CONNECTED": Kind(_linear_forward, _linear_backward, _weighted),
    "MAX_POOL_2D": Kind(_pool_forward, _pool_backward, _any),
    "MEAN": Kind(_mean_forward, _mean_backward, _over_inner),
    "PAD": Kind(_pad_forward, _pad_backward, _inner_pads),
    "RELU": Kind(_relu_forward, _relu_backward, _any),
    "RELU6": Kind(_relu_forward, _relu_backward, _any),
    "RESHAPE": Kind(_reshape_forward, _reshape_backward, _any),
    "SQUEEZE": Kind(_reshape_forward, _reshape_backward, _any),
}
