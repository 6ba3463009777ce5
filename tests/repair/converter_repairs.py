"""Convert small models with layers that accelerators do not support with TFLiteConverter, into a folder."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

_RANDOM = np.random.default_rng(5)


def _w(*shape: int) -> Any:
    return tf.constant(_RANDOM.normal(0, 0.25, shape).astype(np.float32))


def _conv(x: Any) -> Any:
    return tf.nn.conv2d(x, _w(3, 3, x.shape[3], 8), 1, "SAME") + _w(8)


def _repeat(x: Any) -> Any:
    return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)


def _shuffle(x: Any) -> Any:
    return tf.reshape(tf.transpose(tf.reshape(x, (1, 8, 8, 2, 4)), (0, 1, 2, 4, 3)), (1, 8, 8, 8))


def _pixels(x: Any) -> Any:
    return tf.reshape(tf.transpose(tf.reshape(x, (1, 8, 8, 2, 2, 2)), (0, 1, 3, 2, 4, 5)), (1, 16, 16, 2))


#: Each is placed between two convolutions, so that its input has both signs and ops after it leave the accelerator.
LAYERS = {
    "grouped": lambda x: tf.nn.conv2d(x, _w(3, 3, 2, 8), 1, "SAME") + _w(8),
    "upsampling": _repeat,
    "leaky": lambda x: tf.nn.leaky_relu(x, 0.2),
    "padded": lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-0.5),
    "split": lambda x: tf.concat(tf.split(x, [4, 4], axis=3)[::-1], 3),
    "unequal": lambda x: tf.concat(tf.split(x, [2, 6], axis=3)[::-1], 3),
    "shuffle": _shuffle,
    "pixels": _pixels,
    "unstack": lambda x: tf.stack(tf.unstack(x, axis=3)[::-1], axis=3),
    "square": tf.square,
    "abs": tf.abs,
    "tile": lambda x: tf.tile(x, (1, 2, 1, 1)),
}


def main(folder: Path) -> None:
    for name, layer in LAYERS.items():
        spec = tf.TensorSpec((1, 8, 8, 4), tf.float32, name="image")
        function = tf.function(lambda image, layer=layer: _conv(layer(_conv(image))), autograph=False)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(spec)])
        (folder / f"{name}.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
