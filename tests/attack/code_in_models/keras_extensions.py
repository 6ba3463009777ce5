"""Harmless models with what few models have: cell wrappers, feature columns, TensorFlow Model Optimization, TF 1."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _recurrent(wrap: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    def build() -> Any:
        import tensorflow as tf
        import tf_keras

        steps = tf_keras.Input((5, 3))
        return tf_keras.Model(steps, tf_keras.layers.RNN(wrap(tf_keras.layers, tf.nn))(steps))

    return build


def _quantized() -> Any:
    import tensorflow_model_optimization as tfmot

    return tfmot.quantization.keras.quantize_model(_convolutions())


def _pruned() -> Any:
    import tensorflow_model_optimization as tfmot

    sparsity = tfmot.sparsity.keras
    schedule = sparsity.PolynomialDecay(0.1, 0.5, 0, 10)
    return sparsity.prune_low_magnitude(_convolutions(), pruning_schedule=schedule)


def _clustered() -> Any:
    import tensorflow_model_optimization as tfmot

    clustering = tfmot.clustering.keras
    start = clustering.CentroidInitialization.KMEANS_PLUS_PLUS
    return clustering.cluster_weights(_convolutions(), number_of_clusters=4, cluster_centroids_init=start)


def _convolutions() -> Any:
    import tf_keras

    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(),
            layers.DepthwiseConv2D(3, activation="relu"), layers.Flatten(), layers.Dense(2, activation="softmax"),
        ]
    )  # fmt: skip


def _columns() -> Any:
    import tensorflow as tf
    import tf_keras

    column = tf.feature_column
    age, word = column.numeric_column("age"), column.categorical_column_with_vocabulary_list("word", ["a", "b"])
    bucket = column.bucketized_column(age, [1.0, 2.0])
    inputs = {"age": tf_keras.Input((1,), name="age"), "word": tf_keras.Input((1,), name="word", dtype="string")}
    inputs["city"] = tf_keras.Input((1,), name="city", dtype="string")
    columns = [
        age, bucket, column.indicator_column(word), column.embedding_column(word, 2),
        column.indicator_column(column.crossed_column([bucket, word], 5)),
        column.indicator_column(column.categorical_column_with_hash_bucket("city", 4)),
    ]  # fmt: skip
    return tf_keras.Model(inputs, tf_keras.layers.DenseFeatures(columns)(inputs))


def _graph_mode() -> Any:
    """TensorFlow 1 makes an op layer of each operator, and names Keras's former module for it."""
    import tensorflow as tf
    import tf_keras

    with tf.Graph().as_default():
        x = tf_keras.Input((4,))
        return tf_keras.Model(x, tf.nn.relu6(tf_keras.layers.Dense(4)(x) * 2.0 + x))


def _text() -> Any:
    import tf_keras

    text = tf_keras.Input((), dtype="string")
    words = tf_keras.layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3, ngrams=2)
    return tf_keras.Model(text, tf_keras.layers.Embedding(5, 2)(words(text)))


def _initializers() -> Any:
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    start = tf.random_normal_initializer(stddev=0.1)
    dense = layers.Dense(2, kernel_initializer=start, bias_initializer=tf.constant_initializer(0))
    return tf_keras.Sequential([layers.Input((4,)), dense])


MODELS: dict[str, Callable[[], Any]] = {
    "stacked cells": _recurrent(lambda k, nn: k.StackedRNNCells([k.LSTMCell(3), k.GRUCell(2)])),
    "residual wrapper": _recurrent(lambda k, nn: nn.RNNCellResidualWrapper(k.LSTMCell(3))),
    "dropout wrapper": _recurrent(lambda k, nn: nn.RNNCellDropoutWrapper(k.GRUCell(3), input_keep_prob=0.9)),
    "quantized": _quantized,
    "pruned": _pruned,
    "clustered": _clustered,
    "feature columns": _columns,
    "TensorFlow 1": _graph_mode,
    "text": _text,
    "TensorFlow's initializers": _initializers,
}


#: Models that are saved and read again as well; Keras cannot save all of the others in both formats.
SAVED = ("quantized", "text", "TensorFlow's initializers")


def flags(path: str) -> dict[str, list[str]]:
    """Return what the scanner finds in the configuration of each model, and in files of some, in a folder."""
    from edgepack.untrusted.keras_code import find_code
    from edgepack.untrusted.keras_file import open_keras_file

    found: dict[str, list[str]] = {}
    for name, build in MODELS.items():
        model = build()
        found[name] = [str(code) for code in find_code(json.loads(model.to_json()))]
        for suffix in ("h5", "keras") if name in SAVED else ():
            file = Path(path) / f"{name}.{suffix}"
            model.save(str(file))
            with open_keras_file(file, allow_code=True) as opened:
                opened.write_copy(opened.config)
                found[name] += [f"{suffix}: {code}" for code in find_code(opened.config)]
    return found
