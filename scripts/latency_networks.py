"""Networks with published Edge TPU latencies, built as their papers and reference code describe them.

Only architectures that can be built exactly are here. Left out: detectors and DeepLab (ops on the host's CPU), U-Net,
BodyPix, MoveNet and EfficientDet (the published models' layers are not documented well enough), Inception V3 of
12 MB (not the published network, which has 24 MB), Inception-ResNet V2 (57 ms on
USB 3 are less than its parameters take on the bus).
"""

import math
from collections.abc import Callable
from typing import Any

#: Published name and input -> function that returns the Keras model.
NETWORKS: dict[tuple[str, str], Callable[[], Any]] = {}


def network(name: str, size: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a network under its name and input in the published tables."""

    def add(build: Callable[[], Any]) -> Callable[[], Any]:
        NETWORKS[name, size] = build
        return build

    return add


def _application(name: str, size: int, **options: Any) -> Any:
    import keras

    return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), **options)


network("MobileNet V1 0.25", "128x128")(lambda: _application("MobileNet", 128, alpha=0.25))
network("MobileNet V1 1.0", "224x224")(lambda: _application("MobileNet", 224))
network("MobileNet V2 1.0", "224x224")(lambda: _application("MobileNetV2", 224))
network("DenseNet", "224x224")(lambda: _application("DenseNet121", 224))
network("ResNet-50 V1", "299x299")(lambda: _application("ResNet50", 299))
network("ResNet-50 V2", "299x299")(lambda: _application("ResNet50V2", 299))
network("ResNet-152 V2", "299x299")(lambda: _application("ResNet152V2", 299))
network("VGG16", "224x224")(lambda: _application("VGG16", 224))
network("VGG19", "224x224")(lambda: _application("VGG19", 224))


def _conv(x: Any, filters: int, kernel: Any = 1, strides: int = 1, padding: str = "same", relu: bool = True) -> Any:
    """Convolution with batch normalization, which the converter folds."""
    from keras import layers

    x = layers.Conv2D(filters, kernel, strides, padding, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if relu else x


def _classifier(inputs: Any, x: Any, classes: int = 1001) -> Any:
    import keras
    from keras import layers

    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x))


@network("Inception V1", "224x224")
def inception_v1() -> Any:
    """slim/nets/inception_v1.py of tensorflow/models: 3 x 3 in place of the paper's 5 x 5."""
    import keras
    from keras import layers

    inputs = keras.Input((224, 224, 3))
    x = _conv(inputs, 64, 7, 2)
    x = layers.MaxPooling2D(3, 2, "same")(x)
    x = _conv(_conv(x, 64), 192, 3)
    x = layers.MaxPooling2D(3, 2, "same")(x)
    blocks = (
        (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), "pool3",
        (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128), "pool2",
        (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
    )  # fmt: skip
    for block in blocks:
        if isinstance(block, str):
            x = layers.MaxPooling2D(int(block[-1]), 2, "same")(x)
            continue
        one, reduce3, three, reduce5, five, pool = block
        pooled = layers.MaxPooling2D(3, 1, "same")(x)
        branches = [_conv(x, one), _conv(_conv(x, reduce3), three, 3), _conv(_conv(x, reduce5), five, 3)]
        x = layers.Concatenate()([*branches, _conv(pooled, pool)])
    return _classifier(inputs, x)


@network("Inception V4", "299x299")
def inception_v4() -> Any:
    """Szegedy et al. 2016 (arXiv 1602.07261), figures 3 to 9, as slim/nets/inception_v4.py."""
    import keras
    from keras import layers

    def join(*branches: Any) -> Any:
        return layers.Concatenate()(list(branches))

    def average(x: Any) -> Any:
        return layers.AveragePooling2D(3, 1, "same")(x)

    def shrink(x: Any) -> Any:
        return layers.MaxPooling2D(3, 2, "valid")(x)

    inputs = keras.Input((299, 299, 3))
    x = _conv(_conv(_conv(inputs, 32, 3, 2, "valid"), 32, 3, 1, "valid"), 64, 3)
    x = join(shrink(x), _conv(x, 96, 3, 2, "valid"))
    left = _conv(_conv(x, 64), 96, 3, 1, "valid")
    right = _conv(_conv(_conv(_conv(x, 64), 64, (1, 7)), 64, (7, 1)), 96, 3, 1, "valid")
    x = join(left, right)
    x = join(_conv(x, 192, 3, 2, "valid"), shrink(x))
    for _ in range(4):
        double = _conv(_conv(_conv(x, 64), 96, 3), 96, 3)
        x = join(_conv(x, 96), _conv(_conv(x, 64), 96, 3), double, _conv(average(x), 96))
    double = _conv(_conv(_conv(x, 192), 224, 3), 256, 3, 2, "valid")
    x = join(_conv(x, 384, 3, 2, "valid"), double, shrink(x))
    for _ in range(7):
        once = _conv(_conv(_conv(x, 192), 224, (1, 7)), 256, (7, 1))
        twice = _conv(_conv(_conv(x, 192), 192, (7, 1)), 224, (1, 7))
        twice = _conv(_conv(twice, 224, (7, 1)), 256, (1, 7))
        x = join(_conv(x, 384), once, twice, _conv(average(x), 128))
    small = _conv(_conv(x, 192), 192, 3, 2, "valid")
    large = _conv(_conv(_conv(_conv(x, 256), 256, (1, 7)), 320, (7, 1)), 320, 3, 2, "valid")
    x = join(small, large, shrink(x))
    for _ in range(3):
        split = _conv(x, 384)
        deep = _conv(_conv(_conv(x, 384), 448, (3, 1)), 512, (1, 3))
        wide = (_conv(split, 256, (1, 3)), _conv(split, 256, (3, 1)))
        last = (_conv(deep, 256, (1, 3)), _conv(deep, 256, (3, 1)))
        x = join(_conv(x, 256), *wide, *last, _conv(average(x), 256))
    return _classifier(inputs, x)


@network("SqueezeNet", "224x224")
def squeezenet() -> Any:
    """Iandola et al. 2016 (arXiv 1602.07360), table 1; the published rows do not say whether they are of 1.0 or 1.1."""
    import keras
    from keras import layers

    def fire(x: Any, squeeze: int, expand: int) -> Any:
        x = layers.Conv2D(squeeze, 1, activation="relu")(x)
        one = layers.Conv2D(expand, 1, activation="relu")(x)
        three = layers.Conv2D(expand, 3, padding="same", activation="relu")(x)
        return layers.Concatenate()([one, three])

    inputs = keras.Input((224, 224, 3))
    x = layers.Conv2D(96, 7, 2, activation="relu")(inputs)
    x = layers.MaxPooling2D(3, 2)(x)
    for squeeze, expand in ((16, 64), (16, 64), (32, 128)):
        x = fire(x, squeeze, expand)
    x = layers.MaxPooling2D(3, 2)(x)
    for squeeze, expand in ((32, 128), (48, 192), (48, 192), (64, 256)):
        x = fire(x, squeeze, expand)
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Conv2D(1000, 1, activation="relu")(fire(x, 64, 256))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Softmax()(x))


#: (repeats, kernel, stride, expansion, filters, fused) of each stage: efficientnet_edgetpu_builder.py of
#: tensorflow/tpu/models/official/efficientnet/edgetpu.
_EDGETPU_STAGES = (
    (1, 3, 1, 4, 24, True), (2, 3, 2, 8, 32, True), (4, 3, 2, 8, 48, True),
    (5, 5, 2, 8, 96, False), (4, 5, 1, 8, 144, False), (2, 5, 2, 8, 192, False),
)  # fmt: skip


def _efficientnet_edgetpu(size: int, width: float, depth: float) -> Any:
    import keras
    from keras import layers

    def filters(count: int) -> int:
        scaled = count * width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    inputs = keras.Input((size, size, 3))
    x = _conv(inputs, filters(32), 3, 2)
    for stage, (repeats, kernel, stride, expansion, outputs, fused) in enumerate(_EDGETPU_STAGES):
        for repeat in range(math.ceil(repeats * depth)):
            strides = stride if repeat == 0 else 1
            before, channels = x, x.shape[-1]
            if fused:
                x = _conv(x, channels * expansion, kernel, strides)
            else:
                x = _conv(x, channels * expansion)
                x = layers.DepthwiseConv2D(kernel, strides, "same", use_bias=False)(x)
                x = layers.ReLU()(layers.BatchNormalization()(x))
            x = _conv(x, filters(outputs), relu=False)
            # The first stage is built without a skip connection.
            if strides == 1 and stage > 0 and before.shape[-1] == x.shape[-1]:
                x = layers.Add()([before, x])
    return _classifier(inputs, _conv(x, filters(1280)))


network("EfficientNet-EdgeTpu-S", "224x224")(lambda: _efficientnet_edgetpu(224, 1.0, 1.0))
network("EfficientNet-EdgeTpu-M", "240x240")(lambda: _efficientnet_edgetpu(240, 1.0, 1.1))
network("EfficientNet-EdgeTpu-L", "300x300")(lambda: _efficientnet_edgetpu(300, 1.2, 1.4))


def _posenet(height: int, width: int) -> Any:
    """MobileNet V1 0.75 with 384 channels at most and four heads, without the decoder, which runs on the host.

    Layers of posenet_mobilenet_v1_075_353_481_quant_decoder.tflite of google-coral/test_data.
    """
    import keras
    from keras import layers

    inputs = keras.Input((height, width, 3))
    x = _conv(inputs, 24, 3, 2)
    stages = ((48, 1), (96, 2), (96, 1), (192, 2), (192, 1), (384, 2), *((384, 1),) * 7)
    for filters, strides in stages:
        x = layers.DepthwiseConv2D(3, strides, "same", use_bias=False)(x)
        x = _conv(layers.ReLU()(layers.BatchNormalization()(x)), filters)
    heads = [layers.Conv2D(filters, 1)(x) for filters in (17, 34, 32, 32)]
    return keras.Model(inputs, [*heads[:2], layers.Concatenate()(heads[2:])])


network("PoseNet MobileNet V1 0.75", "353x481")(lambda: _posenet(353, 481))
network("PoseNet MobileNet V1 0.75", "721x1281")(lambda: _posenet(721, 1281))
