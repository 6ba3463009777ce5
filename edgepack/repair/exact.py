"""Rewrites that compute the same values with other ops; only rounding differs.

Each function takes a graph and an op and returns alternative edits, the preferred one first; an empty list when the
rewrite does not apply to the op.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, Tensor
from edgepack.repair.graph_edits import Draft, Edit

#: Limit of the parts that one op is split into; more would cost too many ops.
_MAX_PARTS = 64

#: More channels than any real layer has: a broken file may claim billions, and a slope for each would exhaust memory.
_MAX_CHANNELS = 1 << 16


def rewrite_grouped_convolution(graph: Graph, op: Op) -> list[Edit]:
    """Grouped CONV_2D: SPLIT, one CONV_2D per group, CONCATENATION.

    With one channel per group it is a DEPTHWISE_CONV_2D, which is preferred.
    """
    if op.name != "CONV_2D" or len(op.inputs) < 2 or len(op.outputs) != 1:
        return []
    x, out = _float_activation(graph, op.inputs[0]), _float_activation(graph, op.outputs[0])
    weights = _constant(graph, op.inputs[1])
    bias = _constant(graph, op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
    if x is None or out is None or weights is None or weights.ndim != 4 or (x.rank, out.rank) != (4, 4):
        return []
    if weights.size == 0 or out.shape[3] != weights.shape[0] or (bias is not None and bias.size != weights.shape[0]):
        return []
    if len(op.inputs) > 2 and op.inputs[2] >= 0 and bias is None:
        return []
    groups, rest = divmod(x.shape[3], weights.shape[3])
    if groups < 2 or rest or weights.shape[0] % groups:
        return []
    edits = []
    if weights.shape[3] == 1:
        draft = Draft(graph, out.name)
        inputs = [x.index, draft.constant(weights.transpose(3, 1, 2, 0))]
        inputs.append(op.inputs[2] if bias is not None else draft.constant(np.zeros(weights.shape[0])))
        options = {**_convolution(op), "depth_multiplier": weights.shape[0] // groups}
        draft.op("DEPTHWISE_CONV_2D", inputs, [out.index], **options)
        message = f"CONV_2D with {groups} groups of one channel written as DEPTHWISE_CONV_2D"
        edits.append(draft.edit("grouped-convolution", [op.index], message))
    if groups <= _MAX_PARTS:
        draft = Draft(graph, out.name)
        filters, channels = weights.shape[0] // groups, weights.shape[3]
        parts = [draft.activation((*x.shape[:3], channels)) for _ in range(groups)]
        draft.op("SPLIT", [draft.constant(3, "INT32"), x.index], parts, num_splits=groups)
        results = []
        for group, part in enumerate(parts):
            of_group = slice(group * filters, (group + 1) * filters)
            inputs = [part, draft.constant(weights[of_group])]
            if bias is not None:
                inputs.append(draft.constant(bias.ravel()[of_group]))
            results.append(draft.then("CONV_2D", inputs, (*out.shape[:3], filters), **_convolution(op)))
        draft.op("CONCATENATION", results, [out.index], axis=3)
        message = f"CONV_2D with {groups} groups written as SPLIT, {groups} CONV_2D and CONCATENATION"
        edits.append(draft.edit("grouped-convolution", [op.index], message))
    return edits


def rewrite_leaky_relu(graph: Graph, op: Op) -> list[Edit]:
    """LEAKY_RELU: PRELU with a constant slope, or MAXIMUM(x, slope * x) for slopes from 0 to 1."""
    x, out = _unary_tensors(graph, op, "LEAKY_RELU")
    if x is None or out is None:
        return []
    alpha = float(op.options.get("alpha", 0.0))
    edits = []
    if x.rank > 1 and x.shape[-1] <= _MAX_CHANNELS:
        draft = Draft(graph, out.name)
        slopes = draft.constant(np.full((*(1,) * (x.rank - 2), x.shape[-1]), alpha))
        draft.op("PRELU", [x.index, slopes], [out.index])
        edits.append(draft.edit("leaky-relu", [op.index], f"LEAKY_RELU written as PRELU with the slope {alpha:g}"))
    if 0.0 <= alpha <= 1.0:
        draft = Draft(graph, out.name)
        scaled = draft.then("MUL", [x.index, draft.constant(alpha)], x.shape)
        draft.op("MAXIMUM", [x.index, scaled], [out.index])
        message = f"LEAKY_RELU written as MAXIMUM of x and {alpha:g} x"
        edits.append(draft.edit("leaky-relu", [op.index], message))
    return edits


def rewrite_padv2(graph: Graph, op: Op) -> list[Edit]:
    """PADV2 that pads with a constant zero: PAD; with another constant: ADD of its negative, PAD, ADD of it."""
    if op.name != "PADV2" or len(op.inputs) != 3 or len(op.outputs) != 1:
        return []
    x, out = _float_activation(graph, op.inputs[0]), _float_activation(graph, op.outputs[0])
    constant = _constant(graph, op.inputs[2])
    if x is None or out is None or constant is None or constant.size != 1:
        return []
    value = float(constant.ravel()[0])
    draft = Draft(graph, out.name)
    if value == 0.0:
        draft.op("PAD", op.inputs[:2], op.outputs)
        return [draft.edit("padv2-zero", [op.index], "PADV2 with the constant 0 written as PAD")]
    # With larger constants the sum in float32 loses the precision of the data.
    if not abs(value) <= 1e3:
        return []
    shifted = draft.then("ADD", [x.index, draft.constant(-value)], x.shape)
    padded = draft.then("PAD", [shifted, op.inputs[1]], out.shape)
    draft.op("ADD", [padded, draft.constant(value)], [out.index])
    return [draft.edit("padv2-shifted", [op.index], f"PADV2 with the constant {value:g} written as ADD, PAD, ADD")]


def rewrite_tile(graph: Graph, op: Op) -> list[Edit]:
    """TILE: one CONCATENATION of the tensor with itself per repeated axis."""
    if not _is_binary(op, "TILE"):
        return []
    x, out = _float_activation(graph, op.inputs[0]), _float_activation(graph, op.outputs[0])
    times = graph.tensors[op.inputs[1]].integers if x is not None and op.inputs[1] >= 0 else None
    if x is None or out is None or times is None or times.size != x.rank:
        return []
    counts = [int(count) for count in times.ravel()]
    if tuple(size * count for size, count in zip(x.shape, counts, strict=True)) != out.shape:
        return []
    repeats = [(axis, count) for axis, count in enumerate(counts) if count > 1]
    if not repeats or max(counts) > _MAX_PARTS:
        return []
    draft = Draft(graph, out.name)
    source, shape = x.index, list(x.shape)
    # Start with the innermost axis, whose copies are the smallest.
    for number, (axis, count) in enumerate(reversed(repeats)):
        shape[axis] *= count
        last = number == len(repeats) - 1
        target = out.index if last else draft.activation(shape)
        draft.op("CONCATENATION", [source] * count, [target], axis=axis)
        source = target
    return [draft.edit("tile", [op.index], f"TILE written as {len(repeats)} CONCATENATION")]


def rewrite_shrinking_slice(graph: Graph, op: Op) -> list[Edit]:
    """STRIDED_SLICE that drops axes (x[:, 0]): STRIDED_SLICE that keeps them, and RESHAPE."""
    mask = int(op.options.get("shrink_axis_mask", 0)) if op.name == "STRIDED_SLICE" else 0
    if not mask or (len(op.inputs), len(op.outputs)) != (4, 1):
        return []
    if any(op.options.get(name) for name in ("ellipsis_mask", "new_axis_mask", "offset")):
        return []
    x, out = _float_activation(graph, op.inputs[0]), _float_activation(graph, op.outputs[0])
    parameters = [graph.tensors[i].integers if i >= 0 else None for i in op.inputs[1:]]
    if x is None or out is None or any(values is None or values.size != x.rank for values in parameters):
        return []
    begin, end, stride = ([int(v) for v in values.ravel()] for values in parameters if values is not None)
    if 0 in stride:
        return []
    slice_shape = []
    for axis in range(x.rank):
        if mask >> axis & 1:
            begin[axis] %= x.shape[axis]
            end[axis], stride[axis] = begin[axis] + 1, 1
    begin_mask, end_mask = (int(op.options.get(name, 0)) & ~mask for name in ("begin_mask", "end_mask"))
    for axis in range(x.rank):
        step = stride[axis]
        start = None if begin_mask >> axis & 1 else begin[axis]
        stop = None if end_mask >> axis & 1 else end[axis]
        slice_shape.append(len(range(x.shape[axis])[slice(start, stop, step)]))
    if math.prod(slice_shape) != out.elements:
        return []
    draft = Draft(graph, out.name)
    constants = [draft.constant(values, "INT32") for values in (begin, end, stride)]
    whole = draft.then("STRIDED_SLICE", [x.index, *constants], slice_shape, begin_mask=begin_mask, end_mask=end_mask)
    draft.op("RESHAPE", [whole, draft.constant(out.shape, "INT32")], [out.index], new_shape=list(out.shape))
    message = "STRIDED_SLICE that drops axes written as STRIDED_SLICE and RESHAPE"
    return [draft.edit("shrinking-slice", [op.index], message)]


def rewrite_split(graph: Graph, op: Op) -> list[Edit]:
    """SPLIT_V: SPLIT where the parts are equal, else one SLICE per part; UNPACK: SPLIT and RESHAPE."""
    if op.name == "SPLIT_V" and len(op.inputs) == 3:
        return _split_v(graph, op)
    if op.name == "UNPACK" and op.inputs:
        return _unpack(graph, op)
    return []


def _split_v(graph: Graph, op: Op) -> list[Edit]:
    x, outputs = _float_activation(graph, op.inputs[0]), [_float_activation(graph, i) for i in op.outputs]
    axis_value = graph.tensors[op.inputs[2]].integers if op.inputs[2] >= 0 else None
    if x is None or axis_value is None or axis_value.size != 1 or len(outputs) > _MAX_PARTS:
        return []
    parts = [out for out in outputs if out is not None]
    axis = int(axis_value.ravel()[0]) % max(1, x.rank)
    if len(parts) < len(outputs) or any(part.rank != x.rank for part in parts):
        return []
    sizes = [part.shape[axis] for part in parts]
    if sum(sizes) != x.shape[axis]:
        return []
    edits = []
    if len(set(sizes)) == 1:
        draft = Draft(graph, parts[0].name)
        draft.op("SPLIT", [draft.constant(axis, "INT32"), x.index], op.outputs, num_splits=len(parts))
        message = f"SPLIT_V into {len(parts)} equal parts written as SPLIT"
        edits.append(draft.edit("split-v-equal", [op.index], message))
    draft = Draft(graph, parts[0].name)
    start = 0
    for part in parts:
        begin = [start if i == axis else 0 for i in range(x.rank)]
        draft.op("SLICE", [x.index, draft.constant(begin, "INT32"), draft.constant(part.shape, "INT32")], [part.index])
        start += part.shape[axis]
    message = f"SPLIT_V into {len(parts)} parts written as {len(parts)} SLICE"
    edits.append(draft.edit("split-v-slices", [op.index], message))
    return edits


def _unpack(graph: Graph, op: Op) -> list[Edit]:
    x, outputs = _float_activation(graph, op.inputs[0]), [_float_activation(graph, i) for i in op.outputs]
    if x is None or not 2 <= len(outputs) <= _MAX_PARTS or any(out is None for out in outputs):
        return []
    axis = int(op.options.get("axis", 0)) % max(1, x.rank)
    draft = Draft(graph, graph.output_name(op))
    shape = tuple(1 if i == axis else size for i, size in enumerate(x.shape))
    parts = [draft.activation(shape) for _ in outputs]
    draft.op("SPLIT", [draft.constant(axis, "INT32"), x.index], parts, num_splits=len(parts))
    for part, out in zip(parts, outputs, strict=True):
        assert out is not None
        shape_constant = draft.constant(out.shape, "INT32")
        draft.op("RESHAPE", [part, shape_constant], [out.index], new_shape=list(out.shape))
    message = f"UNPACK into {len(parts)} parts written as SPLIT and RESHAPE"
    return [draft.edit("unpack", [op.index], message)]


def rewrite_division(graph: Graph, op: Op) -> list[Edit]:
    """DIV by a constant: MUL by its reciprocal."""
    if not _is_binary(op, "DIV") or _float_activation(graph, op.inputs[0]) is None:
        return []
    divisor = _constant(graph, op.inputs[1])
    if divisor is None or _constant(graph, op.inputs[0]) is not None:
        return []
    with np.errstate(divide="ignore", over="ignore"):
        factor = (1.0 / divisor.astype(np.float64)).astype(np.float32)
    if not np.isfinite(factor).all():
        return []
    draft = Draft(graph, graph.output_name(op))
    fused = op.options.get("fused_activation", "NONE")
    draft.op("MUL", [op.inputs[0], draft.constant(factor)], op.outputs, fused_activation=fused)
    return [draft.edit("constant-division", [op.index], "DIV by a constant written as MUL by its reciprocal")]


def rewrite_mean(graph: Graph, op: Op) -> list[Edit]:
    """MEAN over height and width: a mean of means, first along the width, then along the height."""
    if not _is_binary(op, "MEAN"):
        return []
    x, out = _float_activation(graph, op.inputs[0]), _float_activation(graph, op.outputs[0])
    axes_value = graph.tensors[op.inputs[1]].integers if x is not None and op.inputs[1] >= 0 else None
    if x is None or out is None or axes_value is None:
        return []
    axes = sorted({int(axis) % x.rank for axis in axes_value.ravel()})
    if len(axes) < 2:
        return []
    draft = Draft(graph, out.name)
    last = axes[-1]
    shape = tuple(1 if i == last else size for i, size in enumerate(x.shape))
    inner = draft.then("MEAN", [x.index, draft.constant([last], "INT32")], shape, keep_dims=True)
    keep = bool(op.options.get("keep_dims"))
    draft.op(
        "MEAN", [inner, draft.constant([*axes[:-1]] + ([] if keep else [last]), "INT32")], [out.index], keep_dims=keep
    )
    sizes = " x ".join(str(x.shape[axis]) for axis in axes)
    return [draft.edit("mean-in-two", [op.index], f"MEAN over {sizes} values written as two MEAN")]


def rewrite_arithmetic(graph: Graph, op: Op) -> list[Edit]:
    """SQUARE: MUL; SQUARED_DIFFERENCE: SUB and MUL; NEG: MUL by -1; ABS: MAXIMUM of x and -x."""
    out = _float_activation(graph, op.outputs[0]) if len(op.outputs) == 1 else None
    if out is None or op.name not in {"ABS", "NEG", "SQUARE", "SQUARED_DIFFERENCE"}:
        return []
    sources = [index for index in op.inputs if _constant(graph, index) is None]
    if not sources or any(_float_activation(graph, index) is None for index in sources):
        return []
    draft = Draft(graph, out.name)
    x = op.inputs[0]
    if op.name == "SQUARE":
        draft.op("MUL", [x, x], [out.index])
    elif op.name == "SQUARED_DIFFERENCE":
        difference = draft.then("SUB", op.inputs, out.shape)
        draft.op("MUL", [difference, difference], [out.index])
    elif op.name == "NEG":
        draft.op("MUL", [x, draft.constant(-1.0)], [out.index])
    else:
        draft.op("MAXIMUM", [x, draft.then("MUL", [x, draft.constant(-1.0)], out.shape)], [out.index])
    names = ", ".join(new.name for new in draft.ops)
    return [draft.edit("plain-arithmetic", [op.index], f"{op.name} written as {names}")]


def rewrite_constant_product(graph: Graph, op: Op) -> list[Edit]:
    """BATCH_MATMUL of an activation with a constant matrix: FULLY_CONNECTED, with RESHAPE where needed."""
    if not _is_binary(op, "BATCH_MATMUL") or op.options.get("adj_x"):
        return []
    x, out = _float_activation(graph, op.inputs[0]), _float_activation(graph, op.outputs[0])
    matrix = _constant(graph, op.inputs[1])
    if x is None or out is None or matrix is None or x.rank < 2 or matrix.ndim < 2:
        return []
    weights = matrix.reshape(-1, int(matrix.shape[-1]))
    if len(weights) != list(matrix.shape)[-2]:
        return []
    if not op.options.get("adj_y"):
        weights = weights.T
    if weights.shape[1] != x.shape[-1] or weights.shape[0] != out.shape[-1]:
        return []
    rows = math.prod(x.shape[:-1])
    draft = Draft(graph, out.name)
    flat, product_shape = (rows, x.shape[-1]), (rows, out.shape[-1])
    source = x.index
    if x.shape != flat:
        source = draft.then("RESHAPE", [source, draft.constant(flat, "INT32")], flat, new_shape=list(flat))
    inputs = [source, draft.constant(weights), draft.constant(np.zeros(out.shape[-1]))]
    if out.shape == product_shape:
        draft.op("FULLY_CONNECTED", inputs, [out.index])
    else:
        product = draft.then("FULLY_CONNECTED", inputs, product_shape)
        shape_constant = draft.constant(out.shape, "INT32")
        draft.op("RESHAPE", [product, shape_constant], [out.index], new_shape=list(out.shape))
    message = "BATCH_MATMUL with a constant matrix written as FULLY_CONNECTED"
    return [draft.edit("constant-product", [op.index], message)]


def _convolution(op: Op) -> dict[str, Any]:
    """Return the options that CONV_2D and DEPTHWISE_CONV_2D share."""
    names = ("padding", "stride_w", "stride_h", "dilation_w", "dilation_h", "fused_activation")
    return {name: op.options[name] for name in names if name in op.options}


def _float_activation(graph: Graph, index: int) -> Tensor | None:
    """Return a float32 activation of known shape with at least one value, None for anything else."""
    if index < 0:
        return None
    tensor = graph.tensors[index]
    is_static = not tensor.is_dynamic and tensor.rank > 0 and tensor.elements > 0
    return tensor if is_static and tensor.dtype == "FLOAT32" and not tensor.is_constant else None


def _constant(graph: Graph, index: int) -> npt.NDArray[np.float32] | None:
    """Return the values of a float32 constant, None for anything else."""
    tensor = graph.tensors[index] if index >= 0 else None
    return tensor.data if tensor is not None and tensor.dtype == "FLOAT32" else None


def _is_binary(op: Op, name: str) -> bool:
    return op.name == name and len(op.inputs) == 2 and len(op.outputs) == 1


def _unary_tensors(graph: Graph, op: Op, name: str) -> tuple[Tensor | None, Tensor | None]:
    if op.name != name or len(op.inputs) != 1 or len(op.outputs) != 1:
        return None, None
    return _float_activation(graph, op.inputs[0]), _float_activation(graph, op.outputs[0])


def activation(graph: Graph, op: Op, names: Sequence[str]) -> tuple[Tensor, Tensor] | None:
    """Return (input, output) of an op with one float input and one float output, None for any other op."""
    if op.name not in names:
        return None
    x, out = _unary_tensors(graph, op, op.name)
    return None if x is None or out is None else (x, out)
