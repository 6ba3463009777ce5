"""Lowering of ops that move, repeat or pad values without computing new ones."""

import math
from typing import Any

import numpy as np

from edgepack.quantize.ptq.lowering.call import Call, Lowering, NotLoweredError, axis_from_front, behind_samples
from edgepack.quantize.ptq.lowering.lazy import tf


def reshape(call: Call) -> Any:
    """Lower RESHAPE: the target shape is the second operand's, or an option of old files."""
    target = call.ints(1) if call.has(1) else [int(size) for size in call.option("new_shape", None) or ()]
    elements = math.prod(call.shape(0))
    if -1 in target:
        known = -math.prod(target)
        target = [elements // known if size == -1 else size for size in target]
    if math.prod(target) != elements:
        raise NotLoweredError(f"RESHAPE of {list(call.shape(0))} to {target}")
    return tf.reshape(call.batched(0), [call.batch, *target])


def squeeze(call: Call) -> Any:
    """Lower SQUEEZE: all axes of size 1 unless some are listed."""
    shape = call.shape(0)
    listed = [axis_from_front(int(axis), len(shape)) for axis in call.option("squeeze_dims", None) or ()]
    kept = [size for axis, size in enumerate(shape) if (axis not in listed if listed else size != 1)]
    return tf.reshape(call.batched(0), [call.batch, *kept])


def expand_dims(call: Call) -> Any:
    """Lower EXPAND_DIMS."""
    (axis,) = behind_samples(call.ints(1), call.rank(0) + 1)
    return tf.expand_dims(call.batched(0), axis)


def transpose(call: Call) -> Any:
    """Lower TRANSPOSE."""
    return tf.transpose(call.batched(0), [0, *behind_samples(call.ints(1), call.rank(0))])


def concatenation(call: Call) -> Any:
    """Lower CONCATENATION."""
    (axis,) = behind_samples([call.option("axis", 0)], call.rank(0))
    return call.activated(tf.concat([call.batched(position) for position in range(len(call.operands))], axis))


def split(call: Call) -> Any:
    """Lower SPLIT into equal parts: axis, input."""
    (axis,) = behind_samples(call.ints(0), call.rank(1))
    return tf.split(call.batched(1), len(call.outputs), axis)


def split_v(call: Call) -> Any:
    """Lower SPLIT_V: input, sizes, axis; one size may be -1."""
    (axis,) = behind_samples(call.ints(2), call.rank(0))
    sizes = call.ints(1)
    rest = call.shape(0)[axis - 1] - sum(size for size in sizes if size >= 0)
    return tf.split(call.batched(0), [rest if size < 0 else size for size in sizes], axis)


def pack(call: Call) -> Any:
    """Lower PACK."""
    (axis,) = behind_samples([call.option("axis", 0)], call.rank(0) + 1)
    return tf.stack([call.batched(position) for position in range(len(call.operands))], axis)


def unpack(call: Call) -> Any:
    """Lower UNPACK."""
    (axis,) = behind_samples([call.option("axis", 0)], call.rank(0))
    return tf.unstack(call.batched(0), axis=axis)


def tile(call: Call) -> Any:
    """Lower TILE."""
    return tf.tile(call.batched(0), [1, *call.ints(1)])


def broadcast_to(call: Call) -> Any:
    """Lower BROADCAST_TO; the result may have a higher rank."""
    target, shape = call.ints(1), call.shape(0)
    x = tf.reshape(call.batched(0), [call.batch, *[1] * (len(target) - len(shape)), *shape])
    return tf.broadcast_to(x, [call.batch, *target])


def broadcast_args(call: Call) -> Any:
    """Lower BROADCAST_ARGS: the shape that two shapes broadcast to."""
    return np.array(np.broadcast_shapes(tuple(call.ints(0)), tuple(call.ints(1))), call.static(0).dtype)


def pad(call: Call) -> Any:
    """Lower PAD and PADV2, whose third operand is the value."""
    amounts = [[0, 0], *call.static(1).tolist()]
    if not call.has(2):
        return tf.pad(call.batched(0), amounts)
    return tf.pad(call.batched(0), amounts, constant_values=tf.reshape(call.single(2), []))


def mirror_pad(call: Call) -> Any:
    """Lower MIRROR_PAD."""
    return tf.pad(call.batched(0), [[0, 0], *call.static(1).tolist()], mode=call.option("mode", "REFLECT"))


def reverse(call: Call) -> Any:
    """Lower REVERSE_V2."""
    return tf.reverse(call.batched(0), behind_samples(call.ints(1), call.rank(0)))


def reverse_sequence(call: Call) -> Any:
    """Lower REVERSE_SEQUENCE, sample by sample where the lengths depend on the sample."""
    sequence, batch = call.option("seq_dim", 0), call.option("batch_dim", 0)
    lengths, x = call.batched(1), call.batched(0)
    axis, rank = axis_from_front(batch, call.rank(0)) + 1, call.rank(0) + 1
    # The samples' axis joins the file's batch axis: both are moved to the front.
    order = [0, axis, *(a for a in range(1, rank) if a != axis)]
    moved = tf.transpose(x, order)
    folded = tf.reshape(moved, [call.batch * moved.shape[1], *moved.shape[2:]])
    at = order.index(axis_from_front(sequence, call.rank(0)) + 1) - 1
    result = tf.reverse_sequence(folded, tf.reshape(lengths, [-1]), seq_axis=at, batch_axis=0)
    result = tf.reshape(result, [call.batch, *moved.shape[1:]])
    return tf.transpose(result, [order.index(a) for a in range(rank)])


def space_to_batch(call: Call) -> Any:
    """Lower SPACE_TO_BATCH_ND: the blocks' axis comes before the file's axis 0, the samples before both."""
    blocks, leading = call.ints(1), call.shape(0)[0]
    result = tf.space_to_batch(call.folded(0), blocks, call.static(2).tolist())
    count, rest = math.prod(blocks), result.shape[1:]
    result = tf.reshape(result, [count, call.batch, leading, *rest])
    result = tf.transpose(result, [1, 0, 2, *range(3, 3 + len(rest))])
    return tf.reshape(result, [call.batch, count * leading, *rest])


def batch_to_space(call: Call) -> Any:
    """Lower BATCH_TO_SPACE_ND, the inverse of SPACE_TO_BATCH_ND."""
    blocks, shape = call.ints(1), call.shape(0)
    count = math.prod(blocks)
    leading, rest = shape[0] // count, shape[1:]
    x = tf.reshape(call.batched(0), [call.batch, count, leading, *rest])
    x = tf.transpose(x, [1, 0, 2, *range(3, 3 + len(rest))])
    x = tf.reshape(x, [count * call.batch * leading, *rest])
    return call.unfolded(tf.batch_to_space(x, blocks, call.static(2).tolist()), leading)


def shape_of(call: Call) -> Any:
    """Lower SHAPE."""
    return np.array(call.shape(0), call.dtype().as_numpy_dtype)


def rank_of(call: Call) -> Any:
    """Lower RANK."""
    return np.array(call.rank(0), call.dtype().as_numpy_dtype)


def fill(call: Call) -> Any:
    """Lower FILL: dims, value."""
    value, target = call.batched(1), call.ints(0)
    return tf.broadcast_to(tf.reshape(value, [call.batch, *[1] * len(target)]), [call.batch, *target])


def number_range(call: Call) -> Any:
    """Lower RANGE: start, limit, delta."""
    start, limit, delta = (call.static(position).reshape(()) for position in range(3))
    return tf.range(start, limit, delta)[None]


def one_hot(call: Call) -> Any:
    """Lower ONE_HOT: indices, depth, on value, off value."""
    axis = call.option("axis", -1)
    (axis,) = behind_samples([axis], call.rank(0) + 1)
    on, off = (tf.reshape(call.single(position), []) for position in (2, 3))
    return tf.one_hot(call.batched(0), call.ints(1)[0], on, off, axis=axis)


def bitcast(call: Call) -> Any:
    """Lower BITCAST."""
    return tf.bitcast(call.batched(0), call.dtype())


def dequantize(call: Call) -> Any:
    """Lower DEQUANTIZE of half precision and of integers with a scale per tensor or channel."""
    x, source = call.batched(0), call.inputs[0]
    if source is None or source.is_float:
        return tf.cast(x, call.dtype())
    quantization = source.quantization
    if quantization is None or not quantization.scale.size:
        raise NotLoweredError("DEQUANTIZE without a scale")
    along = [1] * source.rank
    if quantization.per_channel:
        along[quantization.axis] = quantization.scale.size
    zero = quantization.zero_point.astype(np.float32).reshape(along)
    return (tf.cast(x, tf.float32) - zero) * quantization.scale.reshape(along)


OPS: dict[str, Lowering] = {
    "BATCH_TO_SPACE_ND": batch_to_space,
    "BITCAST": bitcast,
    "BROADCAST_ARGS": broadcast_args,
    "BROADCAST_TO": broadcast_to,
    "CONCATENATION": concatenation,
    "DEQUANTIZE": dequantize,
    "EXPAND_DIMS": expand_dims,
    "FILL": fill,
    "MIRROR_PAD": mirror_pad,
    "ONE_HOT": one_hot,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "RANGE": number_range,
    "RANK": rank_of,
    "RESHAPE": reshape,
    "REVERSE_SEQUENCE": reverse_sequence,
    "REVERSE_V2": reverse,
    "SHAPE": shape_of,
    "SPACE_TO_BATCH_ND": space_to_batch,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SQUEEZE": squeeze,
    "TILE": tile,
    "TRANSPOSE": transpose,
    "UNPACK": unpack,
}
