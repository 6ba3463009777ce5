import builders
import numpy as np
import pytest
from ptq_models import chain, residual

from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.clipping_error import THRESHOLDS, channel_statistics
from edgepack.quantize.ptq.network import Network, NotDifferentiable
from edgepack.quantize.ptq.noise_gain import noise_gains
from edgepack.quantize.ptq.noise_minimization import minimize_noise
from edgepack.quantize.ptq.steps import improve
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges

RULE = SchemeRule("int8", "INT8")


def _batch(tflite: bytes, count: int, seed: int = 0) -> np.ndarray:
    return np.concatenate([next(iter(s.values())) for s in builders.samples(tflite, count, seed=seed)])


def _pool(kind: str, padding: int) -> bytes:
    """Conv, pool with a stride and padding, dense."""
    net = builders.Net(7)
    x = net.tensor("x", (1, 7, 7, 2))
    a = net.conv(x, "conv", (1, 7, 7, 2), 4, "RELU")
    b = net.tensor("pool", (1, 4, 4, 4) if padding == 0 else (1, 3, 3, 4))
    net.op(kind, [a], [b], strideW=2, strideH=2, filterWidth=3, filterHeight=3, padding=padding)
    flat = net.tensor("flat", (1, 4 * (16 if padding == 0 else 9)))
    net.op("RESHAPE", [b, net.constant("shape", [1, -1], "INT32")], [flat])
    end = net.tensor("end", (1, 3))
    size = 4 * (16 if padding == 0 else 9)
    net.op("FULLY_CONNECTED", [flat, net.weights("fc/kernel", 3, size), net.weights("fc/bias", 3)], [end])
    return net.build([x], [end], (["image"], ["classes"]))


MODELS = {
    "chain": lambda: chain("RELU", 2.0),
    "chain6": lambda: chain("RELU6", 2.0),
    "residual": residual,
    "average": lambda: _pool("AVERAGE_POOL_2D", 0),
    "largest": lambda: _pool("MAX_POOL_2D", 0),
    "valid": lambda: _pool("AVERAGE_POOL_2D", 1),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_batch_computes_what_the_runtime_does(make):
    """The logits that NumPy computes for a batch of five samples equal the runtime's for each sample."""
    tflite = make()
    network = Network(tflite)
    actual = network.forward([_batch(tflite, 5)]).activations[network.logits[0]]
    expected = np.concatenate([out[0] for out in logits(tflite, builders.samples(tflite, 5))])
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_gradients_are_slopes(make):
    """The gradients of inputs and constants predict the effect of a small step along them on the logits."""
    tflite = make()
    network = Network(tflite)
    x = _batch(tflite, 2).astype(np.float32)
    random = np.random.default_rng(1)
    tape = network.forward([x])
    out = network.logits[0]
    signs = random.normal(size=tape.activations[out].shape).astype(np.float32)
    gradients = network.backward(tape, {out: signs})

    def value() -> float:
        return float(np.vdot(network.forward([x]).activations[out].astype(np.float64), signs))

    layers = {i for op in network.ops for i in op.inputs if i in network.constants and i in gradients}
    assert layers
    for array, gradient in [
        (x, gradients[network.inputs[0]]),
        *((network.constants[i], gradients[i]) for i in sorted(layers)),
    ]:
        direction = (gradient / np.linalg.norm(gradient)).astype(np.float32)
        step = 1e-3 * max(1.0, float(np.linalg.norm(array)))
        original = array.copy()
        array += step * direction
        above = value()
        array[...] = original - step * direction
        below = value()
        array[...] = original
        assert (above - below) / (2 * step) == pytest.approx(float(np.linalg.norm(gradient)), rel=0.05)


def test_gains_predict_noise():
    """Noise in a hidden activation adds the noise that its gains predict to the logits, within 20 %."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 32)
    network = Network(tflite)
    index = tensor_keys(network.graph).index("point")
    tape = network.forward([_batch(tflite, 32)])
    values = tape.activations[index]
    random = np.random.default_rng(2)
    noise = (random.normal(0, 1e-3, (20, *values.shape)) * (values != 0)).astype(np.float32)
    last = [op for op in network.ops if op.index > network.graph.producers[index]]
    power = 0.0
    for one in noise:
        moved = Network(tflite)
        moved.ops, moved.inputs = last, (index,)
        noisy = moved.forward([values + one]).activations[network.logits[0]]
        power += float(np.square(noisy - tape.activations[network.logits[0]], dtype=np.float64).sum()) / len(noise) / 32
    expected = 1e-6 * float(noise_gains(tflite, samples)[index].active.sum())
    assert power == pytest.approx(expected, rel=0.2)


def test_an_unknown_op_is_named():
    """A graph with an op without a known gradient is refused by name, and improved without the estimate."""
    net = builders.Net(1)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "conv", (1, 8, 8, 3), 4, "NONE")
    b = net.tensor("b", (1, 8, 8, 4))
    net.op("SIN", [a], [b])
    tflite = net.build([x], [b], (["image"], ["out"]))
    with pytest.raises(NotDifferentiable, match="SIN"):
        Network(tflite)
    result = improve(tflite, RULE, builders.samples(tflite, 12), "medium", off=("ranges", "bias"))
    assert {s.id: (s.kept, s.detail) for s in result.steps}["balance"] == (False, "no gradient for SIN")


def test_clipping_error_extends_beyond_the_samples():
    """Clipping error decreases with the bound, matches the samples below their maximum and is positive beyond it."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 50)
    index = tensor_keys(read_model(tflite).main).index("dense")
    statistics = channel_statistics(tflite, [index], samples)[index]
    outputs = np.concatenate([out[0] for out in logits(tflite, samples)])
    np.testing.assert_allclose(
        statistics.peak, [np.maximum(-outputs.min(0), 0), np.maximum(outputs.max(0), 0)], rtol=1e-5
    )
    assert (np.diff(statistics.clipped, axis=1) <= 1e-12).all()
    half = statistics.peak[1] * 0.5
    cut = np.square(np.maximum(outputs - half, 0)).sum(axis=0) / 50
    near = int(np.argmin(np.abs(THRESHOLDS - 0.5)))
    assert THRESHOLDS[near] == pytest.approx(0.5)
    assert (statistics.clipping_error(1, half) >= cut * 0.999 - 1e-9).all()
    active = statistics.peak[1] > 0
    assert (statistics.clipping_error(1, statistics.peak[1] * 1.02)[active] > 0).any()
    assert (statistics.clipping_error(1, statistics.peak[1] * 2.0) == 0).all()


def test_expected_clipping_error_is_leave_one_out():
    """The next sample is expected to exceed the largest value as the largest exceeds the second largest."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 30)
    index = tensor_keys(read_model(tflite).main).index("dense")
    statistics = channel_statistics(tflite, [index], samples)[index]
    outputs = np.sort(np.concatenate([out[0] for out in logits(tflite, samples)]), axis=0)[::-1]
    live = outputs[1] > 0
    over = np.minimum(outputs[0, live] / outputs[1, live], 1.5) - 1.0
    assert over.max() > 0
    np.testing.assert_allclose(
        statistics.clipping_error(1, statistics.peak[1])[live],
        np.square(over).mean() * np.square(outputs[0, live]) / 30,
        rtol=1e-4,
    )


def test_clipping_gain_depends_on_where_clipping_occurs():
    """Clipping what RELU drops after a sum has a low gain; clipping that adds up over an image has a high one."""
    net = builders.Net(8)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "stem", (1, 8, 8, 3), 8, "RELU")
    b = net.conv(a, "branch", (1, 8, 8, 8), 8, "NONE")
    c = net.conv(x, "other", (1, 8, 8, 3), 8, "NONE")
    total = net.tensor("sum", (1, 8, 8, 8))
    net.op("ADD", [b, c], [total], fusedActivationFunction=1)
    end = net.tensor("end", (1, 8))
    net.op("MEAN", [total, net.constant("axes", [1, 2], "INT32")], [end])
    tflite = net.build([x], [end], (["image"], ["scores"]))
    samples = builders.samples(tflite, 32)
    index = tensor_keys(read_model(tflite).main).index("branch")
    peak = channel_statistics(tflite, [index], samples)[index].peak
    below, above = noise_gains(tflite, samples, {index: peak})[index].clipping
    assert below.max() < 0.5 < above.min()
    assert (above > 1.5).any()
    np.testing.assert_array_equal(noise_gains(tflite, samples)[index].clipping, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "clips", "least"), [(chain, False, 4.0), (lambda: chain("RELU6"), True, 0.5), (residual, False, 0.5)]
)
def test_balance_keeps_the_function_and_lowers_the_noise(make, clips, least):
    """Scaled channels keep the float logits, except for rare clipping by RELU6, and reduce the int8 noise."""
    tflite = make()
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 60, seed=9)
    reference = logits(tflite, unseen)
    scaled = minimize_noise(tflite, samples)
    # About the mean: the same model has 2 dB less than with the energy of its offsets counted.
    assert snr_db(reference, logits(scaled.tflite, unseen)) > (27 if clips else 50)
    plain = choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")
    quantized = quantize(scaled.tflite, RULE, {**plain, **scaled.ranges}).tflite
    gain = snr_db(reference, logits(quantized, unseen)) - snr_db(
        reference, logits(quantize(tflite, RULE, plain).tflite, unseen)
    )
    assert gain > least
    ranges_only = minimize_noise(tflite, samples, scale=False)
    assert ranges_only.tflite == tflite
    assert ranges_only.ranges != scaled.ranges
