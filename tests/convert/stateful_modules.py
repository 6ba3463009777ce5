"""Models that keep a state in variables, made in a child process."""

from typing import Any


def ring_buffer(path: str) -> None:
    """A SavedModel that convolves the last four frames, which it keeps, and counts its runs."""
    import numpy as np
    import tensorflow as tf

    class Stream(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frames = tf.Variable(tf.zeros((1, 4, 6)), name="frames")
            self.runs = tf.Variable(2.0, name="runs")
            self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(3, 6, 5)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec((1, 1, 6), tf.float32, name="frame")])
        def step(self, frame: Any) -> Any:
            frames = tf.concat([self.frames[:, 1:], frame], 1)
            self.frames.assign(frames)
            self.runs.assign_add(1.0)
            return {"y": tf.nn.relu(tf.nn.conv1d(frames, self.kernel, 1, "VALID")) + self.runs}

    module = Stream()
    tf.saved_model.save(module, path, signatures=module.step.get_concrete_function())


def stateful_layer(path: str, kind: str, unroll: bool = True) -> None:
    """A Keras model with a stateful recurrent layer."""
    from keras_session import fresh_keras

    keras = fresh_keras()
    layers = keras.layers
    layer = getattr(layers, kind)(5, stateful=True, unroll=unroll)
    keras.Sequential([keras.Input((2, 6), batch_size=1, name="x"), layer, layers.Dense(3, name="y")]).save(path)


def stream_of(path: str, kind: str, samples: Any) -> Any:
    """Return the outputs of a model of this module for samples in a row."""
    import numpy as np
    import tensorflow as tf

    if kind == "saved-model":
        step = tf.saved_model.load(path).signatures["serving_default"]
        return [step(frame=tf.constant(sample))["y"].numpy() for sample in samples]
    import keras

    model = keras.saving.load_model(path, compile=False)
    return [np.asarray(model(sample, training=False)) for sample in samples]
