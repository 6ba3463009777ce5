"""One graph per kind of op, with many uses of each, for the tests of lowering: (shapes of the inputs, functions)."""

from collections.abc import Callable
from typing import Any

import numpy as np


def _weights(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).normal(0, 0.5, shape).astype(np.float32)


def _ints(value: Any) -> Any:
    import tensorflow as tf

    return tf.cast(tf.round(value * 3.0), tf.int32)


def convolutions(x: Any, y: Any) -> list[Any]:
    """Image (1, 9, 8, 6) and volume (1, 4, 5, 6, 2)."""
    import tensorflow as tf

    conv, depthwise, transposed = tf.nn.conv2d, tf.nn.depthwise_conv2d, tf.nn.conv2d_transpose
    return [
        conv(x, _weights(3, 2, 6, 5), 1, "SAME"),
        conv(x, _weights(3, 3, 6, 5), [2, 1], "SAME") + _weights(5),
        tf.nn.relu6(conv(x, _weights(2, 3, 6, 4), [1, 2], "VALID") + _weights(4)),
        tf.nn.relu(conv(x, _weights(3, 3, 6, 4), 1, "SAME", dilations=[2, 3])),
        conv(x, _weights(3, 3, 2, 6), 1, "SAME"),
        conv(x, _weights(3, 3, 1, 6), 2, "VALID"),
        depthwise(x, _weights(3, 3, 6, 1), [1, 1, 1, 1], "SAME") + _weights(6),
        depthwise(x, _weights(3, 2, 6, 2), [1, 2, 2, 1], "VALID"),
        depthwise(x, _weights(3, 3, 6, 1), [1, 1, 1, 1], "SAME", dilations=[2, 2]),
        depthwise(tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), _weights(3, 3, 6, 1), [1, 2, 2, 1], "VALID"),
        transposed(x, _weights(3, 3, 4, 6), [1, 18, 16, 4], 2, "SAME") + _weights(4),
        transposed(x, _weights(2, 3, 4, 6), [1, 18, 9 + 8, 4], 2, "VALID"),
        tf.nn.conv3d(y, _weights(2, 2, 3, 2, 3), [1, 1, 2, 1, 1], "SAME") + _weights(3),
        tf.nn.conv3d(y, _weights(2, 2, 3, 2, 3), [1] * 5, "VALID"),
        tf.nn.conv3d_transpose(y, _weights(2, 2, 2, 3, 2), [1, 8, 10, 12, 3], [1, 2, 2, 2, 1], "SAME"),
        tf.nn.max_pool2d(x, [3, 2], [2, 1], "SAME"),
        tf.nn.max_pool2d(x, 2, 2, "VALID"),
        tf.nn.avg_pool2d(x, 3, 2, "SAME"),
        tf.nn.avg_pool2d(x, [2, 3], 1, "VALID"),
        tf.image.resize(x, [13, 17]),
        tf.compat.v1.image.resize_bilinear(x, [5, 11], align_corners=True),
        tf.compat.v1.image.resize_bilinear(x, [18, 16]),
        tf.compat.v1.image.resize_nearest_neighbor(x, [18, 16]),
        tf.compat.v1.image.resize_nearest_neighbor(x, [7, 13], align_corners=True),
        tf.image.resize(x, [13, 17], method="nearest"),
        tf.nn.local_response_normalization(x, 2, 1.0, 0.5, 0.7),
        tf.nn.space_to_depth(x[:, :8], 2),
        tf.nn.depth_to_space(x[..., :4], 2),
        tf.space_to_batch(x[:, :8], [2, 4], [[0, 0], [0, 0]]),
        tf.space_to_batch(x, [3, 2], [[1, 2], [2, 0]]),
        tf.batch_to_space(tf.space_to_batch(x, [3, 2], [[1, 2], [2, 0]]) * 2.0, [3, 2], [[1, 2], [2, 0]]),
    ]


def elementwise(x: Any, y: Any) -> list[Any]:
    """(1, 3, 4) and (3, 1)."""
    import tensorflow as tf

    positive, m, n = tf.abs(x) + 0.1, _ints(x), _ints(y)
    return [
        tf.abs(x), tf.math.ceil(x), tf.cos(x), tf.nn.elu(x), tf.exp(x), tf.floor(x), tf.math.log(positive),
        tf.sigmoid(x), tf.nn.log_softmax(x), -x, tf.nn.relu(x), tf.nn.relu6(x * 4.0), tf.round(x * 4.0),
        tf.math.rsqrt(positive), tf.sign(x), tf.sin(x), tf.sqrt(positive), tf.square(x), tf.tanh(x),
        tf.zeros_like(x) + x, tf.nn.gelu(x, approximate=True), tf.nn.leaky_relu(x, 0.3),
        x * tf.nn.relu6(x + 3.0) * (1 / 6), tf.nn.softmax(x), tf.nn.softmax(x * 2.0), tf.nn.softmax(x, axis=1),
        tf.math.l2_normalize(x, -1), x + y, x - y, x * y, x / y, y - x, tf.maximum(x, y), tf.minimum(x, y),
        tf.pow(positive, y), tf.math.squared_difference(x, y), tf.math.floordiv(m, n * n + 2),
        tf.math.floormod(x, positive), tf.math.floordiv(x, positive), tf.atan2(x, x * 0.5 - 0.3),
        tf.add_n([x, x * 2.0, -x / 3.0]),
        tf.nn.relu(x + y), tf.nn.relu6(x * y * 3.0), x + _weights(2, 3, 4), x * _weights(4), x + 1.5,
        _weights(5, 1, 3, 1) - x, tf.clip_by_value(x, -1.0, 1.0), tf.math.softplus(x),
        tf.cast(x > y, tf.float32), tf.cast(tf.logical_and(x >= y, x < 1.0), tf.float32),
        tf.cast(tf.logical_or(x <= y, tf.equal(m, n)), tf.float32), tf.cast(tf.logical_not(x > 0.0), tf.int32),
        tf.cast(tf.not_equal(m, 0), tf.float32), tf.where(x > 0.0, x, x * y), tf.where(x > y, x, 0.0),
        tf.where(tf.reduce_any(x > 0.0, -1, keepdims=True), x, y), tf.cast(tf.cast(x, tf.int8), tf.float32),
        tf.bitwise.bitwise_xor(m, n), tf.bitwise.right_shift(m, tf.abs(n) % 3),
    ]  # fmt: skip


def matrices(x: Any, y: Any) -> list[Any]:
    """(1, 3, 4, 5) and (1, 5, 6)."""
    import tensorflow as tf

    flat = tf.reshape(x, [12, 5])
    return [
        tf.matmul(flat, _weights(5, 7)), tf.matmul(flat, _weights(5, 7)) + _weights(7),
        tf.nn.relu(tf.matmul(x, _weights(5, 7)) + _weights(7)), tf.matmul(x, y), tf.matmul(x, y, transpose_a=False),
        tf.matmul(x, x, transpose_b=True), tf.matmul(x, x, transpose_a=True), tf.matmul(y, y, transpose_a=True),
        tf.matmul(_weights(6, 5), y), tf.matmul(_weights(2, 1, 4, 5), y), tf.einsum("bijk,bkl->bijl", x, y),
        tf.einsum("bijk,bkl->bjil", x, y), tf.einsum("bijk,bik->bij", x, x[:, :, 0]),
        tf.tensordot(x, _weights(4, 5, 2), 2),
        tf.reduce_mean(x, [1, 2]), tf.reduce_mean(x, -1, keepdims=True), tf.reduce_mean(x, 0), tf.reduce_mean(x),
        tf.reduce_sum(x, [0, -2]), tf.reduce_prod(x, 3), tf.reduce_max(x, [2]), tf.reduce_min(x, 1, keepdims=True),
        tf.cast(tf.reduce_all(x > -1.0, -1), tf.float32), tf.cast(tf.reduce_any(x > 1.0, [0, 1]), tf.float32),
        tf.argmax(x, -1), tf.argmax(x, 1, output_type=tf.int32), tf.argmin(y, 2), tf.math.top_k(y, 3)[0],
        tf.math.top_k(x, 2)[1], tf.cumsum(x, 1), tf.cumsum(x, 3, exclusive=True, reverse=True), tf.linalg.diag(x),
        tf.linalg.set_diag(x, x[..., 0]), tf.abs(tf.signal.rfft2d(x[..., :4], [4, 4])),
        tf.nn.moments(x, [1, 2])[1], tf.norm(x, axis=-1), tf.nn.softmax(tf.matmul(x, x, transpose_b=True)) @ x,
    ]  # fmt: skip


def movements(x: Any, y: Any) -> list[Any]:
    """(1, 3, 4, 5) and (6, 2), whose samples are not along axis 0."""
    import tensorflow as tf

    m = tf.cast(tf.abs(y) * 10.0, tf.int32) % 3
    first, second, third = tf.split(x, [1, 3, 1], -1)
    return [
        tf.reshape(x, [1, 60]), tf.reshape(x, [12, -1]), tf.reshape(x, [60]), tf.reshape(y, [1, 3, 4]),
        tf.squeeze(x), tf.squeeze(x[:, :1], [1]), tf.expand_dims(x, 0), tf.expand_dims(y, -1),
        tf.transpose(x), tf.transpose(x, [2, 0, 3, 1]), tf.transpose(y), tf.transpose(x, [0, 2, 1, 3]),
        tf.concat([x, x * 2.0], -1), tf.concat([x, _weights(1, 2, 4, 5)], 1), tf.concat([x, -x], 0),
        tf.concat([y, tf.reshape(x, [6, 10])], 1), *tf.split(x, 2, 2), first * 2.0, second, third,
        tf.stack([y, -y], 1), tf.stack([x, x + 1.0]), *tf.unstack(x, axis=1), *tf.unstack(y, axis=0),
        tf.tile(x, [2, 1, 3, 1]), tf.tile(y, [1, 2]), tf.broadcast_to(y[:, :1], [4, 6, 5]),
        tf.broadcast_to(x, [2, 3, 4, 5]), tf.pad(x, [[0, 0], [1, 2], [0, 3], [1, 0]]), tf.pad(y, [[1, 0], [0, 2]]),
        tf.pad(x, [[0, 1], [1, 0], [0, 0], [2, 0]], constant_values=-3.0),
        tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]], "REFLECT"), tf.pad(y, [[3, 2], [1, 2]], "SYMMETRIC"),
        tf.reverse(x, [1]), tf.reverse(x, [1, 2]), tf.reverse(y, [0]),
        tf.reverse_sequence(x, [3], 2, batch_axis=0), tf.reverse_sequence(y, [2] * 5 + [1], 1, batch_axis=0),
        tf.slice(x, [0, 1, 0, 2], [1, 2, -1, 2]), x[:, 1:, ::2], x[:, ::-1, 3:0:-2], x[0], x[..., 2], x[:, None, :, 1],
        y[2:5, 1], y[-1], x[:, tf.newaxis, ..., -2:], tf.gather(x, [2, 0, 0, 1], axis=1),
        tf.gather(y, [[5, 1], [0, 3]]),
        tf.gather(_weights(3, 4), m), tf.gather(_weights(2, 3, 4), m, axis=1), tf.gather(y, m[:, 0], axis=0),
        tf.gather(x, m, axis=2), tf.gather(x, m[None, :3, 0][:, :, None], axis=2, batch_dims=2),
        tf.gather_nd(x, [[0, 1], [0, 2]]), tf.gather_nd(_weights(3, 3), tf.stack([m[:, 0], m[:, 1]], -1)),
        tf.gather_nd(y, tf.stack([m[:, 0], m[:, 1] % 2], -1)), tf.one_hot(m, 4), tf.one_hot(m, 4, 2.0, -1.0, axis=0),
        tf.scatter_nd([[1], [3]], y[:2], [5, 2]), tf.scatter_nd(m[:, :1], y, [4, 2]),
        tf.tensor_scatter_nd_update(y, [[0], [2]], y[3:5]), tf.fill([2, 3], y[0, 0]) * 2.0,
        tf.cast(tf.range(5), tf.float32) * y[0, 0], tf.math.unsorted_segment_sum(y, m[:, 0], 4),
        tf.bitcast(y, tf.int32), tf.roll(x, 2, 1), tf.repeat(y, 2, 0), tf.meshgrid(y[:, 0], y[:, 1])[0],
        tf.image.flip_left_right(x),
    ]  # fmt: skip


def recurrences() -> Callable[[Any], list[Any]]:
    """(1, 7, 5); layers of Keras, whose variables exist before the function is traced."""
    import tensorflow as tf

    keras = tf.keras.layers
    tf.keras.utils.set_random_seed(0)
    layers = [
        keras.LSTM(4),
        keras.LSTM(3, return_sequences=True, go_backwards=True),
        keras.GRU(4),
        keras.SimpleRNN(3, return_sequences=True, unroll=True),
        keras.Bidirectional(keras.LSTM(3, return_sequences=True)),
        keras.Conv1D(4, 3, padding="causal", dilation_rate=2),
        keras.LayerNormalization(),
    ]
    attention = keras.MultiHeadAttention(2, 3)

    def call(x: Any) -> list[Any]:
        return [*(layer(x) for layer in layers), attention(x, x)]

    call(tf.zeros([1, 7, 5]))
    return call


CASES: dict[str, tuple[Callable[..., list[Any]], list[tuple[int, ...]]]] = {
    "convolutions": (convolutions, [(1, 9, 8, 6), (1, 4, 5, 6, 2)]),
    "elementwise": (elementwise, [(1, 3, 4), (3, 1)]),
    "matrices": (matrices, [(1, 3, 4, 5), (1, 5, 6)]),
    "movements": (movements, [(1, 3, 4, 5), (6, 2)]),
    "recurrences": (recurrences, [(1, 7, 5)]),
}


def convert(name: str) -> bytes:
    """Return the .tflite of a case."""
    import tensorflow as tf

    function, shapes = CASES[name]
    function = function() if name == "recurrences" else function
    specs = [tf.TensorSpec(shape, tf.float32, name=f"input_{n}") for n, shape in enumerate(shapes)]
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
