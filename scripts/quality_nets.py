"""Networks that the benchmarks train: one of each kind that int8 meets, small enough to train in minutes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Net:
    """How a network is trained.

    Attributes:
        shape: Shape of one input, without the batch dimension.
        build: Called with (keras, input); returns the output, probabilities.
        target: Name of the array of the training data that holds the right classes.
        epochs: Passes over the training data.
        rate: Learning rate at the start; it falls to zero along a cosine.
    """

    shape: tuple[int, ...]
    build: Callable[[Any, Any], Any]
    target: str = "y"
    epochs: int = 5
    rate: float = 3e-3


def _normed(keras: Any, x: Any, activation: bool = True) -> Any:
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.ReLU(6.0)(x) if activation else x


def _classified(keras: Any, x: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dense(10, activation="softmax", name="digit")(x)


def mobilenet_v1_wide(keras: Any, x: Any) -> Any:
    """Add one block with 256 channels: 75,000 weights, most of them in layers that pruning and clustering apply to."""
    return mobilenet_v1(keras, x, ((256, 1),))


def mobilenet_v1(keras: Any, x: Any, more: Sequence[tuple[int, int]] = ()) -> Any:
    """Return depthwise separable blocks with batch norm and RELU6, as in Howard et al. 2017."""
    layers = keras.layers
    x = _normed(keras, layers.Conv2D(16, 3, 2, "same", use_bias=False)(x))
    for width, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), *more):
        x = _normed(keras, layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x))
        x = _normed(keras, layers.Conv2D(width, 1, use_bias=False)(x))
    return _classified(keras, x)


def mobilenet_v2(keras: Any, x: Any) -> Any:
    """Return inverted residuals with linear bottlenecks, as in Sandler et al. 2018."""
    layers = keras.layers
    x = _normed(keras, layers.Conv2D(16, 3, 2, "same", use_bias=False)(x))
    for width, stride in ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1)):
        before, wide = x, 4 * x.shape[-1]
        x = _normed(keras, layers.Conv2D(wide, 1, use_bias=False)(x))
        x = _normed(keras, layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x))
        x = _normed(keras, layers.Conv2D(width, 1, use_bias=False)(x), activation=False)
        if before.shape == x.shape:
            x = layers.Add()([before, x])
    return _classified(keras, _normed(keras, layers.Conv2D(128, 1, use_bias=False)(x)))


def resnet(keras: Any, x: Any) -> Any:
    """Return basic blocks with RELU, as in He et al. 2015."""
    layers = keras.layers

    def conv(x: Any, width: int, size: int, stride: int) -> Any:
        return layers.BatchNormalization()(layers.Conv2D(width, size, stride, "same", use_bias=False)(x))

    x = layers.ReLU()(conv(x, 16, 3, 2))
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        y = conv(layers.ReLU()(conv(x, width, 3, stride)), width, 3, 1)
        x = conv(x, width, 1, stride) if stride > 1 else x
        x = layers.ReLU()(layers.Add()([x, y]))
    return _classified(keras, x)


def silu_se(keras: Any, x: Any) -> Any:
    """Return blocks of EfficientNetV2 (Tan and Le 2021) with SiLU, then of MobileNetV3 (Howard et al. 2019).

    Both with squeeze-and-excite; the first layer is a Rescaling, as in the networks of keras.applications.
    """
    layers = keras.layers

    def conv(x: Any, width: int, size: int, stride: int, activation: str | None) -> Any:
        x = layers.BatchNormalization()(layers.Conv2D(width, size, stride, "same", use_bias=False)(x))
        return layers.Activation(activation)(x) if activation else x

    def block(x: Any, width: int, stride: int, activation: str, gate: str) -> Any:
        before = x
        x = conv(x, 4 * x.shape[-1], 1, 1, activation)
        x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x))
        x = layers.Activation(activation)(x)
        squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
        squeezed = layers.Conv2D(before.shape[-1] // 2, 1, activation="silu" if gate == "sigmoid" else "relu")(squeezed)
        x = layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1, activation=gate)(squeezed)])
        x = conv(x, width, 1, 1, None)
        return layers.Add()([before, x]) if before.shape == x.shape else x

    x = conv(layers.Rescaling(1 / 127.5, -1.0)(x), 16, 3, 2, "silu")
    for width, stride in ((16, 1), (32, 2)):
        before = x
        x = conv(conv(x, 4 * x.shape[-1], 3, stride, "silu"), width, 1, 1, None)
        x = layers.Add()([before, x]) if before.shape == x.shape else x
    for width, stride in ((32, 1), (48, 2)):
        x = block(x, width, stride, "silu", "sigmoid")
    for width, stride in ((48, 1), (64, 2), (64, 1)):
        x = block(x, width, stride, "hard_silu", "hard_sigmoid")
    return _classified(keras, conv(x, 128, 1, 1, "hard_silu"))


def unet(keras: Any, x: Any) -> Any:
    """Return an encoder and decoder with skips (Ronneberger et al. 2015): bilinear upsampling, then TRANSPOSE_CONV."""
    layers = keras.layers

    def conv(x: Any, width: int) -> Any:
        for _ in range(2):
            x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", use_bias=False)(x)))
        return x

    fine = conv(x, 8)
    middle = conv(layers.MaxPooling2D()(fine), 16)
    coarse = conv(layers.MaxPooling2D()(middle), 32)
    x = conv(layers.MaxPooling2D()(coarse), 48)
    for skip, width in ((coarse, 32), (middle, 16)):
        x = layers.UpSampling2D(interpolation="bilinear")(x)
        x = conv(layers.Concatenate()([x, skip]), width)
    x = layers.Conv2DTranspose(8, 2, 2)(x)
    x = conv(layers.Concatenate()([x, fine]), 8)
    return layers.Conv2D(11, 1, activation="softmax", name="class")(x)


def transformer(keras: Any, x: Any) -> Any:
    """Return an encoder over patches (Dosovitskiy et al. 2020): layer norm, attention, GELU."""
    layers = keras.layers
    x = layers.Permute((1, 3, 2, 4))(layers.Reshape((7, 4, 7, 4))(x))
    x = layers.Reshape((49, 16))(x)
    # A bias per token and channel is the position embedding.
    x = layers.EinsumDense("btf,fd->btd", (49, 48), bias_axes="td")(x)
    for _ in range(3):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 12)(y, y)])
        y = layers.Dense(96, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(48)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return layers.Dense(10, activation="softmax", name="digit")(x)


def convnext(keras: Any, x: Any) -> Any:
    """Return blocks of ConvNeXt (Liu et al. 2022): depthwise convolution, layer norm, GELU between dense layers."""
    layers = keras.layers

    def norm(x: Any) -> Any:
        return layers.LayerNormalization(epsilon=1e-6)(x)

    x = norm(layers.Conv2D(24, 4, 4)(x))
    for width in (24, 24, 40):
        if width != x.shape[-1]:
            x = layers.Conv2D(width, 2, 2, "same")(norm(x))
        y = norm(layers.DepthwiseConv2D(5, padding="same")(x))
        y = layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))
        x = layers.Add()([x, y])
    return layers.Dense(10, activation="softmax", name="digit")(norm(layers.GlobalAveragePooling2D()(x)))


def shufflenet(keras: Any, x: Any) -> Any:
    """Return units of ShuffleNetV2 (Ma et al. 2018): channels are split, joined and shuffled."""
    layers = keras.layers

    def conv(x: Any, width: int) -> Any:
        return layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, 1, use_bias=False)(x)))

    def depthwise(x: Any, stride: int) -> Any:
        return layers.BatchNormalization()(layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x))

    def shuffled(left: Any, right: Any) -> Any:
        joined = layers.Concatenate()([left, right])
        _, height, width, channels = joined.shape
        pairs = layers.Permute((1, 2, 4, 3))(layers.Reshape((height, width, 2, channels // 2))(joined))
        return layers.Reshape((height, width, channels))(pairs)

    def unit(x: Any) -> Any:
        half = x.shape[-1] // 2
        return shuffled(x[..., :half], conv(depthwise(conv(x[..., half:], half), 1), half))

    def smaller(x: Any, width: int) -> Any:
        return shuffled(conv(depthwise(x, 2), width), conv(depthwise(conv(x, width), 2), width))

    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(24, 3, 2, "same", use_bias=False)(x)))
    x = unit(smaller(unit(unit(smaller(unit(unit(x)), 24))), 48))
    return _classified(keras, conv(x, 96))


def lstm(keras: Any, x: Any) -> Any:
    """Return an LSTM over the rows of an image."""
    layers = keras.layers
    x = layers.LSTM(48)(layers.Reshape((28, 28))(x))
    return layers.Dense(10, activation="softmax", name="digit")(x)


#: The networks by name.
NETS = {
    "mobilenet_v1": Net((28, 28, 1), mobilenet_v1),
    "mobilenet_v1_wide": Net((28, 28, 1), mobilenet_v1_wide),
    "mobilenet_v2": Net((28, 28, 1), mobilenet_v2),
    "resnet": Net((28, 28, 1), resnet),
    "silu_se": Net((48, 48, 3), silu_se, epochs=6),
    "unet": Net((48, 48, 3), unet, target="classes", epochs=4),
    "transformer": Net((28, 28, 1), transformer, epochs=8, rate=2e-3),
    "convnext": Net((28, 28, 1), convnext, epochs=4, rate=2e-3),
    "shufflenet": Net((28, 28, 1), shufflenet),
    "lstm": Net((28, 28, 1), lstm, epochs=5),
}
