"""A lowered graph computes what the runtime does, sample by sample, and its gradients are slopes."""

import subprocess
import sys

import builders
import numpy as np
import pytest
import state_models
from ptq_models import noise_gains

from edgepack.graph import read_model
from edgepack.quantize.ptq.lowering import LoweredModel

pytestmark = pytest.mark.slow

MODELS = {
    "classifier": builders.classifier,
    "two": builders.two_in_two_out,
    "alone": builders.standing_alone,
}


def batch_of(tflite: bytes, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    samples = builders.samples(tflite, count, seed)
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def runtime_values(
    tflite: bytes, inputs: dict[str, np.ndarray], indices: list[int] | None = None
) -> dict[int, np.ndarray]:
    """Activations in the runtime, one row per sample."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    model = read_model(tflite)
    interpreter = Interpreter(
        model_content=tflite,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    indices = indices or [i for op in model.main.ops for i in op.outputs]
    rows: dict[int, list[np.ndarray]] = {index: [] for index in indices}
    for number in range(len(next(iter(inputs.values())))):
        interpreter.reset_all_variables()
        for name, index in zip(model.input_names(), model.main.inputs, strict=True):
            interpreter.set_tensor(index, inputs[name][number])
        interpreter.invoke()
        for index in indices:
            rows[index].append(interpreter.get_tensor(index))
    return {index: np.stack(row) for index, row in rows.items()}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_activation_equals_the_runtimes(make):
    """Three different samples in one batch, eagerly and in a function, give the runtime's activations."""
    import tensorflow as tf

    tflite = make()
    lowered = LoweredModel(tflite)
    assert not lowered.boundaries
    inputs = batch_of(tflite, 3)
    expected = runtime_values(tflite, inputs)
    for values in (lowered.run(inputs), tf.function(lowered.run)(inputs)):
        assert set(values) == {*lowered.graph.inputs, *expected} == set(lowered.shapes)
        for index, array in expected.items():
            np.testing.assert_allclose(values[index].numpy(), array, rtol=1e-4, atol=1e-5)


def test_gradients_are_slopes():
    """Gradients of an input and of replaced weights predict the effect of a small step along them."""
    import tensorflow as tf

    tflite = builders.classifier()
    lowered = LoweredModel(tflite)
    logits = lowered.graph.ops[-1].inputs[0]
    kernel = lowered.graph.ops[0].inputs[1]
    x = tf.constant(batch_of(tflite, 2)["image"])
    weights = tf.constant(lowered.constants[kernel])
    signs = np.random.default_rng(0).normal(size=(2, 1, 10)).astype(np.float32)

    def value(x, weights):
        return tf.reduce_sum(lowered.run({"image": x}, constants={kernel: weights}, stop=[logits])[logits] * signs)

    with tf.GradientTape() as tape:
        tape.watch([x, weights])
        result = value(x, weights)
    for number, gradient in enumerate(tape.gradient(result, [x, weights])):
        step = 1e-3 * gradient / tf.norm(gradient)
        moved, back = ([p + s * step if n == number else p for n, p in enumerate((x, weights))] for s in (1, -1))
        slope = (value(*moved) - value(*back)) / (2e-3)
        np.testing.assert_allclose(slope, tf.norm(gradient), rtol=0.02)


def test_blocks_and_transforms():
    """From given activations only what follows is computed, and consumers receive what `transform` returns."""
    tflite = builders.classifier()
    lowered = LoweredModel(tflite)
    inputs = batch_of(tflite, 2)
    values = lowered.run(inputs)
    first, last = lowered.graph.ops[0].outputs[0], lowered.graph.outputs[0]
    again = lowered.run({}, start={first: values[first]}, stop=[last])
    assert set(again) == {last}
    np.testing.assert_array_equal(again[last], values[last])
    with pytest.raises(ValueError, match="cannot be computed"):
        lowered.run({}, start={last: values[last]}, stop=[first])
    calls = []

    def halve(index, value):
        calls.append(index)
        return value * 0.5 if index == first else value

    changed = lowered.run(inputs, transform=halve)
    assert calls == [*lowered.graph.inputs, *(op.outputs[0] for op in lowered.graph.ops)]
    expected = lowered.run({}, start={first: values[first] * 0.5}, stop=[last])
    np.testing.assert_array_equal(changed[last], expected[last])


def test_importing_the_package_is_light():
    """Only the creation of a lowered model imports TensorFlow."""
    code = "import sys, edgepack.quantize.ptq.noise_gain; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_state_starts_anew_with_every_sample():
    """A resource variable is read at its initial value for each sample, and gradients pass around it."""
    import tensorflow as tf

    lowered = LoweredModel(state_models.memory())
    x = tf.random.stateless_normal([3, 1, 4], [0, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        (result,) = lowered.run({"x": x}, stop=lowered.graph.outputs).values()
    np.testing.assert_array_equal(result, x)
    np.testing.assert_array_equal(tape.gradient(result, x), np.ones((3, 1, 4)))
    assert {lowered.graph.ops[index].name for index in lowered.boundaries} <= {
        "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE",
    }  # fmt: skip


def test_a_root_of_zero_has_a_gradient():
    """Where nothing varies a standard deviation is 0, and the gradients of what it is computed from stay finite."""
    net = builders.Net()
    x, square, root, end = (net.tensor(name, (1, 4)) for name in ("x", "square", "root", "end"))
    net.op("MUL", [x, net.constant("zero", [1.0, 0.0, 1.0, 0.0])], [square])
    net.op("MUL", [square, square], [end])
    net.op("SQRT", [end], [root])
    tflite = net.build([x], [root])
    result = noise_gains(tflite, builders.samples(tflite, 4), {})
    assert set(result) == {x, square, end, root}
    assert (result[x].total[[0, 2]] > 0).all() and not result[x].total[[1, 3]].any()
