"""Scales and offsets are folded into layers with equal outputs, and left where that is not exact."""

import numpy as np
import pytest
from builders import Net

from edgepack.graph import read_model
from edgepack.repair import fold_arithmetic
from edgepack.runtime import Runner

RANDOM = np.random.default_rng(0)
SCALE, OFFSET = RANDOM.uniform(0.2, 3, 4), RANDOM.normal(0, 1, 4)


def net_with(behind: str, *, offset: bool = True, padding: int = 0) -> bytes:
    """Return x -> MUL -> ADD -> another layer; `padding` 0 is SAME, 1 is VALID."""
    net = Net()
    shape = (1, 4) if behind == "FULLY_CONNECTED" else (1, 6, 6, 4)
    x = net.tensor("x", shape)
    y = net.tensor("scaled", shape)
    net.op("MUL", [x, net.constant("scale", SCALE)], [y])
    if offset:
        y, source = net.tensor("shifted", shape), y
        net.op("ADD", [net.constant("offset", OFFSET), source], [y])
    size = 6 if padding == 0 else 4
    if behind == "FULLY_CONNECTED":
        out = net.tensor("out", (1, 5))
        net.op(behind, [y, net.weights("kernel", 5, 4), net.weights("bias", 5)], [out])
    elif behind == "MEAN":
        mean, out = net.tensor("mean", (1, 4)), net.tensor("out", (1, 5))
        net.op("MEAN", [y, net.constant("axes", [1, 2], "INT32")], [mean], keepDims=False)
        net.op("FULLY_CONNECTED", [mean, net.weights("kernel", 5, 4), -1], [out])
    elif behind == "CONV_2D":
        out = net.tensor("out", (1, size, size, 5))
        net.op(behind, [y, net.weights("kernel", 5, 3, 3, 4), net.weights("bias", 5)], [out],
               padding=padding, strideW=1, strideH=1)  # fmt: skip
    else:
        out = net.tensor("out", (1, size, size, 8))
        net.op(behind, [y, net.weights("kernel", 1, 3, 3, 8), net.weights("bias", 8)], [out],
               padding=padding, strideW=1, strideH=1, depthMultiplier=2)  # fmt: skip
    return net.build([x], [out])


@pytest.mark.parametrize(
    ("behind", "options", "expected"),
    [
        ("FULLY_CONNECTED", {}, ["FULLY_CONNECTED"]),
        ("MEAN", {}, ["MEAN", "FULLY_CONNECTED"]),
        ("CONV_2D", {"padding": 1}, ["CONV_2D"]),
        ("DEPTHWISE_CONV_2D", {"padding": 1}, ["DEPTHWISE_CONV_2D"]),
        # A scale alone leaves zero padding as it is; an offset does not.
        ("CONV_2D", {"offset": False}, ["CONV_2D"]),
        ("CONV_2D", {}, ["DEPTHWISE_CONV_2D", "CONV_2D"]),
        ("DEPTHWISE_CONV_2D", {}, ["DEPTHWISE_CONV_2D", "DEPTHWISE_CONV_2D"]),
    ],
)
def test_arithmetic_goes_into_layers(behind: str, options: dict[str, int], expected: list[str]) -> None:
    """The folded file has the expected ops and the outputs of the original."""
    tflite = net_with(behind, **options)  # type: ignore[arg-type]
    folded, rewrites = fold_arithmetic(tflite)
    assert [op.name for op in read_model(folded).main.ops] == expected
    assert [rewrite.code for rewrite in rewrites] == ["folded-arithmetic"]
    before, after = Runner(tflite), Runner(folded)
    for _ in range(3):
        x = RANDOM.normal(0, 2, read_model(tflite).main.tensors[0].shape).astype(np.float32)
        assert np.allclose(before.run([x])[0], after.run([x])[0], rtol=1e-4, atol=1e-4)


def test_a_layer_in_front_takes_it() -> None:
    """Arithmetic behind a layer without activation goes into that layer, and brings its activation along."""
    net = Net()
    x, y, out = net.tensor("x", (1, 3)), net.tensor("y", (1, 4)), net.tensor("out", (1, 4))
    net.op("FULLY_CONNECTED", [x, net.weights("kernel", 4, 3), net.weights("bias", 4)], [y])
    net.op("ADD", [y, net.constant("offset", OFFSET)], [out], fusedActivationFunction=1)
    tflite = net.build([x], [out])
    folded, _ = fold_arithmetic(tflite)
    assert [op.name for op in read_model(folded).main.ops] == ["FULLY_CONNECTED"]
    x_value = RANDOM.normal(0, 1, (1, 3)).astype(np.float32)
    assert np.allclose(Runner(tflite).run([x_value])[0], Runner(folded).run([x_value])[0], atol=1e-6)


def test_an_output_of_the_model_stays() -> None:
    """Arithmetic whose result the app reads is not folded into the layers behind it."""
    net = Net()
    x, y, out = net.tensor("x", (1, 4)), net.tensor("y", (1, 4)), net.tensor("out", (1, 5))
    net.op("MUL", [x, net.constant("scale", SCALE)], [y])
    net.op("FULLY_CONNECTED", [y, net.weights("kernel", 5, 4), net.weights("bias", 5)], [out])
    tflite = net.build([x], [y, out])
    assert fold_arithmetic(tflite) == (tflite, ())
