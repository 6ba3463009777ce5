"""Lowering of matrix products, reductions and ops along one axis."""

import math
from collections.abc import Callable
from typing import Any

from edgepack.quantize.ptq.lowering.call import Call, Lowering, TfTensor, behind_samples
from edgepack.quantize.ptq.lowering.lazy import function, tf


def fully_connected(call: Call) -> Any:
    """Lower FULLY_CONNECTED with weights (out, in); without keep_num_dims the leading axes become one."""
    shape = call.shape(0)
    weights = call.single(1)
    outputs, width = call.shape(1)
    rows = math.prod(shape) // width
    result = tf.matmul(tf.reshape(call.batched(0), [call.batch * rows, width]), weights, transpose_b=True)
    if call.has(2):
        result = tf.nn.bias_add(result, call.single(2))
    leading = shape[:-1] if call.option("keep_num_dims", False) else (rows,)
    return tf.reshape(call.activated(result), [call.batch, *leading, outputs])


def batch_matmul(call: Call) -> Any:
    """Lower BATCH_MATMUL; the leading axes broadcast."""
    first, second = call.aligned(0, 1)
    return tf.matmul(
        first,
        second,
        adjoint_a=bool(call.option("adj_x", False)),
        adjoint_b=bool(call.option("adj_y", False)),
    )


def _reduction(compute: Callable[..., TfTensor]) -> Lowering:
    def lower(call: Call) -> Any:
        axes = behind_samples(call.ints(1), call.rank(0))
        return compute(call.batched(0), axis=axes, keepdims=bool(call.option("keep_dims", False)))

    return lower


def _arg(compute: Callable[..., TfTensor]) -> Lowering:
    def lower(call: Call) -> Any:
        (axis,) = behind_samples(call.ints(1), call.rank(0))
        return compute(call.batched(0), axis=axis, output_type=call.dtype())

    return lower


def top_k(call: Call) -> Any:
    """Lower TOPK_V2 along the last axis."""
    values, indices = tf.math.top_k(call.batched(0), call.ints(1)[0])
    return [values, tf.cast(indices, call.dtype(1)) if len(call.outputs) > 1 else indices]


def cumsum(call: Call) -> Any:
    """Lower CUMSUM."""
    (axis,) = behind_samples(call.ints(1), call.rank(0))
    exclusive, reverse = bool(call.option("exclusive", False)), bool(call.option("reverse", False))
    return tf.cumsum(call.batched(0), axis=axis, exclusive=exclusive, reverse=reverse)


def matrix_diag(call: Call) -> Any:
    """Lower MATRIX_DIAG."""
    return tf.linalg.diag(call.batched(0))


def matrix_set_diag(call: Call) -> Any:
    """Lower MATRIX_SET_DIAG."""
    return tf.linalg.set_diag(call.batched(0), call.batched(1))


def rfft_2d(call: Call) -> Any:
    """Lower RFFT2D over the last two axes."""
    return tf.signal.rfft2d(call.batched(0), call.ints(1))


OPS: dict[str, Lowering] = {
    "ARG_MAX": _arg(function("argmax")),
    "ARG_MIN": _arg(function("argmin")),
    "BATCH_MATMUL": batch_matmul,
    "CUMSUM": cumsum,
    "FULLY_CONNECTED": fully_connected,
    "MATRIX_DIAG": matrix_diag,
    "MATRIX_SET_DIAG": matrix_set_diag,
    "MEAN": _reduction(function("reduce_mean")),
    "REDUCE_ALL": _reduction(function("reduce_all")),
    "REDUCE_ANY": _reduction(function("reduce_any")),
    "REDUCE_MAX": _reduction(function("reduce_max")),
    "REDUCE_MIN": _reduction(function("reduce_min")),
    "REDUCE_PROD": _reduction(function("reduce_prod")),
    "RFFT2D": rfft_2d,
    "SUM": _reduction(function("reduce_sum")),
    "TOPK_V2": top_k,
}
