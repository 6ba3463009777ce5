"""Small real models, built and inspected in the child process in which TensorFlow is loaded."""

import os
from pathlib import Path
from typing import Any

from keras_session import fresh_keras


def winding(path: str) -> None:
    """A model with branches, a layer called twice, two levels of nested models, and operators such as + and *."""
    keras = fresh_keras()
    layers = keras.layers
    features = keras.Input((4, 4, 6), name="seen")
    inner = keras.Sequential([keras.Input((4, 4, 6)), layers.Conv2D(6, 1, name="same"), layers.ReLU(6.0)], name="inner")
    block = keras.Model(features, inner(features) + layers.BatchNormalization(name="same")(features), name="block")
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="gelu", name="same")(image)
    x = layers.Multiply()([block(x), block(layers.SeparableConv2D(6, 3, padding="same")(x))])
    twice = layers.Dense(6, activation="tanh", name="twice")
    x = twice(x) - twice(x * 0.5)
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])
    x = layers.Dropout(0.2)(x)
    model = keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(x), name="winding")
    _randomize(model)
    model.save(path)


def stacked(path: str) -> None:
    """A Sequential model whose outputs are logits."""
    keras = fresh_keras()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(10, name="digit"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=loss)
    model.save(path)


def small(path: str) -> None:
    """A network that learns to classify digits in one or two epochs, with one layer that TFMOT cannot annotate."""
    keras = fresh_keras()
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(6.0, name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="wide")(x)
    x = layers.Add(name="sum")([x, layers.BatchNormalization(name="alone")(x)])
    x = layers.Flatten(name="flat")(x)
    model = keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(x), name="small")
    model.compile("adam", loss="sparse_categorical_crossentropy")
    model.save(path)


def legacy(path: str) -> None:
    """A legacy .h5 of tf-keras, with a depthwise layer that Keras 3 does not load and a nested model."""
    import tf_keras

    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    part = tf_keras.Sequential([tf_keras.Input((8, 8, 4)), layers.DepthwiseConv2D(3), layers.ReLU()], name="part")
    image = tf_keras.Input((8, 8, 1), name="image")
    x = layers.Flatten()(part(layers.Conv2D(4, 3, padding="same")(image)))
    tf_keras.Model(image, layers.Dense(10, activation="softmax")(x), name="legacy").save(path)


def subclassed(path: str) -> None:
    keras = fresh_keras()

    class Mine(keras.Model):
        def __init__(self, **config: Any) -> None:
            super().__init__(**config)
            self.dense = keras.layers.Dense(10)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Mine(name="mine")
    model(keras.ops.zeros((1, 4)))
    model.save(path)


def only_keras_3(path: str) -> None:
    keras = fresh_keras()
    x = keras.Input((6,), name="x")
    keras.Model(x, keras.layers.Dense(10)(keras.layers.RMSNormalization(name="root")(x))).save(path)


def other_numbers(path: str) -> None:
    """An activation function with one name and two definitions: Keras 3 divides by 6, tf-keras multiplies by 0.2."""
    keras = fresh_keras()
    x = keras.Input((6,), name="x")
    y = keras.layers.Dense(5, name="first")(x)
    y = keras.layers.Dense(5, activation="hard_sigmoid", name="kinked")(y)
    model = keras.Model(x, keras.layers.Dense(10, name="last")(y))
    _randomize(model)
    model.save(path)


def unknown_operation(path: str) -> None:
    keras = fresh_keras()
    x = keras.Input((6,), name="x")
    keras.Model(x, keras.layers.Dense(10)(keras.ops.cumsum(x, axis=1))).save(path)


def with_lambda(path: str) -> None:
    keras = fresh_keras()
    x = keras.Input((6,), name="x")
    twice = keras.layers.Lambda(lambda t: t * 2.0, name="double", output_shape=(6,))(x)
    keras.Model(x, keras.layers.Dense(10, name="last")(twice)).save(path)


def two_outputs(path: str) -> None:
    keras = fresh_keras()
    x = keras.Input((8, 8, 1), name="image")
    flat = keras.layers.Flatten()(x)
    keras.Model(x, [keras.layers.Dense(10)(flat), keras.layers.Dense(2)(flat)]).save(path)


def summarize(path: str, allow_code: bool = False) -> dict[str, Any]:
    """Rebuild a model and return a summary of the result."""
    from edgepack.training.load import load
    from edgepack.training.rebuild import is_model, rebuild

    rebuilt = rebuild(load(Path(path), allow_code=allow_code).model, allow_code=allow_code)
    return {
        "difference": rebuilt.difference,
        "keras": type(rebuilt.model).__module__.split(".")[0],
        "nested": [layer.name for layer in rebuilt.model.layers if is_model(layer)],
        "layers": [layer.name for layer in rebuilt.model.layers],
        "calls": {layer.name: len(layer._inbound_nodes) for layer in rebuilt.model.layers},
    }


def kill_after(request: Any, stage: str, epoch: int) -> Any:
    """Train, and kill this process at the end of an epoch of a stage, as a power failure would."""
    import signal

    from edgepack.training import child, loop

    def emit(value: Any) -> None:
        if value.get("epoch") == epoch and value.get("stage") == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    loop.emit = emit
    return child.run_training(request)


def _randomize(model: Any) -> None:
    """Give every weight a random value, so that swapped or missing weights change the outputs."""
    import numpy as np

    random = np.random.default_rng(3)
    model.set_weights([random.uniform(0.1, 0.6, w.shape).astype(w.dtype) for w in model.get_weights()])


def learn(path: str, data: str) -> None:
    """Train `small` on labelled digits to a high accuracy, and compile it so that its loss is in the file."""
    import numpy as np

    keras = fresh_keras()
    small(path)
    model = keras.saving.load_model(path)
    stored = np.load(data)
    model.compile(keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy")
    model.fit(stored["x"], stored["y"], batch_size=32, epochs=8, verbose=0)
    model.save(path)
