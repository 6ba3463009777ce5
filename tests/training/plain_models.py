"""Models with layers that TFMOT does not quantize as they are, built and wrapped in a child process."""

import os
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def mobile() -> Any:
    """Rescaling in front of zero padding, depthwise layers, a nested model, a normalization after an activation."""
    import keras

    layers = keras.layers
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 6)),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.Conv2D(8, 1, activation="relu6"),
        ]
    )
    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = inner(layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x))
    x = layers.BatchNormalization()(layers.Dense(10, activation="relu")(layers.GlobalAveragePooling2D()(x)))
    return keras.Model(image, layers.Dense(4)(x))


def residual() -> Any:
    """Normalization per channel, normalizations after a sum and after activations, arithmetic with numbers."""
    import keras

    layers = keras.layers
    image = keras.Input((12, 12, 3))
    x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])(image)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", activation="relu")(x))
    x = layers.Activation("relu")(layers.BatchNormalization()(layers.Add()([x, y])))
    x = layers.Conv2D(8, 3)(layers.BatchNormalization()(x * 0.5 + 1.0))
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(layers.BatchNormalization()(x))))


def audio() -> Any:
    """One-dimensional layers: causal padding, a separable layer, pools, a sum, an ELU, which TFMOT cannot round."""
    import keras

    layers = keras.layers
    sound = keras.Input((64, 4))
    x = layers.MaxPooling1D(2)(
        layers.BatchNormalization()(layers.Conv1D(8, 5, padding="causal", activation="relu")(sound))
    )
    x = layers.ReLU()(layers.BatchNormalization()(layers.SeparableConv1D(12, 3, padding="same")(x)))
    x = layers.Add()([x, layers.Conv1D(12, 3, padding="same", activation="elu")(x)])
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3)(layers.AveragePooling1D(2)(x)))
    return keras.Model(sound, layers.Dense(3)(x))


def sliced() -> Any:
    """Slices of the channels, each with its own convolution."""
    import keras

    layers = keras.layers
    image = keras.Input((10, 10, 4))
    x = layers.Conv2D(8, 3, padding="same", activation="gelu")(image)
    x = layers.Concatenate()([layers.Conv2D(4, 3)(x[..., :4]), layers.Conv2D(4, 3)(x[..., 4:])])
    return keras.Model(image, layers.Dense(3)(layers.GlobalMaxPooling2D()(x)))


def wrapped(kind: str) -> tuple[float, tuple[str, ...], bytes]:
    """Return the relative difference of the plain layers' outputs, the layers left in float, and the int8 file."""
    import tensorflow as tf

    from edgepack.training.export import to_tflite
    from edgepack.training.model import TrainOptions
    from edgepack.training.plain import with_plain_layers
    from edgepack.training.ranges import measure_ranges
    from edgepack.training.rebuild import rebuild, relative_difference
    from edgepack.training.recipes import wrap

    tf.keras.utils.set_random_seed(0)
    model = {"mobile": mobile, "residual": residual, "audio": audio, "sliced": sliced}[kind]()
    _spread(model)
    rebuilt = rebuild(model, allow_code=False).model
    inputs = np.random.default_rng(0).random((8, *model.inputs[0].shape[1:])).astype(np.float32)
    inputs *= 255 if kind == "mobile" else 1
    difference = relative_difference([rebuilt(inputs).numpy()], [with_plain_layers(rebuilt)(inputs).numpy()])
    reference = to_tflite(rebuilt, [0], _reference(model), quantized=False)
    result = wrap("qat", (), rebuilt, TrainOptions(), 1)
    measure_ranges(result.model, [inputs])
    return difference, result.left_out, to_tflite(result.model, [0], reference, quantized=True, io="INT8")


def _reference(model: Any) -> bytes:
    import tensorflow as tf

    spec = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32, name="x")
    function = tf.function(lambda x: model(x, training=False), input_signature=[spec]).get_concrete_function()
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], model).convert())


def _spread(model: Any) -> None:
    """Give normalizations statistics as training leaves them: different in each channel."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        if hasattr(layer, "layers"):
            _spread(layer)
        elif type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, variance = layer.get_weights()
            shift = random.normal(0, 0.3, (2, *beta.shape))
            layer.set_weights(
                [gamma * random.uniform(0.5, 2, gamma.shape), beta + shift[0], mean + shift[1], variance * 1.5]
            )
