"""Convert models that are more than a chain of layers with TFLiteConverter: control flow, state, custom ops."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

_VECTOR = tf.TensorSpec((2, 4), tf.float32, name="x")
_IMAGE = tf.TensorSpec((1, 8, 8, 4), tf.float32, name="x")
_WORD = tf.TensorSpec((2,), tf.string, name="x")


class _Counter(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sum = tf.Variable(tf.zeros((2, 4)))

    @tf.function
    def run(self, x: Any) -> Any:
        """Add to the sum of the earlier inputs."""
        self.sum.assign_add(x)
        return self.sum * 2.0


class _Words(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        entries = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64))
        self.table = tf.lookup.StaticHashTable(entries, -1)

    @tf.function
    def run(self, x: Any) -> Any:
        """Return the ids of words."""
        return self.table.lookup(x)


class _Two(tf.Module):
    @tf.function(input_signature=[_VECTOR])
    def half(self, x: Any) -> Any:
        """First signature."""
        return {"y": tf.nn.relu(x) * 0.5}

    @tf.function(input_signature=[_VECTOR])
    def double(self, x: Any) -> Any:
        """Second signature."""
        return {"y": tf.nn.relu(x) * 2.0}


def _branch(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(x), lambda: x * 2.0)


def _loop(x: Any) -> Any:
    return tf.while_loop(lambda y: tf.reduce_sum(y) < 10, lambda y: (y + 1.0,), (tf.nn.relu(x),))[0]


def _inverse(x: Any) -> Any:
    return tf.nn.relu(tf.linalg.inv(tf.matmul(tf.nn.relu(x), x, transpose_b=True)))


def _spectrum(x: Any) -> Any:
    return tf.abs(tf.signal.rfft2d(x[:, :, :, 0], [8, 8]))


def _converted(function: Callable[..., Any], spec: Any, holder: Any = None, **settings: Any) -> bytes:
    concrete = (holder.run if holder else tf.function(function, autograph=False)).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder or concrete)
    for name, value in settings.items():
        setattr(converter, name, value)
    if settings.get("flex"):
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    return converter.convert()  # type: ignore[no-any-return]


def _two_signatures() -> bytes:
    module = _Two()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"half": module.half, "double": module.double})
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()  # type: ignore[no-any-return]


def _hybrid(function: Callable[..., Any]) -> bytes:
    return _converted(function, _IMAGE, optimizations=[tf.lite.Optimize.DEFAULT])


def _dense(x: Any) -> Any:
    weights = np.random.default_rng(0).normal(0, 1, (256, 64)).astype(np.float32)
    return tf.matmul(tf.reshape(x, [1, 256]), tf.constant(weights))


def write(folder: str) -> None:
    """Write `FOLDER/NAME.tflite`."""
    files = {
        "branch": _converted(_branch, _VECTOR),
        "loop": _converted(_loop, _VECTOR),
        "variable": _converted(_loop, _VECTOR, _Counter(), experimental_enable_resource_variables=True),
        "words": _converted(_loop, _WORD, _Words(), flex=True),
        "custom": _converted(_inverse, _VECTOR, allow_custom_ops=True),
        "flex": _converted(_inverse, _VECTOR, flex=True),
        "complex": _converted(_spectrum, _IMAGE),
        "two signatures": _two_signatures(),
        "hybrid": _hybrid(_dense),
    }
    for name, data in files.items():
        Path(folder, f"{name}.tflite").write_bytes(data)
