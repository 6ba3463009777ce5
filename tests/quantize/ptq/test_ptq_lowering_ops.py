"""Each op that is lowered computes what the runtime's kernel does, for a batch of different samples."""

import numpy as np
import pytest
from lowering_cases import CASES, convert
from lowering_kernels import KERNELS, Kernels, kernels
from test_ptq_lowering import runtime_values

from edgepack.errors import QuantizationError
from edgepack.graph import NUMPY_DTYPES, read_model
from edgepack.quantize.ptq.lowering import LoweredModel

pytestmark = pytest.mark.slow


def random_inputs(tflite: bytes, count: int) -> dict[str, np.ndarray]:
    model, random = read_model(tflite), np.random.default_rng(0)
    tensors = [model.main.tensors[index] for index in model.main.inputs]
    return {
        name: (random.normal(0, 1 if tensor.is_float else 9, (count, *tensor.shape))).astype(NUMPY_DTYPES[tensor.dtype])
        for name, tensor in zip(model.input_names(), tensors, strict=True)
    }


@pytest.mark.parametrize("name", [*CASES, *KERNELS])
def test_results_equal_the_runtimes(name):
    """No op is a boundary, and every output of three samples in one batch equals the runtime's."""
    tflite = convert(name) if name in CASES else kernels(name)
    lowered = LoweredModel(tflite)
    assert not lowered.boundaries
    inputs = random_inputs(tflite, 3)
    outputs = [index for index in dict.fromkeys(lowered.graph.outputs) if index in lowered.graph.producers]
    values = lowered.run(inputs, stop=outputs)
    expected = runtime_values(tflite, inputs, outputs)
    for index in outputs:
        op = lowered.graph.ops[lowered.graph.producers[index]]
        message = f"{op.name} {dict(op.options)}"
        np.testing.assert_allclose(values[index].numpy(), expected[index], rtol=1e-4, atol=1e-5, err_msg=message)


def test_an_unknown_op_is_a_boundary():
    """What an op without a counterpart computes comes from the runtime, and gradients take the other paths."""
    import tensorflow as tf

    net = Kernels()
    x = net.input(1, 6)
    a = net.add("TANH", [x], (1, 6))
    bits = net.add("LSH_PROJECTION", [net.values(4, 8), a], (32,), dtype="INT32", type=2)
    net.add("MUL", [a, net.add("CAST", [net.add("SLICE", [bits, net.ints(0), net.ints(6)], (6,), dtype="INT32")],
                               (6,))], (1, 6))  # fmt: skip
    tflite = net.bytes()
    lowered = LoweredModel(tflite)
    assert [lowered.graph.ops[index].name for index in lowered.boundaries] == ["LSH_PROJECTION"]
    inputs = random_inputs(tflite, 3)
    expected = runtime_values(tflite, inputs)
    assert np.ptp(expected[bits], axis=0).any()
    (last,) = lowered.graph.ops[-1].outputs
    value = tf.constant(inputs["in0"])

    def compute(value):
        return lowered.run({"in0": value}, stop=[bits, last])

    with tf.GradientTape() as tape:
        tape.watch(value)
        values = compute(value)
        total = tf.reduce_sum(values[last])
    for result in (values, tf.function(compute)(value)):
        np.testing.assert_array_equal(result[bits], expected[bits])
        np.testing.assert_allclose(result[last], expected[last], rtol=1e-5, atol=1e-6)
    slope = (1.0 - np.tanh(inputs["in0"]) ** 2) * expected[bits][:, None, :6]
    np.testing.assert_allclose(tape.gradient(total, value), slope, rtol=1e-3, atol=1e-6)
    described = LoweredModel(read_model(tflite))
    hidden = lowered.boundary_values({"in0": value}, [a, bits])
    np.testing.assert_allclose(described.run({}, start=hidden, stop=[last])[last], expected[last], rtol=1e-5, atol=1e-6)
    with pytest.raises(QuantizationError):
        described.run({"in0": value}, stop=[last])
