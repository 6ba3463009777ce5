"""Models whose last ops an Edge TPU does not support, made by the real converter in a child process.

The input of every model is `image` (1, 8, 8, 3) in [0, 1].
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from builders import Net

from edgepack.bundle.spec import BundleSpec, tensor_spec
from edgepack.child import Worker
from edgepack.choices import Repair
from edgepack.graph import Model, read_model
from edgepack.repair import Repaired, repair
from edgepack.runtime.runner import model_outputs

SHAPE = (1, 8, 8, 3)
STEPS = ("ARG_MAX", "SOFTMAX", "DEQUANTIZE")


def images(count: int, seed: int = 5) -> np.ndarray:
    """Return images with one dominant colour, so that classes differ."""
    generator = np.random.default_rng(seed)
    colours = generator.uniform(0, 1, (count, 1, 1, 3))
    return np.clip(colours + generator.normal(0, 0.15, (count, *SHAPE[1:])), 0, 1).astype(np.float32)


def make(folder: str) -> None:
    """Write the models into a folder.

    `classes` is a SavedModel with two ARG_MAX, classes.tflite and classes_int8.tflite are conversions of it;
    probabilities.tflite is int8 with float SOFTMAX, inputs and outputs, numbers.tflite int8 with float inputs and
    outputs.
    """
    import tensorflow as tf

    generator = np.random.default_rng(2)
    kernel = tf.constant(generator.normal(0, 0.4, (3, 3, 3, 8)), tf.float32)
    pixelwise = tf.constant(generator.normal(0, 1, (1, 1, 8, 4)), tf.float32)
    weights = tf.constant(generator.normal(0, 0.5, (8 * 8 * 8, 6)), tf.float32)
    signature = tf.TensorSpec(SHAPE, tf.float32, name="image")
    values = images(60)

    def features(image: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(tf.nn.conv2d(image - 0.5, kernel, 1, "SAME"))

    def logits(image: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.reshape(features(image), (1, -1)), weights)

    @tf.function(input_signature=[signature])
    def classes(image: tf.Tensor) -> dict[str, tf.Tensor]:
        places = tf.nn.conv2d(features(image), pixelwise, 1, "SAME")
        return {"class": tf.argmax(logits(image), -1), "map": tf.argmax(places, 3, tf.int32)}

    module = tf.Module()
    module.classes = classes
    tf.saved_model.save(module, f"{folder}/classes", {"serving_default": classes})
    converter = tf.lite.TFLiteConverter.from_saved_model(f"{folder}/classes")
    Path(folder, "classes.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([value[None]] for value in values)
    Path(folder, "classes_int8.tflite").write_bytes(converter.convert())
    for name, function in (("probabilities", lambda image: tf.nn.softmax(logits(image))), ("numbers", logits)):
        traced = tf.function(function, input_signature=[signature]).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([value[None]] for value in values)
        # The debugger keeps an op in float, as users do when it loses too much accuracy in int8.
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=["SOFTMAX"])
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
        )
        Path(folder, f"{name}.tflite").write_bytes(debugger.get_nondebug_quantized_model())


def scaled() -> bytes:
    """Return a float model without signature that ends in SOFTMAX with a beta."""
    net = Net()
    image, brighter = net.tensor("image", SHAPE), net.tensor("brighter", SHAPE)
    net.op("RELU", [image], [brighter])
    result = net.tensor("shares", SHAPE)
    net.op("SOFTMAX", [brighter], [result], beta=0.7)
    return net.build([image], [result])


def cut(tflite: bytes) -> Repaired:
    """Cut all last ops that a loader can do."""

    def score(model: Model) -> frozenset[int]:
        return frozenset(op.outputs[0] for op in model.main.ops if op.name in STEPS)

    return repair(tflite, score, mode=Repair.NONE, cut_tail=True)


def with_tail(make_spec: Callable[..., BundleSpec], tflite: bytes, *arguments: object, **changes: object) -> BundleSpec:
    """Return the spec of a cut file with the steps that were cut."""
    repaired = cut(tflite)
    spec = make_spec(repaired.tflite, *arguments, **changes)
    outputs = (
        tensor_spec(info, tail=[step for step in repaired.postprocessing if step.output == position])
        for position, info in enumerate(model_outputs(read_model(repaired.tflite)))
    )
    return replace(spec, outputs=tuple(outputs))


def make_folder(folder: Path) -> Path:
    """Write the models and samples.npz to a folder."""
    with Worker(writable=[folder]) as worker:
        worker.call("postprocessing_models:make", str(folder), timeout=300)
    (folder / "scaled.tflite").write_bytes(scaled())
    np.savez(folder / "samples.npz", image=images(60))
    return folder
