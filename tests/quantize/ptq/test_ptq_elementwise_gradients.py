import builders
import numpy as np
import pytest

from edgepack.quantize.ptq.elementwise_gradients import CURVES, MOVES, PAIRS
from edgepack.quantize.ptq.network import Network

#: Further inputs, shape of the output and options of ops that move values, for an input of shape (1, 4, 4, 8).
_MOVES: dict[str, tuple[list, tuple[int, ...], dict]] = {
    "DEPTH_TO_SPACE": ([], (1, 8, 8, 2), {"blockSize": 2}),
    "RESIZE_NEAREST_NEIGHBOR": ([[8, 12]], (1, 8, 12, 8), {}),
    "SLICE": ([[0, 1, 0, 2], [1, 2, -1, 3]], (1, 2, 4, 3), {}),
    "SPACE_TO_DEPTH": ([], (1, 2, 2, 32), {"blockSize": 2}),
    "SPLIT": ([3], (1, 4, 4, 4), {"numSplits": 2}),
    "SPLIT_V": ([[3, 5], 3], (1, 4, 4, 3), {"numSplits": 2}),
    "STRIDED_SLICE": (
        [[0, 1, 0, 2], [1, 4, 0, 3], [1, 2, 1, 1]], (1, 2, 4), {"endMask": 4, "shrinkAxisMask": 8}
    ),
    "TILE": ([[1, 2, 1, 3]], (1, 8, 4, 24), {}),
    "TRANSPOSE": ([[0, 3, 1, 2]], (1, 8, 4, 4), {}),
    "UNPACK": ([], (1, 4, 8), {"num": 4, "axis": 1}),
}  # fmt: skip


def _net(name: str) -> bytes:
    """A convolution and the op; what it reads besides is a second convolution, or a constant."""
    net = builders.Net(3)
    x = net.tensor("x", (1, 4, 4, 3))
    a = net.conv(x, "a", (1, 4, 4, 3), 8, "NONE")
    if name in ("LOG", "RSQRT", "SQRT", "DIV"):
        positive = net.tensor("positive", (1, 4, 4, 8))
        net.op("EXP", [a], [positive])
        a = positive
    if name in MOVES:
        extra, shape, options = _MOVES[name]
        constants = [net.constant(f"c{i}", values, "INT32") for i, values in enumerate(extra)]
        inputs = [*constants, a] if name == "SPLIT" else [a, *constants]
        outputs = [net.tensor("y", shape)]
        if name == "SPLIT_V":
            outputs.append(net.tensor("z", (1, 4, 4, 5)))
        outputs += [net.tensor(f"z{i}", shape) for i in range({"SPLIT": 1, "UNPACK": 3}.get(name, 0))]
        net.op(name, inputs, outputs, **options)
        return net.build([x], outputs, (["x"], [f"y{i}" for i in range(len(outputs))]))
    y = net.tensor("y", (1, 4, 4, 8))
    if name in CURVES:
        curve = net.tensor("curve", (1, 4, 4, 8))
        net.op(name, [a], [curve], **({"alpha": 0.2} if name == "LEAKY_RELU" else {}))
        net.op("RELU6", [curve], [y])
        return net.build([x], [y], (["x"], ["y"]))
    if name == "PRELU":
        net.op(name, [a, net.constant("slope", net.random.normal(0, 0.3, (1, 1, 8)))], [y])
        return net.build([x], [y], (["x"], ["y"]))
    pooled = net.tensor("pooled", (1, 1, 1, 8))
    net.op("MAX_POOL_2D", [a], [pooled], strideW=4, strideH=4, filterWidth=4, filterHeight=4)
    z = net.tensor("z", (1, 4, 4, 8))
    net.op(name, [a, pooled], [z])
    net.op("MUL", [z, net.constant("half", 0.5)], [y])
    return net.build([x], [y], (["x"], ["y"]))


@pytest.mark.parametrize("name", sorted(CURVES | PAIRS | MOVES))
def test_values_and_slopes(name):
    """The forward pass is the runtime's, and the gradient of the input predicts the effect of a small step along it."""
    tflite = _net(name)
    network = Network(tflite)
    sample = builders.samples(tflite, 1, seed=4)[0]
    x = sample["x"]
    tape = network.forward([x])
    for index, expected in zip(network.graph.outputs, builders.run(tflite, sample), strict=True):
        # GELU's logistic approximation is within 0.02.
        np.testing.assert_allclose(tape.activations[index], expected, rtol=1e-4, atol=0.021 if name == "GELU" else 1e-4)
    random = np.random.default_rng(1)
    signs = {i: random.choice([-1.0, 1.0], tape.activations[i].shape).astype(np.float32) for i in network.logits}
    gradient = network.backward(tape, signs)[network.inputs[0]]
    step = 2e-4 * gradient / np.linalg.norm(gradient)
    above, below = (
        sum(float((network.forward([x + s]).activations[i] * signs[i]).sum(dtype=np.float64)) for i in network.logits)
        for s in (step, -step)
    )
    assert (above - below) / 4e-4 == pytest.approx(float(np.linalg.norm(gradient)), rel=0.05)
