"""Convert small one-layer models with TFLiteConverter in four schemes, and write the files into a folder."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

IMAGE = (1, 8, 8, 4)
_RANDOM = np.random.default_rng(0)


def _w(*shape: int) -> Any:
    return tf.constant(_RANDOM.normal(0, 0.3, shape).astype(np.float32))


def _pad(x: Any) -> Any:
    return tf.pad(x, [[0, 0], [1, 0], [0, 0], [0, 0]])


MODELS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "conv": (lambda x: tf.nn.conv2d(x, _w(3, 3, 4, 64), 1, "SAME") + _w(64), (IMAGE,)),
    "grouped": (lambda x: tf.nn.conv2d(x, _w(3, 3, 2, 64), 1, "SAME") + _w(64), (IMAGE,)),
    "depthwise": (lambda x: tf.nn.depthwise_conv2d(x, _w(3, 3, 256, 1), [1] * 4, "SAME") + _w(256), ((1, 8, 8, 256),)),
    "dense": (lambda x: tf.matmul(x, _w(64, 32)) + _w(32), ((1, 64),)),
    "dense3": (lambda x: tf.tensordot(x, _w(64, 32), [[2], [0]]) + _w(32), ((1, 5, 64),)),
    "pool": (lambda x: tf.nn.avg_pool2d(tf.nn.max_pool2d(x, 2, 1, "SAME"), 2, 2, "VALID"), (IMAGE,)),
    "softmax": (lambda x: tf.nn.softmax(tf.matmul(x, _w(64, 32))), ((1, 64),)),
    "activations": (lambda x: tf.tanh(tf.sigmoid(tf.nn.leaky_relu(tf.nn.relu6(x)))), (IMAGE,)),
    "arithmetic": (lambda x, y: tf.maximum((x + y) * (x - y), tf.minimum(x, y)), (IMAGE, IMAGE)),
    "broadcast5": (lambda x, y: tf.maximum(x - y, y), ((1, 2, 3, 4, 5), (1, 1, 1, 1, 5))),
    "reduce": (lambda x: (tf.reduce_mean(x, [1, 2]), tf.reduce_max(x, [1, 2]), tf.reduce_sum(x, 3)), (IMAGE,)),
    "move": (lambda x: tf.concat([tf.transpose(x, [0, 2, 1, 3]), _pad(x[:, 1:])], 3), (IMAGE,)),
    "split": (lambda x: tuple(tf.split(tf.gather(x, [0, 2], axis=3), 2, 3)), (IMAGE,)),
    "resize": (lambda x: tf.raw_ops.ResizeBilinear(images=x, size=[16, 16], half_pixel_centers=True), (IMAGE,)),
    "nearest": (lambda x: tf.raw_ops.ResizeNearestNeighbor(images=x, size=[16, 16]), (IMAGE,)),
    "transposed": (lambda x: tf.nn.conv2d_transpose(x, _w(3, 3, 32, 4), [1, 16, 16, 32], 2, "SAME") + _w(32), (IMAGE,)),
    "depth": (lambda x: tf.nn.depth_to_space(tf.nn.space_to_depth(x, 2), 2), (IMAGE,)),
}  # fmt: skip


def main(folder: Path) -> None:
    for name, (function, shapes) in MODELS.items():
        specs = [tf.TensorSpec(shape, tf.float32, name=f"x{i}") for i, shape in enumerate(shapes)]
        concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
        for scheme in ("float32", "float16", "dynamic-range", "int8"):
            converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
            if scheme != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if scheme == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if scheme == "int8":
                converter.representative_dataset = lambda shapes=shapes: (
                    [_RANDOM.normal(0, 1, shape).astype(np.float32) for shape in shapes] for _ in range(4)
                )
                converter.inference_input_type = converter.inference_output_type = tf.int8
            (folder / f"{name}.{scheme}.tflite").write_bytes(converter.convert())


main(Path(sys.argv[1]))
