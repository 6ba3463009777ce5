# ruff: noqa: E501
"""Harmless SavedModels made by TensorFlow's own API; none may be refused."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = ["", "a", "b"]


def table_from_asset(path: str) -> None:
    """A lookup table from a vocabulary file, as TensorFlow Hub's text models have."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "vocab.txt"
        words.write_text("a\nb\nc\n")

        class Model(tf.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.table = tf.lookup.StaticVocabularyTable(
                    tf.lookup.TextFileInitializer(
                        str(words),
                        tf.string,
                        tf.lookup.TextFileIndex.WHOLE_LINE,
                        tf.int64,
                        tf.lookup.TextFileIndex.LINE_NUMBER,
                    ),
                    1,
                )

            @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="x")])  # type: ignore[untyped-decorator]
            def __call__(self, x: Any) -> Any:
                return self.table.lookup(tf.strings.split(tf.strings.lower(x), " ").flat_values)

        module = Model()
        tf.saved_model.save(module, path, signatures=module.__call__)


def _function(compute: Callable[[Any, Any], Any], dtype: str = "float32", shape: Any = (2, 4)) -> Callable[[str], None]:
    def build(path: str) -> None:
        import tensorflow as tf

        module = tf.Module()
        signature = [tf.TensorSpec(shape, dtype, name="x")]
        module.call = tf.function(lambda x: compute(tf, x), input_signature=signature, autograph=False)
        tf.saved_model.save(module, path, signatures=module.call)

    return build


def _keras(layers: Callable[[Any], list[Any]], shape: Any = (8, 8, 3), dtype: str = "float32") -> Callable[[str], None]:
    def build(path: str) -> None:
        import keras

        model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers(keras.layers)])
        model.export(path, verbose=False)

    return build


def tf_keras_save(path: str) -> None:
    """tf-keras writes all call functions, losses and metadata."""
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input((6, 3)), layers.LSTM(4), layers.Dropout(0.1), layers.Dense(2)])
    model.compile("adam", "mse")
    model.save(path)


def variables_and_state(path: str) -> None:
    """A counter, an optimizer's slot and a random generator."""
    import tensorflow as tf

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps = tf.Variable(0, trainable=False)
            self.random = tf.random.Generator.from_seed(1)

        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            self.steps.assign_add(1)
            return x + self.random.normal((1, 4)) * tf.cast(self.steps, tf.float32)

    module = Model()
    tf.saved_model.save(module, path, signatures=module.__call__)


def _tf1(table: str) -> Callable[[str], None]:
    """A session's graph with a variable and a lookup table, saved by the builder of TensorFlow 1."""

    def build(path: str) -> None:
        import tensorflow as tf

        v1 = tf.compat.v1
        with tempfile.TemporaryDirectory() as folder, tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.string, (None,), name="x")
            weight = v1.get_variable("w", (3,), use_resource=table == "words")
            if table == "words":
                start = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64))
            else:
                words = Path(folder) / "words.txt"
                words.write_text("a\nb\n")
                start = v1.lookup.TextFileInitializer(
                    str(words),
                    tf.string,
                    v1.lookup.TextFileIndex.WHOLE_LINE,
                    tf.int64,
                    v1.lookup.TextFileIndex.LINE_NUMBER,
                )
            found = v1.lookup.StaticHashTable(start, 0).lookup(x)
            y = tf.gather(weight, found)
            session.run([v1.global_variables_initializer(), v1.tables_initializer()])
            v1.saved_model.simple_save(session, path, {"x": x}, {"y": y}, legacy_init_op=v1.tables_initializer())

    return build


def _loop(tf: Any, x: Any) -> Any:
    return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.cond(i > 1, lambda: y * 2, lambda: y)), (0, x))[1]


def _pipeline(tf: Any, x: Any) -> Any:
    """Steps of tf.data between tensors, as models have that pre-process batches."""
    rows = tf.data.Dataset.from_tensor_slices(x).map(lambda row: row * 2.0).batch(2).prefetch(1)
    return rows.reduce(tf.zeros((2, 4)), lambda total, batch: total + batch)


MODELS: dict[str, Callable[[str], None]] = {
    "table_from_asset": table_from_asset,
    "tf_keras_save": tf_keras_save,
    "variables_and_state": variables_and_state,
    "tf1_inline_table": _tf1("words"),
    "tf1_asset_table": _tf1("file"),
    "while_and_if": _function(_loop),
    "switch_case": _function(lambda tf, x: tf.switch_case(tf.cast(x[0, 0], tf.int32), [lambda: x, lambda: x * 2])),
    "map_fn": _function(lambda tf, x: tf.map_fn(tf.reduce_sum, x)),
    "tensor_array": _function(lambda tf, x: tf.TensorArray(tf.float32, 2).unstack(x).stack()),
    "linear_algebra": _function(lambda tf, x: tf.linalg.svd(tf.linalg.matmul(x, x, transpose_b=True))[0]),
    "spectrum": _function(lambda tf, x: tf.abs(tf.signal.stft(x, 4, 2)), shape=(1, 64)),
    "strings": _function(
        lambda tf, x: tf.strings.to_hash_bucket_fast(tf.strings.regex_replace(tf.strings.strip(x), "[0-9]", ""), 9),
        "string",
        (None,),
    ),
    "ngrams": _function(lambda tf, x: tf.strings.ngrams(tf.strings.unicode_split(x, "UTF-8"), 2).values, "string", (2,)),
    "decode_image": _function(
        lambda tf, x: tf.map_fn(lambda one: tf.io.decode_jpeg(one, 3), x, fn_output_signature=tf.uint8), "string", (1,)
    ),
    "parse_example": _function(
        lambda tf, x: tf.io.parse_example(x, {"a": tf.io.FixedLenFeature((2,), tf.float32)})["a"], "string", (None,)
    ),
    "assert_and_print": _function(
        lambda tf, x: (tf.debugging.assert_all_finite(x, "finite"), tf.print(x), tf.identity(x))[2]
    ),
    "nms": _function(lambda tf, x: tf.image.non_max_suppression(x, tf.reduce_sum(x, 1), 2)),
    "sparse": _function(lambda tf, x: tf.sparse.sparse_dense_matmul(tf.sparse.from_dense(x), tf.ones((4, 2)))),
    "ragged": _function(lambda tf, x: tf.RaggedTensor.from_tensor(x).to_tensor()),
    "gradient": _function(lambda tf, x: tf.gradients(tf.reduce_sum(tf.nn.softmax(x) ** 2), x)[0]),
    "resize": _function(lambda tf, x: tf.image.resize(tf.image.adjust_hue(x, 0.1), (4, 4)), shape=(1, 8, 8, 3)),
    "fake_quant": _function(lambda tf, x: tf.quantization.fake_quant_with_min_max_args(x)),
    "data_pipeline": _function(_pipeline),
    "keras_convolution": _keras(
        lambda k: [k.Rescaling(1 / 255), k.Conv2D(4, 3), k.BatchNormalization(), k.GlobalAveragePooling2D()]
    ),
    "keras_augmentation": _keras(lambda k: [k.Resizing(6, 6), k.RandomFlip(), k.RandomRotation(0.1), k.CenterCrop(4, 4)]),
    "keras_rnn": _keras(lambda k: [k.Bidirectional(k.GRU(3, return_sequences=True)), k.LSTM(4)], (5, 3)),
    "keras_text": _keras(
        lambda k: [k.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4), k.Embedding(4, 2)], (), "string"
    ),
    "keras_lookup": _keras(lambda k: [k.StringLookup(vocabulary=["a", "b"])], (2,), "string"),
    "keras_hashing": _keras(lambda k: [k.Hashing(5)], (2,), "string"),
    "keras_buckets": _keras(lambda k: [k.Discretization([0.0, 1.0]), k.CategoryEncoding(3)], (1,)),
}  # fmt: skip


def findings(folder: str) -> dict[str, list[str]]:
    """Build every model; return what the scanner finds in each, and what does not load from its private copy."""
    import tensorflow as tf

    from edgepack.untrusted.saved_model_file import read_saved_model

    result: dict[str, list[str]] = {}
    for name, build in MODELS.items():
        path, copy = Path(folder) / name, Path(folder) / f"{name}_copy"
        build(str(path))
        file = read_saved_model(path)
        copy.mkdir()
        file.write_copy(copy)
        result[name] = list(file.code)
        if "table" in name:
            loaded = tf.saved_model.load(str(copy), tags=list(file.tags)).signatures["serving_default"]
            output = next(iter(loaded(x=tf.constant(["a", "b"])).values()))
            result[name] += [] if output.shape == (2,) else [f"output {output}"]
    return result


def undecided() -> list[str]:
    """Return the ops of the installed TensorFlow that are in no list."""
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    from edgepack.untrusted.graph_ops import graph_ops

    ops = graph_ops()
    known = ops.allowed | set(ops.constrained) | set(ops.refused)
    buffer = pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    return sorted({one.name for one in op_def_pb2.OpList.FromString(buffer).op} - known)
