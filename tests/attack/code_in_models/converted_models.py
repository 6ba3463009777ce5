"""Harmless models of many kinds that convert without a flag; each function writes one in the child process."""

from collections.abc import Callable
from typing import Any

from keras_session import fresh_keras


def _keras(build: Callable[[Any, Any], Any], shape: tuple[int, ...]) -> Callable[[str], None]:
    """Return a writer of a Keras 3 model; `build(keras, x)` returns its output."""

    def write(path: str) -> None:
        keras = fresh_keras()
        x = keras.Input(shape, batch_size=1)
        keras.Model(x, build(keras, x)).save(f"{path}.keras")

    return write


def _legacy(build: Callable[[Any, Any, Any], Any], shape: tuple[int, ...], suffix: str) -> Callable[[str], None]:
    """Return a writer of a tf-keras model; `build(tf, layers, x)` returns its output."""

    def write(path: str) -> None:
        import tensorflow as tf
        import tf_keras

        tf_keras.backend.clear_session()
        x = tf_keras.Input(shape, batch_size=1)
        tf_keras.Model(x, build(tf, tf_keras.layers, x)).save(f"{path}{suffix}")

    return write


def _augmented(keras: Any, x: Any) -> Any:
    layers = keras.layers
    for layer in (layers.Resizing(8, 8), layers.Rescaling(1 / 255), layers.RandomFlip(), layers.RandomContrast(0.1)):
        x = layer(x)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 1.0, 1.0])(x)
    return layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))


def _columns(tf: Any, layers: Any, x: Any) -> Any:
    column = tf.feature_column
    age = column.numeric_column("age")
    return layers.DenseFeatures([age, column.bucketized_column(age, [0.0, 1.0])])({"age": x})


MODELS: dict[str, Callable[[str], None]] = {
    "attention": _keras(lambda k, x: k.layers.MultiHeadAttention(2, 3)(x, x), (4, 6)),
    "recurrent": _keras(lambda k, x: k.layers.Bidirectional(k.layers.GRU(3))(x), (4, 2)),
    "augmented": _keras(_augmented, (10, 10, 3)),
    "ops": _keras(lambda k, x: k.ops.softmax(k.ops.concatenate([x, k.ops.exp(x[:, :2])], -1) * 2.0 + 1.0), (4,)),
    "einsum": _keras(
        lambda k, x: k.ops.einsum("bij,bkj->bik", x, k.layers.EinsumDense("bij,jk->bik", (4, 3))(x)), (4, 3)
    ),
    "nested": _keras(lambda k, x: k.Sequential([k.layers.Dense(3), k.layers.LeakyReLU()])(x), (4,)),
    "arithmetic": _legacy(lambda tf, k, x: tf.nn.relu(x * 2.0 + k.Dense(4)(x))[:, 1:3], (4,), ".h5"),
    "legacy archive": _legacy(lambda tf, k, x: tf.image.resize(k.Conv2D(2, 3)(x) / 255.0, (4, 4)), (8, 8, 3), ".keras"),
    "cells": _legacy(
        lambda tf, k, x: k.RNN(k.StackedRNNCells([k.GRUCell(3), k.LSTMCell(2)]), unroll=True)(x), (3, 2), ".h5"
    ),
    "residual": _legacy(
        lambda tf, k, x: k.RNN(tf.nn.RNNCellResidualWrapper(k.GRUCell(2)), unroll=True)(x), (3, 2), ".h5"
    ),
    "feature columns": _legacy(_columns, (1,), ".h5"),
    "SavedModel of tf-keras": _legacy(lambda tf, k, x: k.Dense(2)(k.LayerNormalization()(x)), (4,), ""),
}  # fmt: skip


def write_all(folder: str) -> list[str]:
    """Write every model into a folder and return the names."""
    for name, write in MODELS.items():
        write(f"{folder}/{name}")
    return list(MODELS)
