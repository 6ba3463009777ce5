import builders
import numpy as np
import pytest
from ptq_models import chain, residual

from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq.balance import balance
from edgepack.quantize.ptq.gains import gains
from edgepack.quantize.ptq.network import Network, NotDifferentiable
from edgepack.quantize.ptq.observe import logits, snr_db
from edgepack.quantize.ptq.steps import improve
from edgepack.quantize.ptq.tails import THRESHOLDS, channels_of
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
    """NumPy's logits of five samples at once are the runtime's, one after another."""
    tflite = make()
    network = Network(tflite)
    seen = network.forward([_batch(tflite, 5)]).seen[network.logits[0]]
    want = np.concatenate([out[0] for out in logits(tflite, builders.samples(tflite, 5))])
    np.testing.assert_allclose(seen, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_gradients_are_slopes(make):
    """Each input's and each constant's gradient predicts what a small step along it does to the logits."""
    tflite = make()
    network = Network(tflite)
    x = _batch(tflite, 2).astype(np.float32)
    random = np.random.default_rng(1)
    tape = network.forward([x])
    out = network.logits[0]
    signs = random.normal(size=tape.seen[out].shape).astype(np.float32)
    found = network.backward(tape, {out: signs})

    def value() -> float:
        return float(np.vdot(network.forward([x]).seen[out].astype(np.float64), signs))

    layers = {i for op in network.ops for i in op.inputs if i in network.constants and i in found}
    assert layers
    for array, gradient in [(x, found[network.inputs[0]]), *((network.constants[i], found[i]) for i in sorted(layers))]:
        direction = (gradient / np.linalg.norm(gradient)).astype(np.float32)
        step = 1e-3 * max(1.0, float(np.linalg.norm(array)))
        keep = array.copy()
        array += step * direction
        above = value()
        array[...] = keep - step * direction
        below = value()
        array[...] = keep
        assert (above - below) / (2 * step) == pytest.approx(float(np.linalg.norm(gradient)), rel=0.05)


def test_gains_foretell_noise():
    """Noise in a hidden activation costs the logits what its gains say, within a fifth."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 32)
    network = Network(tflite)
    index = tensor_keys(network.graph).index("point")
    tape = network.forward([_batch(tflite, 32)])
    values = tape.seen[index]
    random = np.random.default_rng(2)
    noise = (random.normal(0, 1e-3, (20, *values.shape)) * (values != 0)).astype(np.float32)
    last = [op for op in network.ops if op.index > network.graph.producers[index]]
    got = 0.0
    for one in noise:
        moved = Network(tflite)
        moved.ops, moved.inputs = last, (index,)
        seen = moved.forward([values + one]).seen[network.logits[0]]
        got += float(np.square(seen - tape.seen[network.logits[0]], dtype=np.float64).sum()) / len(noise) / 32
    expected = 1e-6 * float(gains(tflite, samples)[index].active.sum())
    assert got == pytest.approx(expected, rel=0.2)


def test_an_unknown_op_is_named():
    """A graph with an op whose gradient is not known is refused by name, and improved without the estimate."""
    net = builders.Net(1)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "conv", (1, 8, 8, 3), 4, "NONE")
    b = net.tensor("b", (1, 8, 8, 4))
    net.op("HARD_SWISH", [a], [b])
    tflite = net.build([x], [b], (["image"], ["out"]))
    with pytest.raises(NotDifferentiable, match="HARD_SWISH"):
        Network(tflite)
    done = improve(tflite, RULE, builders.samples(tflite, 12), "medium", off=("ranges", "bias"))
    assert {s.id: (s.kept, s.detail) for s in done.steps}["balance"] == (False, "no gradient for HARD_SWISH")


def test_tails_reach_beyond_the_seen():
    """What a bound cuts off falls with the bound, matches the samples below their maximum, and goes on beyond it."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 50)
    index = tensor_keys(read_model(tflite).main).index("dense")
    found = channels_of(tflite, [index], samples)[index]
    seen = np.concatenate([out[0] for out in logits(tflite, samples)])
    np.testing.assert_allclose(found.reach, [np.maximum(-seen.min(0), 0), np.maximum(seen.max(0), 0)], rtol=1e-5)
    assert (np.diff(found.clipped, axis=1) <= 1e-12).all()
    half = found.reach[1] * 0.5
    cut = np.square(np.maximum(seen - half, 0)).sum(axis=0) / 50
    near = int(np.argmin(np.abs(THRESHOLDS - 0.5)))
    assert THRESHOLDS[near] == pytest.approx(0.5)
    assert (found.cost(1, half) >= cut * 0.999 - 1e-9).all()
    active = found.reach[1] > 0
    assert (found.cost(1, found.reach[1] * 1.02)[active] > 0).any()
    assert (found.cost(1, found.reach[1] * 2.0) == 0).all()


def test_tails_are_those_of_leaving_one_sample_out():
    """Beyond the largest value seen, a sample is expected to reach as the largest reaches beyond the second largest."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 30)
    index = tensor_keys(read_model(tflite).main).index("dense")
    found = channels_of(tflite, [index], samples)[index]
    seen = np.sort(np.concatenate([out[0] for out in logits(tflite, samples)]), axis=0)[::-1]
    live = seen[1] > 0
    over = np.minimum(seen[0, live] / seen[1, live], 1.5) - 1.0
    assert over.max() > 0
    np.testing.assert_allclose(
        found.cost(1, found.reach[1])[live], np.square(over).mean() * np.square(seen[0, live]) / 30, rtol=1e-4
    )


def test_clipping_is_heard_where_it_falls():
    """Cutting off what RELU drops behind a sum is hardly heard; what adds up over a picture is heard louder."""
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
    reach = channels_of(tflite, [index], samples)[index].reach
    below, above = gains(tflite, samples, {index: reach})[index].clipping
    assert below.max() < 0.5 < above.min()
    assert (above > 1.5).any()
    np.testing.assert_array_equal(gains(tflite, samples)[index].clipping, 1.0)


@pytest.mark.parametrize(
    ("make", "clips", "least"), [(chain, False, 4.0), (lambda: chain("RELU6"), True, 0.5), (residual, False, 0.5)]
)
def test_balance_keeps_the_function_and_lowers_the_noise(make, clips, least):
    """Balanced channels leave the float logits alone, but for rare clips behind RELU6, and lose less in int8."""
    tflite = make()
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 60, seed=9)
    reference = logits(tflite, unseen)
    done = balance(tflite, samples)
    assert snr_db(reference, logits(done.tflite, unseen)) > (30 if clips else 50)
    plain = choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")
    got = quantize(done.tflite, RULE, {**plain, **done.ranges}).tflite
    gain = snr_db(reference, logits(got, unseen)) - snr_db(
        reference, logits(quantize(tflite, RULE, plain).tflite, unseen)
    )
    assert gain > least
    only = balance(tflite, samples, scale=False)
    assert only.tflite == tflite
    assert only.ranges != done.ranges
