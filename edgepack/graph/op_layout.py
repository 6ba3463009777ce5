"""Layout of TFLite ops: where weights, bias and channels are, what fused activations clip at, what SAME padding adds.

Other modules look these facts up here and keep no table of their own. Source: the kernels in
tensorflow/lite/kernels/ of github.com/tensorflow/tensorflow (conv.cc, depthwise_conv.cc, fully_connected.cc,
transpose_conv.cc, conv3d.cc, conv3d_transpose.cc, batch_matmul.cc, embedding_lookup.cc).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph.model import Graph, Op


@dataclass(frozen=True)
class OpLayout:
    """Positions of the inputs of an op with weights.

    Attributes:
        data: Input position of the activation (of the row indices, for EMBEDDING_LOOKUP).
        weights: Input position of the weights.
        bias: Input position of the bias, None for an op without one.
        channel_axis: Dimension of the weights along which the output channels run, which is also the dimension of
            per-channel scales; None for an op whose kernel reads a single scale.
    """

    data: int
    weights: int
    bias: int | None
    channel_axis: int | None


#: Every op with weights that is not recurrent. Shapes of the weights: CONV_2D and TRANSPOSE_CONV (out, h, w, in),
#: DEPTHWISE_CONV_2D (1, h, w, out), FULLY_CONNECTED (out, in), CONV_3D (d, h, w, in, out), CONV_3D_TRANSPOSE
#: (d, h, w, out, in), EMBEDDING_LOOKUP (rows, ...).
OP_LAYOUTS: dict[str, OpLayout] = {
    "BATCH_MATMUL": OpLayout(data=0, weights=1, bias=None, channel_axis=None),
    "CONV_2D": OpLayout(data=0, weights=1, bias=2, channel_axis=0),
    "CONV_3D": OpLayout(data=0, weights=1, bias=2, channel_axis=4),
    "CONV_3D_TRANSPOSE": OpLayout(data=2, weights=1, bias=3, channel_axis=3),
    "DEPTHWISE_CONV_2D": OpLayout(data=0, weights=1, bias=2, channel_axis=3),
    "EMBEDDING_LOOKUP": OpLayout(data=0, weights=1, bias=None, channel_axis=0),
    "FULLY_CONNECTED": OpLayout(data=0, weights=1, bias=2, channel_axis=0),
    "TRANSPOSE_CONV": OpLayout(data=2, weights=1, bias=3, channel_axis=0),
}

#: Upper bound of RELU6.
RELU6_MAX = 6.0

#: (minimum, maximum) that each activation clips to; TANH and SIGN_BIT are no clips and are not here.
ACTIVATION_BOUNDS: dict[str, tuple[float, float]] = {
    "NONE": (-math.inf, math.inf),
    "RELU": (0.0, math.inf),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, RELU6_MAX),
}

#: Ops that only move or repeat values, with the input that they move; None means all inputs.
MOVEMENT_OPS: dict[str, int | None] = {
    "BATCH_TO_SPACE_ND": 0,
    "BROADCAST_TO": 0,
    "CONCATENATION": None,
    "DEPTH_TO_SPACE": 0,
    "EXPAND_DIMS": 0,
    "GATHER": 0,
    "GATHER_ND": 0,
    "PACK": None,
    "RESHAPE": 0,
    "RESIZE_NEAREST_NEIGHBOR": 0,
    "REVERSE_V2": 0,
    "SLICE": 0,
    "SPACE_TO_DEPTH": 0,
    "SPLIT": 1,
    "SPLIT_V": 0,
    "SQUEEZE": 0,
    "STRIDED_SLICE": 0,
    "TILE": 0,
    "TRANSPOSE": 0,
    "UNPACK": 0,
}

#: Ops that only change the data type of a tensor.
TYPE_CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})

#: Ops that initialize, read and assign resource variables.
STATE_OPS = frozenset({"ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE"})


def weights_index(op: Op) -> int:
    """Return the tensor index of an op's weights, -1 when it has none."""
    layout = OP_LAYOUTS.get(op.name)
    return -1 if layout is None else _input(op, layout.weights)


def bias_index(op: Op) -> int:
    """Return the tensor index of an op's bias, -1 when it has none."""
    layout = OP_LAYOUTS.get(op.name)
    return -1 if layout is None or layout.bias is None else _input(op, layout.bias)


def _input(op: Op, position: int) -> int:
    return op.inputs[position] if position < len(op.inputs) else -1


def channel_rows(weights: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """Return weights as (channels, weights of one channel).

    Args:
        weights: The weights.
        axis: Dimension along which the channels run.
    """
    return np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)


def from_channel_rows(rows: npt.NDArray[Any], shape: Sequence[int], axis: int) -> npt.NDArray[Any]:
    """Undo `channel_rows`: return the weights in their shape."""
    others = [size for position, size in enumerate(shape) if position != axis]
    return np.moveaxis(rows.reshape(shape[axis], *others), 0, axis)


def dilated_size(kernel: int, dilation: int) -> int:
    """Return how many input values a dilated kernel spans along one dimension."""
    return (kernel - 1) * dilation + 1


def padding_amounts(padding: str, size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros that padding adds before and after the values of one dimension.

    SAME follows ComputePaddingWithOffset in tensorflow/lite/kernels/padding.h: an odd zero goes to the end.

    Args:
        padding: `SAME` or `VALID`.
        size: Values of the input along the dimension.
        kernel: Values that the kernel spans, dilation included (`dilated_size`).
        stride: Stride, 1 or more.
    """
    if padding != "SAME":
        return 0, 0
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def float_ops(graph: Graph) -> Iterator[Op]:
    """Yield the ops that compute in float, without QUANTIZE and DEQUANTIZE and those that access variables."""
    for op in graph.ops:
        if op.name in TYPE_CONVERSIONS or op.name in STATE_OPS:
            continue
        tensors = [*(t for t in graph.op_inputs(op) if t is not None), *graph.op_outputs(op)]
        if any(tensor.is_float and not tensor.is_constant for tensor in tensors):
            yield op


def is_linear(op: Op) -> bool:
    """Return whether an op has no fused activation function."""
    return op.options.get("fused_activation", "NONE") in (None, "NONE")


def producer_named(graph: Graph, index: int, name: str) -> Op | None:
    """Return the op that computes a tensor if it has this name, None otherwise.

    Args:
        graph: The graph.
        index: Tensor index.
        name: TFLite name.
    """
    producer = graph.producers.get(index)
    return graph.ops[producer] if producer is not None and graph.ops[producer].name == name else None
