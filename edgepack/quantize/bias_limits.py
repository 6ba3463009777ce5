"""Keep biases within 32 bits: the scale of a channel's weights must not be too small for its bias.

A bias is stored in steps of input scale times weight scale. In channels that training switched off, weights of 1e-30
stand beside a bias like any other: its integer exceeds 32 bits, wraps around, and the channel loses its constant. That
concerns 86 channels of EfficientNet-Lite0, 969 of a visual wake words network and 1,047 of a hand detector, by up to
the whole range of the activation. In these three the next layer ignores the channels. One weight of such a channel is
raised until the channel's scale is as large as its bias needs; what it adds is less than 2^-13 of the bias.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgepack.graph import read_model
from edgepack.graph.edit import pack, tensor_keys, unpack
from edgepack.graph.op_layout import OP_LAYOUTS, bias_index, channel_rows, from_channel_rows, weights_index
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_constraints import fixed_range

#: Largest integer of a bias: leaves the accumulator seven eighths of its range.
_LARGEST_BIAS = float(2**28)

#: Smallest range that ai-edge-quantizer gives a scale of its own (`tensor_zp_scale_from_min_max`).
SMALLEST_RANGE = np.float32(1e-9)

_INT8 = np.iinfo(np.int8)


def raise_weights(
    rows: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], input_scale: float
) -> npt.NDArray[np.float32]:
    """Return weights whose scales are large enough for the biases; the same array where all are.

    Args:
        rows: (scales, weights), the weights that share a scale in one row.
        bias: (channels,), where channels are as many as scales, or all share one scale.
        input_scale: Scale of the layer's int8 input.
    """
    needed = np.abs(bias.astype(np.float64)) * (_INT8.max / (input_scale * _LARGEST_BIAS))
    if len(rows) == 1:
        needed = needed.max(keepdims=True, initial=0.0)
    largest = np.abs(rows).max(axis=1)
    small = needed > largest
    if not small.any():
        return rows
    raised = rows.copy()
    position = np.abs(rows).argmax(axis=1)[small]
    # The largest weight keeps its sign: it is the one that the raised value distorts least.
    raised[small, position] = np.where(rows[small, position] < 0, -1.0, 1.0) * needed[small]
    return raised


def representable_biases(tflite: bytes, ranges: Mapping[str, Range], rule: SchemeRule) -> bytes:
    """Return the float model with weights raised where a bias would exceed 32 bits; the same bytes where none would.

    Args:
        tflite: A float .tflite.
        ranges: (minimum, maximum) of its activations by `tensor_keys`.
        rule: The int8 rule: which weights share a scale.
    """
    graph = read_model(tflite).main
    keys, producers = tensor_keys(graph), graph.producers
    changed: dict[int, npt.NDArray[np.float32]] = {}
    for op in graph.ops:
        weights, bias = weights_index(op), bias_index(op)
        if weights < 0 or bias < 0:
            continue
        tensor, values = graph.tensors[weights], graph.tensors[bias].data
        if tensor.data is None or values is None or {tensor.dtype, graph.tensors[bias].dtype} != {"FLOAT32"}:
            continue
        source = op.inputs[OP_LAYOUTS[op.name].data]
        bounds = fixed_range(graph.ops[producers[source]], 8) if source in producers else None
        bounds = bounds or ranges.get(keys[source])
        if bounds is None:
            continue
        axis = None if rule.has_one_scale(op.name) else OP_LAYOUTS[op.name].channel_axis
        array = changed.get(tensor.buffer, tensor.data)
        rows = scale_rows(array, axis)
        raised = raise_weights(rows, values.reshape(-1), float(int8_parameters(bounds)[0]))
        if raised is not rows:
            changed[tensor.buffer] = np.ascontiguousarray(from_scale_rows(raised, array.shape, axis))
    if not changed:
        return tflite
    model = unpack(tflite)
    for buffer, array in changed.items():
        model.buffers[buffer].data = array.reshape(-1).view(np.uint8)
    return pack(model)


def scale_rows(weights: npt.NDArray[np.float32], axis: int | None) -> npt.NDArray[np.float32]:
    """Return weights with one row per scale.

    Args:
        weights: The weights.
        axis: Dimension whose entries have scales of their own; None where all share one.
    """
    return weights.reshape(1, -1) if axis is None else channel_rows(weights, axis)


def from_scale_rows(rows: npt.NDArray[np.float32], shape: tuple[int, ...], axis: int | None) -> npt.NDArray[np.float32]:
    """Undo `scale_rows`: return the weights in their shape."""
    return rows.reshape(shape) if axis is None else from_channel_rows(rows, shape, axis)


def int8_parameters(bounds: Range) -> tuple[np.float32, np.float32]:
    """Return scale and zero point of an int8 activation as ai-edge-quantizer computes them, bit for bit.

    Args:
        bounds: Its minimum and maximum; zero is included.
    """
    low, high = np.minimum(np.float32(bounds[0]), np.float32(0)), np.maximum(np.float32(bounds[1]), np.float32(0))
    scale = np.float32(np.maximum(high - low, SMALLEST_RANGE) / np.float32(_INT8.max - _INT8.min))
    return scale, np.float32(np.rint(np.float32(_INT8.min) - low / scale))
