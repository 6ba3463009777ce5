"""Small real models, built in the child process, where TensorFlow is. Each function writes one model."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from keras_session import fresh_keras


def two_in_three_out(path: str) -> None:
    """A dict of two inputs (one with an index) and a nested dict of outputs, one of them used twice."""
    keras = fresh_keras()
    image, token = keras.Input((8, 8, 3), name="image"), keras.Input((4,), dtype="int32", name="token")
    pixels = keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(image))
    words = keras.layers.Flatten()(keras.layers.Embedding(10, 6)(token))
    both = keras.layers.Concatenate()([pixels, words])
    score = keras.layers.Dense(5, name="score")(both)
    box = keras.layers.Dense(4, name="box")(pixels)
    keras.Model({"image": image, "token": token}, {"where": [box, pixels], "score": score}).save(path)


def listed(path: str) -> None:
    """Two inputs and two outputs in lists that are not in alphabetical order, and an unused input."""
    keras = fresh_keras()
    z, a = keras.Input((5,), name="zebra"), keras.Input((3,), name="ant")
    unused = keras.Input((2,), name="unused")
    first, second = keras.layers.Dense(2, name="yak")(z), keras.layers.Dense(3, name="bee")(a)
    keras.Model([z, a, unused], [first, second]).save(path)


def lstm(path: str) -> None:
    keras = fresh_keras()
    keras.Sequential([keras.Input((None, 5), name="steps"), keras.layers.LSTM(4), keras.layers.Dense(2)]).save(path)


def recurrent(path: str, library: str, kind: str) -> None:
    """A recurrent network over 6 steps of 5 features, of Keras 3 or of tf-keras, with biases that are not zero.

    Its outputs for three inputs are in expected.npz beside it.
    """
    keras: Any = fresh_keras()
    if library == "tf_keras":
        import tf_keras as keras

        keras.backend.clear_session()
    layers = keras.layers
    parts: dict[str, Any] = {
        "stack": lambda x: layers.LSTM(3)(layers.LSTM(4, return_sequences=True)(x)),
        "bidirectional": layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        "no bias": layers.LSTM(4, use_bias=False, go_backwards=True),
        "twice": lambda x: layers.Concatenate()([layers.LSTM(4)(x), layers.LSTM(4)(x)]),
        "gru": layers.GRU(4),
        "mask": lambda x: layers.LSTM(4)(layers.Masking()(x)),
        "relu": layers.LSTM(4, activation="relu"),
        "state": lambda x: layers.Concatenate()(layers.LSTM(4, return_state=True)(x)),
    }
    steps = keras.Input((6, 5), name="steps")
    model = keras.Model(steps, layers.Dense(2, name="score")(parts[kind](steps)))
    random = np.random.default_rng(5)
    model.set_weights([random.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    inputs = random.normal(size=(3, 1, 6, 5)).astype(np.float32)
    outputs = [np.asarray(model(x, training=False)) for x in inputs]
    np.savez(Path(path).with_name("expected.npz"), inputs=inputs, outputs=outputs)
    if Path(path).suffix:
        model.save(path)
    else:
        model.export(path)


def looping(path: str, kind: str) -> None:
    """A .tflite in which a layer of `recurrent` is still a loop, as the converter writes it for Keras 3."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    recurrent(f"{path}.keras", "keras", kind)
    import keras

    model = keras.saving.load_model(f"{path}.keras")
    spec = [tf.TensorSpec((1, 6, 5), tf.float32, name="steps")]
    function = tf.function(model, input_signature=spec, autograph=False).get_concrete_function()
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    Path(path).write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())


def load_killed(path: Path, options: Any) -> Any:
    """Load like `load_crashing`, with the signal that comes from outside, as from the kernel when memory ends."""
    return load_crashing(path, options, signal.SIGKILL)


def load_crashing(path: Path, options: Any, number: int = signal.SIGSEGV) -> Any:
    """Load a Keras model into a process whose converter is ended by a signal once the frozen function reaches it."""
    from edgepack.convert import child
    from edgepack.convert.load_keras import load_keras

    def crash(traced: Any) -> bytes:
        os.kill(os.getpid(), number)
        raise AssertionError(traced)

    child._convert_frozen = crash
    return load_keras(path, options)


def any_size(path: str) -> None:
    """A fully convolutional network with dynamic height and width."""
    keras = fresh_keras()
    image = keras.Input((None, None, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    keras.Model(image, keras.layers.Dense(2, name="class")(pooled)).save(path)


def with_lambda(path: str) -> None:
    keras = fresh_keras()
    x = keras.Input((4,), name="x")
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2.0 + 1.0, name="twice", output_shape=(4,))(x)).save(path)


def legacy_lambda(path: str) -> None:
    import tf_keras

    tf_keras.backend.clear_session()
    x = tf_keras.Input((4,), name="x")
    tf_keras.Model(x, tf_keras.layers.Lambda(lambda t: t * 2.0, name="twice")(x)).save(path, save_format="h5")


def with_custom_layer(path: str, folder: str) -> None:
    """A layer class of a module in `folder`, like a user's own code."""
    import sys

    keras = fresh_keras()
    (Path(folder) / "user_layers.py").write_text(
        "import keras\n\n\nclass Halve(keras.layers.Layer):\n    def call(self, x):\n        return x * 0.5\n"
    )
    sys.path.insert(0, folder)
    try:
        import user_layers  # type: ignore[import-not-found]

        x = keras.Input((4,), name="x")
        keras.Model(x, user_layers.Halve(name="halve")(x)).save(path)
    finally:
        sys.path.remove(folder)


def random_output(path: str) -> None:
    import tensorflow as tf

    class Noise(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"y": x + tf.random.uniform((1, 4))}

    module = Noise()
    tf.saved_model.save(module, path, signatures=module.__call__)


def missing_op(path: str) -> None:
    import tensorflow as tf

    class Special(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            with tf.name_scope("head/special"):
                return {"y": tf.math.betainc(x, x, x)}

    module = Special()
    tf.saved_model.save(module, path, signatures=module.__call__)


def writes_a_file(path: str, target: str) -> None:
    """A SavedModel that writes `target` every time it runs."""
    import tensorflow as tf

    class Spy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            tf.io.write_file(target, tf.strings.as_string(tf.reduce_sum(x)))
            return {"y": x * 2.0}

    module = Spy()
    tf.saved_model.save(module, path, signatures=module.__call__)


def saves_in_call(path: str, target: str) -> None:
    """A SavedModel whose signature runs an op that is allowed in its saver only."""
    import tensorflow as tf

    class Leak(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            tf.raw_ops.SaveV2(prefix=target, tensor_names=["x"], shape_and_slices=[""], tensors=[x])
            return {"y": x * 2.0}

    module = Leak()
    tf.saved_model.save(module, path, signatures=module.__call__)


def prints(path: str, stream: str) -> None:
    import tensorflow as tf

    class Talk(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            tf.print("called", output_stream=stream)
            return {"y": x * 2.0}

    module = Talk()
    tf.saved_model.save(module, path, signatures=module.__call__)


def two_signatures(path: str) -> None:
    import tensorflow as tf

    class Pair(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(np.arange(8, dtype=np.float32).reshape(4, 2))

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def encode(self, x: Any) -> Any:
            return {"code": tf.matmul(x, self.w)}

        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="code")])
        def decode(self, code: Any) -> Any:
            return {"x": tf.matmul(code, self.w, transpose_b=True)}

    module = Pair()
    tf.saved_model.save(module, path, signatures={"encode": module.encode, "decode": module.decode})


def tf1_style(path: str) -> None:
    """A SavedModel as TensorFlow 1 writes it: a session, graph variables, a saver in the graph."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 6), name="features")
        w = v1.get_variable("w", initializer=np.linspace(-1, 1, 18, dtype=np.float32).reshape(6, 3), use_resource=False)
        y = tf.nn.softmax(tf.matmul(x, w), name="probabilities")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, path, inputs={"features": x}, outputs={"probabilities": y})


def exported(path: str) -> None:
    """A SavedModel as Keras 3 exports it."""
    keras = fresh_keras()
    keras.Sequential([keras.Input((6,), name="x"), keras.layers.Dense(3, name="y")]).export(path, verbose=False)


def dynamic_tflite(path: str, height: int | None) -> None:
    """A float .tflite with a dynamic batch and, for None, a dynamic height."""
    import tensorflow as tf

    keras = fresh_keras()
    image = keras.Input((height, 8, 3), name="image")
    y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    Path(path).write_bytes(tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, y)).convert())


def outputs_of(path: str, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a .keras file with Keras itself; outputs flattened in the model's own order, dicts in insertion order."""
    keras = fresh_keras()
    model = keras.saving.load_model(path, compile=False)
    structure = model.inputs[0] if len(model.inputs) == 1 else model.input
    if isinstance(structure, dict):
        arrays: Any = {name: inputs[name] for name in structure}
    elif isinstance(structure, list | tuple):
        arrays = [inputs[tensor.name] for tensor in structure]
    else:
        arrays = inputs[structure.name]

    def flat(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [leaf for part in value.values() for leaf in flat(part)]
        if isinstance(value, list | tuple):
            return [leaf for part in value for leaf in flat(part)]
        return [np.asarray(value)]

    return flat(model(arrays, training=False))


def legacy_two_inputs(path: str) -> None:
    """A tf-keras model with named inputs in a list, as .h5."""
    import tf_keras

    tf_keras.backend.clear_session()
    z, a = tf_keras.Input((5,), name="zebra"), tf_keras.Input((5,), name="ant")
    total = tf_keras.layers.Add(name="total")([z, a])
    tf_keras.Model([z, a], [total, tf_keras.layers.Dense(2, name="out")(z)]).save(path, save_format="h5")


def mixed(path: str) -> None:
    """A model trained in mixed precision, by Keras 3 (.keras) or tf-keras (.h5)."""
    library: Any
    if path.endswith(".keras"):
        library = fresh_keras()
        policy, extra = library.dtype_policies.DTypePolicy("mixed_float16"), {}
    else:
        import tf_keras as library

        library.backend.clear_session()
        policy, extra = library.mixed_precision.Policy("mixed_float16"), {"save_format": "h5"}
    layers = library.layers
    x = library.Input((8, 8, 3), name="x")
    y = layers.Flatten(dtype=policy)(layers.Conv2D(4, 3, dtype=policy)(x))
    library.Model(x, layers.Dense(3, activation="softmax", dtype="float32", name="y")(y)).save(path, **extra)


def of_tf_keras(path: str) -> None:
    """A .keras archive as tf-keras writes it."""
    import tf_keras

    tf_keras.backend.clear_session()
    x = tf_keras.Input((8, 8, 3), name="x")
    tf_keras.Model(x, tf_keras.layers.DepthwiseConv2D(3, name="y")(x)).save(path)


def sequential(path: str) -> None:
    keras = fresh_keras()
    keras.Sequential([keras.Input((5,), name="x"), keras.layers.Dense(3, name="y")]).save(path)


def nested(path: str) -> None:
    """A nested model that is used twice, with an operation of keras.ops between the two uses."""
    keras = fresh_keras()
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, activation="relu")], name="inner")
    x = keras.Input((4,), name="x")
    keras.Model(x, keras.layers.Dense(2, name="y")(inner(keras.ops.mean(inner(x), axis=0, keepdims=True)))).save(path)


def weights_only(path: str) -> None:
    import tf_keras

    tf_keras.backend.clear_session()
    tf_keras.Sequential([tf_keras.layers.Input((3,)), tf_keras.layers.Dense(2)]).save_weights(path)


def untrained(path: str) -> None:
    """A softmax with the same output for every input."""
    keras = fresh_keras()
    zero = keras.layers.Dense(4, activation="softmax", kernel_initializer="zeros")
    keras.Sequential([keras.Input((3,), name="x"), zero]).save(path)


def without_freezing(path: str) -> tuple[bytes, float, list[str], dict[str, Any]]:
    """Convert while the frozen conversion fails, so that the documented call is used."""
    from edgepack.convert import ConvertOptions, child
    from edgepack.convert.load_keras import load_keras
    from edgepack.convert.load_saved_model import load_saved_model

    def fail(_: Any) -> bytes:
        raise RuntimeError("deliberate failure")

    load = load_saved_model if Path(path).is_dir() else load_keras
    original, child._convert_frozen = child._convert_frozen, fail
    try:
        return child.convert(load, Path(path), ConvertOptions(), [])
    finally:
        child._convert_frozen = original


def abort(*_: Any, **__: Any) -> None:
    """Abort like LLVM on a fatal error."""
    import sys

    sys.stderr.write("LLVM ERROR: operation destroyed but still has uses\n")
    sys.stderr.flush()
    os.abort()


def arithmetic_of_models() -> dict[str, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]]:
    """Return what models of both Keras versions and an exported SavedModel do to their inputs first, by model."""
    import tempfile

    import keras
    import tensorflow as tf
    import tf_keras

    from edgepack.convert.leading import read_arithmetic

    def read(run: Any) -> Any:
        spec = tf.TensorSpec((1, 16, 16, 3), tf.float32, name="x")
        function = tf.function(run, input_signature=[spec], autograph=False).get_concrete_function()
        return read_arithmetic(function, ["x"])

    found = {}
    for library in (keras, tf_keras):
        layers = library.layers
        image = library.Input((16, 16, 3))
        normal = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3600.0] * 3)
        inner = library.Sequential([library.Input((16, 16, 3)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3)])
        augmented = layers.Resizing(8, 8)(layers.RandomFlip()(image))
        bodies = {
            "rescaling": layers.Conv2D(4, 3)(layers.Rescaling(1 / 127.5, -1)(image)),
            "normalization": layers.Conv2D(4, 3)(normal(image)),
            "operators": layers.Conv2D(4, 3)(image / 255.0 * 2.0 - 1.0),
            "nested": layers.Flatten()(inner(image)),
            "augmented": layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(augmented)),
            "plain": layers.Conv2D(4, 3)(image),
            "activation": layers.Conv2D(4, 3)(layers.ReLU()(image)),
        }
        for name, output in bodies.items():
            found[f"{library.__name__} {name}"] = read(partial(library.Model(image, output), training=False))
    with tempfile.TemporaryDirectory() as folder:
        keras.Model(image := keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255)(image)).export(
            folder, verbose=False
        )
        loaded = tf.saved_model.load(folder)
        serve = loaded.signatures["serving_default"]
        (name,) = serve.structured_input_signature[1]
        found["exported"] = read(lambda x: serve(**{name: x}))
    return found


def argmax_of_keras_ops(path: str) -> None:
    """A classifier that ends in keras.ops.argmax, which Keras builds from bit operations."""
    keras = fresh_keras()
    source = keras.Input((8,), name="x")
    keras.Model(source, keras.ops.argmax(keras.layers.Dense(4)(source), axis=-1)).save(path)


def float64_layer(path: str) -> None:
    """A dense layer in float64."""
    keras = fresh_keras()
    source = keras.Input((8,), dtype="float64", name="x")
    keras.Model(source, keras.layers.Dense(4, dtype="float64")(source)).save(path)
