"""Lowering of ops that read or write values at positions: slices, gathers, scatters, segments."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgepack.quantize.ptq.lowering.call import Call, Lowering, TfTensor, axis_from_front
from edgepack.quantize.ptq.lowering.lazy import function, tf


def slice_of(call: Call) -> Any:
    """Lower SLICE: input, begin, size; -1 is all that follows."""
    shape, sizes = call.shape(0), call.ints(2)
    begin = call.operands[1]
    if begin is not None and begin.static is not None:
        starts = call.ints(1)
        sizes = [shape[a] - starts[a] if size < 0 else size for a, size in enumerate(sizes)]
        return tf.slice(call.batched(0), [0, *starts], [call.batch, *sizes])
    start = tf.cast(call.single(1), tf.int32)
    result = tf.slice(call.batched(0), tf.concat([[0], start], 0), [call.batch, *sizes])
    return tf.ensure_shape(result, [None, *sizes])


def strided_slice(call: Call) -> Any:
    """Lower STRIDED_SLICE: the masks move by one bit, and the samples' axis is taken whole."""
    begin, end, strides = (call.ints(position) for position in (1, 2, 3))
    whole = {"begin_mask": 1, "end_mask": 1}
    masks = {
        name: (int(call.option(name, 0)) << 1) | whole.get(name, 0)
        for name in ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    }
    if call.option("offset", False):
        end = [b + e for b, e in zip(begin, end, strict=True)]
    return tf.strided_slice(call.batched(0), [0, *begin], [0, *end], [1, *strides], **masks)


def gather(call: Call) -> Any:
    """Lower GATHER: values, indices."""
    rank = call.rank(0)
    axis = axis_from_front(int(call.option("axis", 0)), rank)
    shared = int(call.option("batch_dims", 0))
    shared = shared + call.rank(1) if shared < 0 else shared
    if call.is_batched(0) and not call.is_batched(1) and not shared:
        return tf.gather(call.batched(0), call.single(1), axis=axis + 1)
    if not call.is_batched(0) and axis == 0 and not shared:
        return tf.gather(call.single(0), call.batched(1))
    return tf.gather(call.batched(0), call.batched(1), axis=axis + 1, batch_dims=shared + 1)


def gather_nd(call: Call) -> Any:
    """Lower GATHER_ND: values, indices."""
    if not call.is_batched(0):
        return tf.gather_nd(call.single(0), call.batched(1))
    return tf.gather_nd(call.batched(0), call.batched(1), batch_dims=1)


def embedding_lookup(call: Call) -> Any:
    """Lower EMBEDDING_LOOKUP: indices, rows."""
    if not call.is_batched(1):
        return tf.gather(call.single(1), call.batched(0))
    return tf.gather(call.batched(1), call.batched(0), axis=1, batch_dims=1)


def scatter_nd(call: Call) -> Any:
    """Lower SCATTER_ND: indices, values, shape."""
    return tf.scatter_nd(call.single(0), call.single(1), call.ints(2))[None]


def sparse_to_dense(call: Call) -> Any:
    """Lower SPARSE_TO_DENSE: indices, shape, values, default value."""
    indices, shape, values = call.single(0), call.ints(1), call.single(2)
    indices = tf.reshape(tf.cast(indices, tf.int64), [-1, len(shape)])
    values = tf.broadcast_to(values, [indices.shape[0]])
    dense = tf.fill(shape, tf.reshape(call.single(3), []))
    return tf.tensor_scatter_nd_update(dense, indices, values)[None]


def dynamic_update_slice(call: Call) -> Any:
    """Lower DYNAMIC_UPDATE_SLICE: input, values, start; the start is moved so that the values fit."""
    room = np.array(call.shape(0)) - np.array(call.shape(1))
    begin = call.operands[2]
    if begin is not None and begin.static is not None:
        before = np.clip(begin.static.astype(np.int64), 0, room)
        around = np.stack([before, room - before], 1).tolist()
        inside = np.pad(np.ones(call.shape(1), bool), around)
        return tf.where(inside, tf.pad(call.batched(1), [[0, 0], *around]), call.batched(0))
    x, update = call.single(0), call.single(1)
    start = tf.clip_by_value(tf.cast(call.single(2), tf.int32), 0, room.astype(np.int32))
    margins = tf.stack([start, room.astype(np.int32) - start], axis=1)
    inside = tf.pad(tf.ones(call.shape(1), tf.bool), margins)
    return tf.where(tf.ensure_shape(inside, call.shape(0)), tf.pad(update, margins), x)[None]


def _segments(compute: Callable[..., TfTensor]) -> Lowering:
    def lower(call: Call) -> Any:
        return compute(call.single(0), call.single(1), call.ints(2)[0])[None]

    return lower


def segment_sum(call: Call) -> Any:
    """Lower SEGMENT_SUM with known segments."""
    ids = call.static(1)
    return tf.math.unsorted_segment_sum(call.single(0), ids, int(ids.max()) + 1 if ids.size else 0)[None]


OPS: dict[str, Lowering] = {
    "DYNAMIC_UPDATE_SLICE": dynamic_update_slice,
    "EMBEDDING_LOOKUP": embedding_lookup,
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "SCATTER_ND": scatter_nd,
    "SEGMENT_SUM": segment_sum,
    "SLICE": slice_of,
    "SPARSE_TO_DENSE": sparse_to_dense,
    "STRIDED_SLICE": strided_slice,
    "UNSORTED_SEGMENT_MAX": _segments(function("math.unsorted_segment_max")),
    "UNSORTED_SEGMENT_MIN": _segments(function("math.unsorted_segment_min")),
    "UNSORTED_SEGMENT_PROD": _segments(function("math.unsorted_segment_prod")),
    "UNSORTED_SEGMENT_SUM": _segments(function("math.unsorted_segment_sum")),
}
