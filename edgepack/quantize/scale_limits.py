"""Limits of the int8 kernels on ratios of scales: ranges are widened until the runtime loads the file.

A layer that is almost always zero, or whose sums cancel, has an output so narrow that the factor from its accumulator
to its output exceeds what the kernel can represent. The runtime then refuses the file, or aborts the process.

| op | limit | source |
| --- | --- | --- |
| CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, TRANSPOSE_CONV | input * weights / output < 2^8 | XNNPACK |
| ADD, SUB | 2 * larger input / output < 2^20 | tensorflow/lite/kernels/add.cc and sub.cc |
| SQUARED_DIFFERENCE | (2 * larger input)^2 / output < 2^14 | tensorflow/lite/kernels/squared_difference.cc |
| HARD_SWISH | input / output < 2^7 | tensorflow/lite/kernels/activations.cc |

XNNPACK's files are convolution-nhwc.c, deconvolution-nhwc.c and fully-connected-nc.c in src/operators/ of
github.com/google/XNNPACK. Files of one op with ratios from 2^-40 to 2^30 confirm the limits in ai-edge-litert 2.3.0 and
show none for ABS, ELU, EXP, GELU, LEAKY_RELU, LOG, LOGISTIC, MAXIMUM, MEAN, MINIMUM, MUL, NEG, QUANTIZE, RELU, SUM and
TANH; the tests go beyond the limits.
"""

from collections.abc import Mapping

import numpy as np

from edgepack.graph import Graph, Op
from edgepack.graph.edit import tensor_keys
from edgepack.graph.op_layout import OP_LAYOUTS
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_constraints import fixed_range, same_scale_groups

_STEPS, _MAX_WEIGHT = 255.0, 127.0

#: Share of a limit that is used: scales are rounded to float32, and kernels compute the ratio in their own order.
_MARGIN = 0.99

_LAYERS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
_SUMS = frozenset({"ADD", "SUB"})

#: Passes over the graph: one op's wider output is the next one's wider input, and groups reach back.
_PASSES = 8


def bounded_ranges(graph: Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the ranges, outputs widened where the kernel could not represent the ratio of scales.

    Args:
        graph: The float graph.
        ranges: (minimum, maximum) by `tensor_keys`; activations without one are not touched.
    """
    keys = tensor_keys(graph)
    index_of = {key: index for index, key in enumerate(keys)}
    bounds = {index_of[key]: value for key, value in ranges.items() if key in index_of}
    group_of = {index: members for members in same_scale_groups(graph) for index in members}
    fixed = {op.outputs[0] for op in graph.ops if op.outputs and fixed_range(op, 8) is not None}
    for _ in range(_PASSES):
        changed = False
        for op in graph.ops:
            output = op.outputs[0] if op.outputs else -1
            if output not in bounds or output in fixed:
                continue
            least = _least_scale(graph, op, bounds) / _MARGIN
            if (bounds[output][1] - bounds[output][0]) / _STEPS >= least * _MARGIN:
                continue
            changed = True
            wider = _widened(bounds[output], least * _STEPS)
            for index in group_of.get(output, [output]):
                if index in bounds and index not in fixed:
                    low, high = bounds[index]
                    bounds[index] = min(low, wider[0]), max(high, wider[1])
        if not changed:
            break
    return {**ranges, **{keys[index]: value for index, value in bounds.items()}}


def _least_scale(graph: Graph, op: Op, bounds: Mapping[int, Range]) -> float:
    """Return the smallest scale of an op's output that its kernel can represent, 0 without a limit."""
    if op.name in _LAYERS:
        layout = OP_LAYOUTS[op.name]
        weights = graph.tensors[op.inputs[layout.weights]].data
        if weights is None or weights.dtype != np.float32:
            return 0.0
        largest = float(np.abs(weights).max(initial=0.0)) / _MAX_WEIGHT
        return _scale(graph, op.inputs[layout.data], bounds) * largest / 2.0**8
    if op.name in _SUMS:
        return 2.0 * _larger_scale(graph, op, bounds) / 2.0**20
    if op.name == "SQUARED_DIFFERENCE":
        return (2.0 * _larger_scale(graph, op, bounds)) ** 2 / 2.0**14
    return _scale(graph, op.inputs[0], bounds) / 2.0**7 if op.name == "HARD_SWISH" else 0.0


def _larger_scale(graph: Graph, op: Op, bounds: Mapping[int, Range]) -> float:
    return max(_scale(graph, index, bounds) for index in op.inputs)


def _scale(graph: Graph, index: int, bounds: Mapping[int, Range]) -> float:
    """Return the scale of an activation, or of a constant that is quantized by its extremes."""
    data = graph.tensors[index].data if index not in bounds else None
    if data is not None and data.size and data.dtype == np.float32:
        return (max(0.0, float(data.max())) - min(0.0, float(data.min()))) / _STEPS
    low, high = bounds.get(index, (0.0, 0.0))
    return (high - low) / _STEPS


def _widened(bounds: Range, width: float) -> Range:
    """Return a range of a width, around the old one in proportion."""
    low, high = bounds
    if high - low <= 0.0:
        return 0.0, width
    factor = width / (high - low)
    return low * factor, high * factor
