"""The quantities of the vocabulary, measured on an op. A function returns None when the file does not determine one."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgepack.compat.context import Context, data_input, first_output, inputs, tensors, weights_of
from edgepack.graph import Op, Tensor
from edgepack.graph.op_layout import OP_LAYOUTS, channel_rows, dilated_size, padding_amounts
from edgepack.profiles.variants import hexagon_arch

Measured = float | None


def axes(context: Context, op: Op) -> tuple[int, ...] | None:
    """Return the axes the op works along, counted from 0: the reduced, padded, packed, split, joined or removed ones.

    None when they are not constant; empty for ops without axes.
    """
    graph = context.graph
    data, output = data_input(graph, op), first_output(graph, op)
    rank = data.rank if data else 0
    if op.name in {"PACK", "EXPAND_DIMS"}:
        rank = output.rank if output else 0
    position = _AXES_INPUT.get(op.name)
    if op.name in {"PAD", "PADV2", "MIRROR_PAD"}:
        paddings = _values(context, op, 1)
        if paddings is None or paddings.ndim != 2:
            return None
        return tuple(int(i) for i in np.flatnonzero(paddings.any(axis=1)))
    if position is not None:
        values = _values(context, op, position)
        if values is None:
            return None
        listed = [int(v) for v in values.ravel()]
    elif op.name == "SQUEEZE":
        squeezed = [int(v) for v in op.options.get("squeeze_dims") or []]
        listed = squeezed or [i for i, size in enumerate(data.shape if data else ()) if size == 1]
    elif "axis" in op.options:
        listed = [int(op.options["axis"])]
    else:
        return ()
    return tuple(sorted({axis + rank if axis < 0 else axis for axis in listed}))


_AXES_INPUT = {
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ALL", "REDUCE_ANY"), 1),
    **dict.fromkeys(("ARG_MAX", "ARG_MIN", "EXPAND_DIMS", "CUMSUM", "REVERSE_V2"), 1),
    "SPLIT": 0,
    "SPLIT_V": 2,
}


def measure(context: Context, op: Op, quantity: str) -> Measured:
    """Return a quantity of `edgepack.profiles.vocabulary.QUANTITIES`; None when the file does not determine it."""
    return MEASURES[quantity](context, op)


def _values(context: Context, op: Op, position: int) -> npt.NDArray[np.int64] | None:
    tensor = _input_at(context, op, position)
    return tensor.integers if tensor is not None else None


def _input_at(context: Context, op: Op, position: int) -> Tensor | None:
    return next((tensor for i, _, tensor in inputs(context.graph, op) if i == position), None)


def _option(*names: str, default: float | None = None) -> Callable[[Context, Op], Measured]:
    def read(context: Context, op: Op) -> Measured:
        for name in names:
            value = op.options.get(name)
            if isinstance(value, int | float):
                return float(value)
        return default

    return read


def _dimension(which: Callable[[Context, Op], Tensor | None], from_end: int) -> Callable[[Context, Op], Measured]:
    def read(context: Context, op: Op) -> Measured:
        tensor = which(context, op)
        if tensor is None:
            return None
        return float(tensor.shape[-from_end]) if tensor.rank >= from_end else 1.0

    return read


def _in(context: Context, op: Op) -> Tensor | None:
    return data_input(context.graph, op)


def _out(context: Context, op: Op) -> Tensor | None:
    return first_output(context.graph, op)


def _weights(context: Context, op: Op) -> Tensor | None:
    return weights_of(context.graph, op)


def _of(
    which: Callable[[Context, Op], Tensor | None], read: Callable[[Tensor], float]
) -> Callable[[Context, Op], Measured]:
    def measured(context: Context, op: Op) -> Measured:
        tensor = which(context, op)
        return None if tensor is None else float(read(tensor))

    return measured


def _kernel(option: str, axis: int) -> Callable[[Context, Op], Measured]:
    """Kernel size: an option of a pool, dimension 1 or 2 of an OHWI or 1HWO filter (schema.fbs)."""

    def read(context: Context, op: Op) -> Measured:
        if option in op.options:
            return float(op.options[option])
        weights = _weights(context, op)
        return float(weights.shape[axis]) if weights is not None and weights.rank == 4 else None

    return read


_kernel_h, _kernel_w = _kernel("filter_height", 1), _kernel("filter_width", 2)
_dilation_h, _dilation_w = _option("dilation_h", default=1.0), _option("dilation_w", default=1.0)


def _dilated(
    kernel: Callable[[Context, Op], Measured], dilation: Callable[[Context, Op], Measured]
) -> Callable[[Context, Op], Measured]:
    def read(context: Context, op: Op) -> Measured:
        size, step = kernel(context, op), dilation(context, op)
        return None if size is None or step is None else float(dilated_size(int(size), int(step)))

    return read


def _product(*parts: Callable[[Context, Op], Measured]) -> Callable[[Context, Op], Measured]:
    def read(context: Context, op: Op) -> Measured:
        values = [part(context, op) for part in parts]
        known = [value for value in values if value is not None]
        return math.prod(known) if len(known) == len(values) else None

    return read


_dilated_h, _dilated_w = _dilated(_kernel_h, _dilation_h), _dilated(_kernel_w, _dilation_w)


def _ratio(from_end: int) -> Callable[[Context, Op], Measured]:
    def read(context: Context, op: Op) -> Measured:
        before, after = _dimension(_in, from_end)(context, op), _dimension(_out, from_end)(context, op)
        return after / before if before and after else None

    return read


def _aligned_ratio(from_end: int) -> Callable[[Context, Op], Measured]:
    def read(context: Context, op: Op) -> Measured:
        before, after = _dimension(_in, from_end)(context, op), _dimension(_out, from_end)(context, op)
        return (after - 1) / (before - 1) if before and after and before > 1 else None

    return read


def _added(from_end: int, kernel: Callable[[Context, Op], Measured], stride: str) -> Callable[[Context, Op], Measured]:
    """Rows or columns that padding SAME adds: TFLite's ComputePaddingWithOffset, tflite/kernels/padding.h."""

    def read(context: Context, op: Op) -> Measured:
        if op.options.get("padding") != "SAME":
            return 0.0 if op.options.get("padding") == "VALID" else None
        size, window, step = _dimension(_in, from_end)(context, op), kernel(context, op), op.options.get(stride)
        if size is None or window is None or not isinstance(step, int) or step < 1:
            return None
        return float(sum(padding_amounts("SAME", int(size), int(window), step)))

    return read


def _batch(context: Context, op: Op) -> Measured:
    tensor = _in(context, op)
    if tensor is None:
        return None
    return float(tensor.shape[0]) if tensor.rank >= 2 else 1.0


def _groups(context: Context, op: Op) -> Measured:
    data, weights = _in(context, op), _weights(context, op)
    if (
        op.name != "CONV_2D"
        or data is None
        or weights is None
        or not (data.shape and weights.shape and weights.shape[-1])
    ):
        return 1.0
    return data.shape[-1] / weights.shape[-1]


def _largest_dimension(context: Context, op: Op) -> Measured:
    return float(max((size for _, t in tensors(context.graph, op, "data") for size in t.shape), default=1))


def _bias_bits(context: Context, op: Op) -> Measured:
    bias = next((tensor for _, _, tensor in inputs(context.graph, op, "bias")), None)
    if bias is None:
        return 0.0
    values = bias.integers
    return None if values is None else float(int(np.abs(values).max(initial=0)).bit_length() + 1)


def _weights_abs_sum(context: Context, op: Op) -> Measured:
    weights = _weights(context, op)
    integers = weights.integers if weights is not None else None
    if weights is None or integers is None:
        return None
    layout = OP_LAYOUTS.get(op.name)
    axis = layout.channel_axis if layout is not None else 0
    if axis is None or axis >= weights.rank:
        return None
    values = channel_rows(integers, axis)
    if weights.quantization is not None and weights.quantization.zero_point.size in {1, values.shape[0]}:
        values = values - weights.quantization.zero_point.reshape(-1, 1)
    return float(np.abs(values).sum(axis=1).max(initial=0))


def _reduced(from_end: int) -> Callable[[Context, Op], Measured]:
    def read(context: Context, op: Op) -> Measured:
        data, along = _in(context, op), axes(context, op)
        if data is None or along is None:
            return None
        axis = data.rank - from_end
        return float(data.shape[axis]) if axis >= 0 and axis in along else 1.0

    return read


def _reduced_elements(context: Context, op: Op) -> Measured:
    data, along = _in(context, op), axes(context, op)
    if data is None or along is None:
        return None
    return float(math.prod(data.shape[axis] for axis in along if 0 <= axis < data.rank))


def _kept_before_squeezed(context: Context, op: Op) -> Measured:
    data, along = _in(context, op), axes(context, op)
    if data is None or not along:
        return 0.0
    return float(sum(size > 1 for size in data.shape[: max(along)]))


def _axes_count(context: Context, op: Op) -> Measured:
    along = axes(context, op)
    return None if along is None else float(len(along))


def _padding_rows(context: Context, op: Op) -> Measured:
    paddings = _input_at(context, op, 1)
    return float(paddings.shape[0]) if paddings is not None and paddings.rank == 2 else None


def _slice_stride(context: Context, op: Op) -> Measured:
    values = _values(context, op, 3)
    return None if values is None else float(np.abs(values.astype(np.int64)).max(initial=1))


def _smallest_slice_stride(context: Context, op: Op) -> Measured:
    values = _values(context, op, 3)
    return None if values is None else float(values.min(initial=1))


def _channel_slice_stride(context: Context, op: Op) -> Measured:
    values, data = _values(context, op, 3), _in(context, op)
    if values is None or data is None or op.options.get("ellipsis_mask") or op.options.get("new_axis_mask"):
        return None
    # Axes without parameters are copied whole; an axis that the mask removes has no stride.
    dropped = int(op.options.get("shrink_axis_mask", 0)) >> max(0, data.rank - 1) & 1
    return float(values.ravel()[-1]) if values.size == data.rank > 0 and not dropped else 1.0


def _broadcast(position: int) -> Callable[[Context, Op], Measured]:
    def read(context: Context, op: Op) -> Measured:
        value, out = _input_at(context, op, position), _out(context, op)
        if op.name not in {"SELECT", "SELECT_V2"} or value is None or out is None:
            return None
        return float(context.enters(value) and 1 < math.prod(value.shape) < math.prod(out.shape))

    return read


def _entering_inputs(context: Context, op: Op) -> Measured:
    return float(sum(1 for tensor in context.graph.op_inputs(op) if tensor is not None and context.enters(tensor)))


def _float_masks(context: Context, op: Op) -> Measured:
    return float(len(context.float_masks.intersection(op.inputs)))


def _matrices(context: Context, op: Op) -> Measured:
    out = _out(context, op)
    return float(math.prod(out.shape[:-2])) if op.name == "BATCH_MATMUL" and out is not None else None


def _count_inputs(constant: bool | None) -> Callable[[Context, Op], Measured]:
    def read(context: Context, op: Op) -> Measured:
        present = [t for t in context.graph.op_inputs(op) if t is not None]
        return float(sum(1 for t in present if constant is None or context.is_constant(t) == constant))

    return read


def _rank_of(tensor: Tensor | None) -> Measured:
    return None if tensor is None else float(tensor.rank)


def _arch(context: Context, op: Op) -> Measured:
    arch = hexagon_arch(context.soc)
    return None if arch is None else float(arch)


def _soc_float16(context: Context, op: Op) -> Measured:
    known = context.soc.get("float16")
    return None if known is None else float(bool(known))


def _runtime_version(context: Context, op: Op) -> Measured:
    return context.runtime_version


#: One function per quantity of the vocabulary.
MEASURES: Mapping[str, Callable[[Context, Op], Measured]] = {
    "aligned_resize_factor_h": _aligned_ratio(3),
    "aligned_resize_factor_w": _aligned_ratio(2),
    "alpha": _option("alpha"),
    "arch": _arch,
    "axes": _axes_count,
    "batch": _batch,
    "beta": _option("beta"),
    "bias_bits": _bias_bits,
    "block_size": _option("block_size"),
    "broadcast_else": _broadcast(2),
    "broadcast_then": _broadcast(1),
    "cell_clip": _option("cell_clip", default=0.0),
    "constant_inputs": _count_inputs(True),
    "depth_multiplier": _option("depth_multiplier", default=1.0),
    "dilated_kernel_area": _product(_dilated_h, _dilated_w),
    "dilated_kernel_h": _dilated_h,
    "dilated_kernel_w": _dilated_w,
    "dilation_h": _dilation_h,
    "dilation_w": _dilation_w,
    "dimension": _largest_dimension,
    "entering_inputs": _entering_inputs,
    "float_masks": _float_masks,
    "groups": _groups,
    "index_rank": lambda context, op: _rank_of(_input_at(context, op, 1)),
    "input_area": _product(_dimension(_in, 3), _dimension(_in, 2)),
    "input_c": _dimension(_in, 1),
    "input_elements": _of(_in, lambda tensor: tensor.elements),
    "input_h": _dimension(_in, 3),
    "input_rank": _of(_in, lambda tensor: tensor.rank),
    "input_w": _dimension(_in, 2),
    "inputs": _count_inputs(None),
    "kept_before_squeezed": _kept_before_squeezed,
    "kernel_area": _product(_kernel_h, _kernel_w),
    "kernel_h": _kernel_h,
    "kernel_w": _kernel_w,
    "matrices": _matrices,
    "output_c": _dimension(_out, 1),
    "output_elements": _of(_out, lambda tensor: tensor.elements),
    "output_h": _dimension(_out, 3),
    "output_rank": _of(_out, lambda tensor: tensor.rank),
    "output_w": _dimension(_out, 2),
    "outputs": lambda context, op: float(len(context.graph.op_outputs(op))),
    "pad_h": _added(3, _dilated_h, "stride_h"),
    "pad_w": _added(2, _dilated_w, "stride_w"),
    "padding_rows": _padding_rows,
    "proj_clip": _option("proj_clip", default=0.0),
    "reduced_c": _reduced(1),
    "reduced_elements": _reduced_elements,
    "reduced_h": _reduced(3),
    "reduced_w": _reduced(2),
    "resize_factor_h": _ratio(3),
    "resize_factor_w": _ratio(2),
    "runtime_inputs": _count_inputs(False),
    "runtime_version": _runtime_version,
    "slice_stride": _slice_stride,
    "slice_stride_c": _channel_slice_stride,
    "slice_stride_min": _smallest_slice_stride,
    "soc_float16": _soc_float16,
    "stride_h": _option("stride_h"),
    "stride_w": _option("stride_w"),
    "weights_abs_sum": _weights_abs_sum,
    "weights_rank": _of(_weights, lambda tensor: tensor.rank),
}
