"""Forward and backward functions of a network's ops, in NumPy.

Each kind of op has a forward function, (op, inputs, output shape) to (output before a fused activation, values saved
for the gradient), and a backward function, (op, gradient of the output, saved values) to gradients by tensor index.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.graph import Graph, Op
from edgepack.graph.op_layout import RELU6_MAX
from edgepack.quantize.ptq.elementwise_gradients import (
    CURVES,
    MOVES,
    PAIRS,
    curve_backward,
    curve_forward,
    move_backward,
    move_forward,
    move_supported,
    pair_backward,
    pair_forward,
    pair_supported,
)
from edgepack.quantize.ptq.im2col import col2im, im2col, sliding_window
from edgepack.quantize.ptq.layers import Floats

Shape = tuple[int, ...]


def activate(op: Op, values: Floats) -> Floats:
    """Apply the activation fused into an op."""
    kind = op.options.get("fused_activation") or "NONE"
    if kind == "RELU":
        return np.maximum(values, 0.0, dtype=np.float32)
    return np.clip(values, 0.0, RELU6_MAX, dtype=np.float32) if kind == "RELU6" else values


def deactivate(op: Op, output: Floats, gradient: Floats) -> Floats:
    """Return the gradient in front of the fused activation, from the activation's output."""
    kind = op.options.get("fused_activation") or "NONE"
    if kind == "NONE":
        return gradient
    passed: Floats = gradient * ((output > 0.0) if kind == "RELU" else (output > 0.0) & (output < RELU6_MAX))
    return passed


def _linear_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    """CONV_2D and FULLY_CONNECTED: one matrix product over rows of inputs."""
    x, weights = inputs[0], inputs[1]
    flat = weights.reshape(len(weights), -1)
    if op.name == "CONV_2D":
        window = sliding_window(op, x, weights.shape[1:3])
        rows = im2col(window)
    else:
        rows, window = x.reshape(-1, flat.shape[1]), None
    output = rows @ flat.T
    if len(inputs) > 2 and inputs[2] is not None:
        output += inputs[2]
    return output.reshape(shape), (rows, flat, window, x.shape, weights.shape)


def _linear_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    rows, flat, window, source_shape, weights_shape = saved
    gradient_rows = np.ascontiguousarray(gradient).reshape(-1, len(flat))
    gradients = {op.inputs[1]: (gradient_rows.T @ rows).reshape(weights_shape)}
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        gradients[op.inputs[2]] = gradient_rows.sum(axis=0)
    back = gradient_rows @ flat
    gradients[op.inputs[0]] = back.reshape(source_shape) if window is None else col2im(window, back)
    return gradients


def _depthwise_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    x, weights = inputs[0], inputs[1]
    multiplier = weights.shape[3] // x.shape[3]
    repeated = np.repeat(x, multiplier, axis=3) if multiplier > 1 else x
    window = sliding_window(op, repeated, weights.shape[1:3])
    output = np.zeros((*window.output_shape, weights.shape[3]), np.float32)
    for i, j, tap in window.taps(window.padded):
        output += tap * weights[0, i, j]
    if len(inputs) > 2 and inputs[2] is not None:
        output += inputs[2]
    return output, (window, weights, multiplier)


def _depthwise_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    window, weights, multiplier = saved
    weights_gradient = np.empty_like(weights)
    padded_gradient = np.zeros_like(window.padded)
    input_taps = {(i, j): tap for i, j, tap in window.taps(window.padded)}
    for i, j, tap in window.taps(padded_gradient):
        weights_gradient[0, i, j] = np.einsum("nhwc,nhwc->c", input_taps[i, j], gradient)
        tap += gradient * weights[0, i, j]
    input_gradient = window.cropped(padded_gradient)
    if multiplier > 1:
        input_gradient = input_gradient.reshape(*input_gradient.shape[:3], -1, multiplier).sum(axis=4)
    gradients = {op.inputs[1]: weights_gradient, op.inputs[0]: input_gradient}
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        gradients[op.inputs[2]] = gradient.sum(axis=(0, 1, 2))
    return gradients


def _pool_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    window = sliding_window(op, inputs[0], (int(op.options["filter_height"]), int(op.options["filter_width"])))
    ones = sliding_window(op, np.ones_like(inputs[0][:1]), window.kernel)
    taps = [tap for _, _, tap in window.taps(window.padded)]
    inside = [tap for _, _, tap in ones.taps(ones.padded)]
    if op.name == "MAX_POOL_2D":
        # The padding is zero and must not count as a maximum.
        stacked = np.stack([np.where(is_inside > 0, tap, -np.inf) for is_inside, tap in zip(inside, taps, strict=True)])
        largest = stacked.argmax(axis=0)
        return np.take_along_axis(stacked, largest[np.newaxis], 0)[0].astype(np.float32), (window, largest)
    count = np.sum(inside, axis=0)
    return (np.sum(taps, axis=0) / count).astype(np.float32), (window, count)


def _pool_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    window, largest_or_count = saved
    padded_gradient = np.zeros_like(window.padded)
    for number, (_, _, tap) in enumerate(window.taps(padded_gradient)):
        tap += gradient * (largest_or_count == number) if op.name == "MAX_POOL_2D" else gradient / largest_or_count
    return {op.inputs[0]: window.cropped(padded_gradient)}


def _mean_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    x = inputs[0]
    axes = tuple(sorted(int(axis) % x.ndim for axis in inputs[1].reshape(-1)))
    output: Floats = x.mean(axis=axes, keepdims=bool(op.options.get("keep_dims")), dtype=np.float32)
    return output, (x.shape, axes)


def _mean_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    shape, axes = saved
    kept_dims = [1 if axis in axes else size for axis, size in enumerate(shape)]
    count = np.prod([shape[axis] for axis in axes])
    return {op.inputs[0]: np.broadcast_to(gradient.reshape(kept_dims) / count, shape).astype(np.float32)}


def _reshape_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    return inputs[0].reshape(shape), inputs[0].shape


def _reshape_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    return {op.inputs[0]: gradient.reshape(saved)}


def _pad_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    return np.pad(inputs[0], inputs[1]), (inputs[1], inputs[0].shape)


def _pad_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    pads, shape = saved
    inner = tuple(slice(int(before), int(before) + size) for (before, _), size in zip(pads, shape, strict=True))
    return {op.inputs[0]: gradient[inner]}


def _concat_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    axis = int(op.options["axis"]) % inputs[0].ndim
    return np.concatenate(inputs, axis=axis), (axis, np.cumsum([x.shape[axis] for x in inputs])[:-1])


def _concat_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    gradients: dict[int, Floats] = {}
    for index, part in zip(op.inputs, np.split(gradient, saved[1], axis=saved[0]), strict=True):
        gradients[index] = gradients[index] + part if index in gradients else part
    return gradients


def _relu_forward(op: Op, inputs: Sequence[Any], shape: Shape) -> tuple[Floats, Any]:
    top = RELU6_MAX if op.name == "RELU6" else np.inf
    return np.clip(inputs[0], 0.0, top, dtype=np.float32), (inputs[0] > 0.0) & (inputs[0] < top)


def _relu_backward(op: Op, gradient: Floats, saved: Any) -> dict[int, Floats]:
    return {op.inputs[0]: gradient * saved}


@dataclass(frozen=True)
class Kind:
    """One kind of op.

    Attributes:
        forward: Forward function; see the module.
        backward: Backward function; see the module.
        supports: Returns whether the two functions support an op of this kind.
    """

    forward: Callable[[Op, Sequence[Any], Shape], tuple[Floats, Any]]
    backward: Callable[[Op, Floats, Any], dict[int, Floats]]
    supports: Callable[[Graph, Op], bool]


def _float_batch(graph: Graph, op: Op) -> bool:
    """Return whether the activations' first dimension is the batch and the fused activation is a known one."""
    known = (op.options.get("fused_activation") or "NONE") in ("NONE", "RELU", "RELU6")
    tensors = [graph.tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0]
    return known and all(t.is_constant or (t.rank > 1 and t.shape[0] == 1 and t.dtype == "FLOAT32") for t in tensors)


def _constant_weights(graph: Graph, op: Op) -> bool:
    weights, source = graph.tensors[op.inputs[1]], graph.tensors[op.inputs[0]]
    ungrouped = op.name != "CONV_2D" or (bool(source.shape) and weights.shape[-1] == source.shape[-1])
    return _float_batch(graph, op) and weights.is_constant and weights.dtype == "FLOAT32" and ungrouped


def _float_pair(graph: Graph, op: Op) -> bool:
    return _float_batch(graph, op) and pair_supported(graph, op)


def _inner_concatenation(graph: Graph, op: Op) -> bool:
    tensors = [graph.tensors[i] for i in op.inputs]
    return (
        _float_batch(graph, op)
        and int(op.options["axis"]) % tensors[0].rank > 0
        and not any(t.is_constant for t in tensors)
    )


def _inner_mean(graph: Graph, op: Op) -> bool:
    axes, rank = graph.tensors[op.inputs[1]].data, graph.tensors[op.inputs[0]].rank
    return _float_batch(graph, op) and axes is not None and all(int(axis) % rank > 0 for axis in axes.reshape(-1))


def _inner_padding(graph: Graph, op: Op) -> bool:
    pads = graph.tensors[op.inputs[1]].data
    return _float_batch(graph, op) and pads is not None and not pads[0].any()


#: Ops with a gradient.
KINDS: dict[str, Kind] = {
    **dict.fromkeys(CURVES, Kind(curve_forward, curve_backward, _float_batch)),
    **dict.fromkeys(MOVES, Kind(move_forward, move_backward, move_supported)),
    **dict.fromkeys(PAIRS, Kind(pair_forward, pair_backward, _float_pair)),
    "AVERAGE_POOL_2D": Kind(_pool_forward, _pool_backward, _float_batch),
    "CONCATENATION": Kind(_concat_forward, _concat_backward, _inner_concatenation),
    "CONV_2D": Kind(_linear_forward, _linear_backward, _constant_weights),
    "DEPTHWISE_CONV_2D": Kind(_depthwise_forward, _depthwise_backward, _constant_weights),
    "EXPAND_DIMS": Kind(_reshape_forward, _reshape_backward, _float_batch),
    "FULLY_CONNECTED": Kind(_linear_forward, _linear_backward, _constant_weights),
    "MAX_POOL_2D": Kind(_pool_forward, _pool_backward, _float_batch),
    "MEAN": Kind(_mean_forward, _mean_backward, _inner_mean),
    "PAD": Kind(_pad_forward, _pad_backward, _inner_padding),
    "RELU": Kind(_relu_forward, _relu_backward, _float_batch),
    "RELU6": Kind(_relu_forward, _relu_backward, _float_batch),
    "RESHAPE": Kind(_reshape_forward, _reshape_backward, _float_batch),
    "SQUEEZE": Kind(_reshape_forward, _reshape_backward, _float_batch),
}
