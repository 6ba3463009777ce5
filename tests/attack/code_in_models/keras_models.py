"""Harmless models of both Keras versions, made by their own API; runs in the child process that has TensorFlow."""

import contextlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_session import fresh_keras

#: Architectures with layers of their own, with operators between layers and with neither.
APPLICATIONS = ("ConvNeXtTiny", "EfficientNetV2B0", "MobileNetV3Small", "Xception")


def flags_of_applications() -> dict[str, list[str]]:
    """Return what the scanner finds in each family of keras.applications."""
    keras = fresh_keras()
    from keras.src.backend.common import global_state

    found = {}
    for name in APPLICATIONS:
        # Within this scope Keras computes no initial values: the configuration does not depend on them.
        with keras.StatelessScope():
            found[name] = _flags(getattr(keras.applications, name)(weights=None))
            global_state.set_global_attribute("uninitialized_variables", [])
        keras.backend.clear_session()
    return found


def flags_of_layers(library: str) -> dict[str, list[str]]:
    """Return what the scanner finds in every layer of a Keras that its constructor makes without special arguments."""
    module = __import__(library)
    arguments: dict[str, Any] = {
        "units": 2, "filters": 2, "kernel_size": 3, "size": 2, "n": 2, "rate": 0.1, "stddev": 0.1, "input_dim": 4,
        "output_dim": 4, "num_heads": 2, "key_dim": 2, "target_shape": (4,), "dims": (1,), "height": 4, "width": 4,
        "scale": 0.5, "factor": 0.1, "num_bins": 4, "equation": "ab,bc->ac", "output_shape": 4, "axes": 1,
        "head_dim": 2, "num_query_heads": 2, "num_key_value_heads": 2, "num_tokens": 4, "bin_boundaries": [0.0, 1.0],
        "height_factor": 0.1, "width_factor": 0.1, "max_number": 4, "bounding_box_format": "xyxy",
        "cell": module.layers.LSTMCell(2), "cells": [module.layers.GRUCell(2)], "vocabulary": None, "layers": [],
    }  # fmt: skip
    wrapped = {"TimeDistributed": "Dense", "SpectralNormalization": "Dense", "Bidirectional": "LSTM"}
    found = {}
    for name in dir(module.layers):
        kind = getattr(module.layers, name)
        if not inspect.isclass(kind) or not issubclass(kind, module.layers.Layer):
            continue
        needed = [
            key
            for key, parameter in inspect.signature(kind.__init__).parameters.items()
            if parameter.default is inspect.Parameter.empty and key not in {"self", "args", "kwargs"}
        ]
        given = {key: arguments[key] for key in needed if key in arguments}
        if name in wrapped:
            given["layer"] = getattr(module.layers, wrapped[name])(2)
        with contextlib.suppress(Exception):
            config = module.saving.serialize_keras_object(kind(**given))
            found[name] = _find({"class_name": "Functional", "config": {"name": "net", "layers": [config]}})
    return found


def flags_of_graphs() -> dict[str, list[str]]:
    """Return what the scanner finds in functional models with arithmetic and functions between layers."""
    return {name: _flags(model) for name, model in [*_legacy_graphs(), *_keras3_graphs()]}


def code_that_writes(path: str, target: str) -> None:
    """Write an .h5 whose TFOpLambda writes a file while the model loads."""
    import tensorflow as tf
    import tf_keras

    text = tf_keras.Input((), batch_size=1, dtype="string")
    written = tf_keras.layers.Dense(1)(tf.reshape(tf.strings.to_number(text), (1, 1)))
    model = tf_keras.Model(text, written)
    config = json.loads(model.to_json())
    for layer in config["config"]["layers"]:
        if layer["config"].get("function") == "strings.to_number":
            layer["config"]["function"] = "io.write_file"
            layer["inbound_nodes"] = [[target, -1, -1, {"contents": "stolen"}]]
    model.save(path, save_format="h5")
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)


def _legacy_graphs() -> Iterator[tuple[str, Any]]:
    import tensorflow as tf
    import tf_keras

    functions = {
        "arithmetic": lambda x, y: tf.nn.relu(x * 2.0 + y)[:, 1:3] - 1.0,
        "comparison": lambda x, y: tf.where(x > y, x, y) / 3.0,
        "linear algebra": lambda x, y: tf.linalg.matmul(x, y, transpose_b=True),
        "shapes": lambda x, y: tf.reshape(tf.concat([x, y], -1), (-1, 4, 2)),
        "reduction": lambda x, y: tf.reduce_mean(x, -1, keepdims=True) + tf.math.reduce_std(y),
        "normalization": lambda x, y: tf.math.l2_normalize(x, 1) ** 2,
        "splitting": lambda x, y: tf.stack(tf.split(x, 2, axis=1), axis=1),
        "cast": lambda x, y: tf.cast(tf.cast(x, tf.int32), tf.float32) * tf.sigmoid(y),
        "clip": lambda x, y: tf.clip_by_value(x, 0.0, 6.0) + tf.abs(-y),
        "einsum": lambda x, y: tf.einsum("bi,bj->bij", x, y),
        "backend": lambda x, y: tf_keras.backend.softmax(x) + tf_keras.activations.gelu(y),
        "broadcast": lambda x, y: tf.expand_dims(x, 1) + tf.tile(tf.expand_dims(y, 1), [1, 3, 1]),
        "top k": lambda x, y: tf.math.top_k(x, 2).values,
        "gather": lambda x, y: tf.gather(x, [0, 2], axis=1),
        "one hot": lambda x, y: tf.one_hot(tf.argmax(x, -1), 4) + tf.zeros_like(y),
        "pad": lambda x, y: tf.pad(x, [[0, 0], [1, 1]]) if y is not None else x,
    }
    for name, function in functions.items():
        x, y = tf_keras.Input((4,), name="x"), tf_keras.Input((4,), name="y")
        yield name, tf_keras.Model([x, y], function(x, y))
    image = tf_keras.Input((8, 8, 3))
    yield "image", tf_keras.Model(image, tf.image.resize(image / 255.0, (4, 4)))
    yield "depth to space", tf_keras.Model(image, tf.nn.depth_to_space(tf_keras.layers.Conv2D(4, 3)(image), 2))


def _keras3_graphs() -> Iterator[tuple[str, Any]]:
    keras = fresh_keras()
    ops = keras.ops
    functions = {
        "operators": lambda x: (x * 2.0 + 1.0)[:, :2] / 3.0 - x[:, 1:3],
        "ops": lambda x: ops.relu6(ops.concatenate([x, ops.exp(x)], -1)),
        "image ops": lambda x: ops.sum(ops.where(x > 0, x, 0.1 * x), axis=-1, keepdims=True),
        "matrix ops": lambda x: ops.einsum("bi,bj->bij", x, ops.softmax(x)),
        "activation": lambda x: keras.layers.Activation(ops.gelu)(keras.layers.Dense(3, activation="mish")(x)),
        "settings": keras.layers.Dense(
            3,
            kernel_initializer=keras.initializers.HeNormal(),
            kernel_regularizer="l2",
            bias_constraint=keras.constraints.NonNeg(),
            dtype="mixed_float16",
        ),
        "nested": keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
    }
    for name, function in functions.items():
        x = keras.Input((4,))
        yield f"keras 3 {name}", keras.Model(x, function(x))
    words = keras.layers.StringLookup(vocabulary=["a", "b"])
    text = keras.Input((1,), dtype="string")
    yield "keras 3 inline vocabulary", keras.Model(text, words(text))


def _flags(model: Any) -> list[str]:
    return _find(json.loads(model.to_json()))


def _find(config: Any) -> list[str]:
    from edgepack.untrusted.keras_code import find_code

    return [str(code) for code in find_code(config)]


def new_names() -> list[str]:
    """Return the names of the installed Keras and TensorFlow that the checked-in lists do not have."""
    import tomllib
    from importlib.machinery import SourceFileLoader

    script = Path(__file__).resolve().parents[3] / "scripts" / "derive_keras_objects"
    derive: Any = SourceFileLoader("derive_keras_objects", str(script)).load_module()
    return list(derive.new_names(derive.derive(), tomllib.loads(derive.FILE.read_text(encoding="utf-8"))))
