"""Builds models that live in this process, at the top level of a script: `python live_program.py FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

import edgepack
from edgepack.digests import hash_path

FOLDER = Path(sys.argv[1])
X = np.random.default_rng(1).normal(size=(40, 8, 8, 1)).astype(np.float32)
report: dict[str, Any] = {}


class Twice(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x * 2


class Module(tf.Module):
    def __init__(self) -> None:
        super().__init__(name="affine")
        self.w = tf.Variable(tf.random.stateless_normal([64, 4], seed=[1, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")])
    def __call__(self, image: Any) -> Any:
        return {"score": tf.nn.relu(tf.reshape(image, [-1, 64]) @ self.w)}


class Bare(tf.Module):
    def __call__(self, x: Any) -> Any:
        return x


def net(library: Any, name: str, *own: Any) -> Any:
    library.utils.set_random_seed(5)
    image = library.Input((8, 8, 1), name="image")
    x = library.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    for layer in own:
        x = layer(x)
    x = library.layers.Flatten(name="flat")(x)
    return library.Model(image, library.layers.Dense(3, activation="softmax", name="class")(x), name=name)


def build(model: Any, out: Path, messages: list[str], **options: Any) -> edgepack.BuildResult:
    return edgepack.build(model, "cpu", samples=X, scheme="int8", out=out, progress=messages.append, **options)


models = {
    "keras": net(keras, "three"),
    "tf_keras": net(tf_keras, "two"),
    "layer of its own": net(keras, "own", Twice(name="twice")),
    "module": Module(),
}
for kind, model in models.items():
    again: list[str] = []
    place = FOLDER / kind.replace(" ", "-")
    first = build(model, place / "first", [])
    second = build(model, place / "second", again)
    report[kind] = {
        "ok": first.ok and second.ok and first.bundle is not None and edgepack.verify(first.bundle).ok,
        "error": None if first.error is None else first.error.message,
        "snr": None if first.quality is None else first.quality.snr_db,
        "same files": hash_path(first.bundle) == hash_path(second.bundle) if first.bundle and second.bundle else False,
        "again": again,
        "source": first.source.get("sha256"),
    }

model = models["keras"]
model.layers[-1].set_weights([2 * value for value in model.layers[-1].get_weights()])
messages: list[str] = []
changed = edgepack.check(model, "cpu", progress=messages.append)
report["changed weights"] = {
    "messages": messages,
    "source": edgepack.build(model, "cpu", scheme="float32", dry_run=True).source["sha256"],
}

read = 0


def images() -> Any:
    global read  # noqa: PLW0603
    while True:
        read += 1
        yield X[read % 40]


endless = tf.data.Dataset.from_generator(images, output_signature=tf.TensorSpec([8, 8, 1], tf.float32)).batch(5)
calibrated = edgepack.build(model, "cpu", samples=endless, calibration_samples=30, scheme="int8", dry_run=True)
report["dataset"] = {"ok": calibrated.ok, "read": read}
errors = {}
for name, call in {
    "endless eval": lambda: edgepack.build(
        model, "cpu", eval=tf.data.Dataset.from_tensors(X[0]).repeat(), scheme="float32", dry_run=True
    ),
    "no signature": lambda: edgepack.check(Bare(), "cpu"),
    "no function": lambda: edgepack.check(tf.Module(), "cpu"),
    "no weights": lambda: edgepack.check(keras.Sequential([keras.layers.Dense(3)]), "cpu"),
    "training of a module": lambda: edgepack.train(Module(), data=(X, np.zeros(40)), out=FOLDER / "trained"),
    "training of code": lambda: edgepack.train(
        models["layer of its own"], data=(X, np.zeros(40)), out=FOLDER / "trained"
    ),
}.items():
    try:
        call()
        errors[name] = ("", "")
    except edgepack.EdgepackError as error:
        errors[name] = (error.message, error.hint)
report["dataset"]["endless eval"] = errors["endless eval"][0]
report["errors"] = errors
(FOLDER / "report.json").write_text(json.dumps(report))
