"""Write two models: `probe.tflite`, int8 ops on both sides of Vela's limits, `float_op.tflite`, with one float op.

tests/test_plugin.py runs it in a separate process, because TensorFlow cannot be unloaded.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

RANDOM = np.random.default_rng(1)


def weights(*shape: int) -> tf.Tensor:
    return tf.constant(RANDOM.normal(size=shape).astype(np.float32))


def probe(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
    resize = tf.compat.v1.image.resize_bilinear
    nearest = tf.compat.v1.image.resize_nearest_neighbor
    line = tf.reshape(x, (1, -1))
    return (
        # supported
        tf.nn.conv2d(x, weights(3, 3, 8, 4), 2, "SAME"),
        tf.nn.conv2d(x, weights(3, 3, 8, 4), 4, "VALID"),
        tf.nn.conv2d(x, weights(3, 3, 8, 4), 1, "VALID", dilations=2),
        tf.nn.depthwise_conv2d(x, weights(3, 3, 8, 1), [1, 3, 3, 1], "SAME"),
        tf.nn.avg_pool2d(x, 9, 1, "VALID"),
        tf.nn.max_pool2d(x, 9, 1, "SAME"),
        tf.nn.conv2d_transpose(x, weights(3, 3, 4, 8), (1, 32, 32, 4), 2, "SAME"),
        resize(x, (32, 32)),
        resize(x, (32, 32), half_pixel_centers=True),
        nearest(x, (64, 64)),
        tf.argmax(tf.nn.relu(x), 3, output_type=tf.int32),
        tf.reduce_mean(x, [1, 2]),
        tf.reduce_sum(x, [3]),
        tf.matmul(line, weights(2048, 8)),
        tf.nn.softmax(x),
        tf.concat([tf.nn.elu(x), tf.tanh(x)], 3),
        tf.transpose(x, [0, 3, 1, 2]),
        tf.pad(x, [[0, 0], [1, 1], [2, 2], [0, 0]], "REFLECT"),
        tf.maximum(x, tf.zeros_like(x)) * tf.nn.leaky_relu(x),
        tf.tile(x, [1, 2, 2, 1]),
        x[:, 1:9:2, ::2, :],
        # on the CPU
        tf.nn.conv2d(x, weights(5, 5, 8, 4), 4, "SAME"),
        tf.nn.depthwise_conv2d(x, weights(3, 3, 8, 1), [1, 4, 4, 1], "VALID"),
        tf.nn.avg_pool2d(x, 9, 1, "SAME"),
        tf.nn.conv2d_transpose(x, weights(3, 3, 4, 8), (1, 48, 48, 4), 3, "SAME"),
        resize(x, (48, 48)),
        resize(x, (32, 64)),
        resize(x, (64, 64), half_pixel_centers=True),
        tf.argmax(tf.nn.relu(x), 1, output_type=tf.int32),
        tf.reduce_mean(x, [3]),
        tf.reverse(x, [1]),
        tf.gather(x, [1, 3], axis=1),
        tf.nn.depth_to_space(x, 2),
        tf.abs(x) / (tf.abs(x) + 1.0),
    )


def write(path: Path, function: Callable[..., object]) -> None:
    shape = (1, 16, 16, 8)
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32, name="x"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([RANDOM.normal(size=shape).astype(np.float32)] for _ in range(2))
    if path.stem == "float_op":
        # The converter has no hard swish with 16-bit activations and keeps it in float.
        ops = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [ops, tf.lite.OpsSet.TFLITE_BUILTINS]
    else:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write(folder / "probe.tflite", probe)
    write(folder / "float_op.tflite", lambda x: x * tf.nn.relu6(x + 3) / 6)
