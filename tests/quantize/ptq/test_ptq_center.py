"""Linear activations get constants that centre them: nothing changes in float, and less is lost in int8."""

from dataclasses import replace

import builders
import numpy as np
import pytest

from edgepack.graph import Op, read_model
from edgepack.graph.edit import tensor_keys
from edgepack.graph.read import schema
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq.balance import balance
from edgepack.quantize.ptq.center import center_channels, plan_offsets
from edgepack.quantize.ptq.observe import logits, snr_db, watch
from edgepack.quantize.quantizer import quantize

RULE = SchemeRule("int8", "INT8")


def _bottleneck(*, kernel: int = 1, activation: str = "NONE") -> bytes:
    """A linear bottleneck with a residual sum, as in MobileNetV2; its channels lie far from zero, each on its side."""
    net = builders.Net(5)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "stem", (1, 8, 8, 3), 8, "RELU")
    one, shape = _conv(net, a, "reduce", (1, 8, 8, 8), 6, bias=np.linspace(-4.0, 4.0, 6))
    b, shape = _conv(net, one, "expand", shape, 12, kernel, "RELU")
    other, shape = _conv(net, b, "again", shape, 6, bias=np.linspace(4.0, -4.0, 6))
    total = net.tensor("sum", shape)
    padded = one if kernel == 1 else _conv(net, one, "crop", (1, 8, 8, 6), 6, kernel)[0]
    fused = getattr(schema().ActivationFunctionType, activation)
    net.op("ADD", [padded, other], [total], fusedActivationFunction=fused)
    last, shape = _conv(net, total, "last", shape, 10, 1, "RELU")
    pooled = net.tensor("pooled", (1, 10))
    net.op("MEAN", [last, net.constant("axes", [1, 2], "INT32")], [pooled])
    return net.build([x], [pooled], (["image"], ["scores"]))


def _conv(net, source, name, shape, out, kernel=1, activation="NONE", bias=None):
    result = (1, shape[1] - kernel + 1, shape[2] - kernel + 1, out)
    made = net.tensor(name, result)
    weights = net.weights(f"{name}/kernel", out, kernel, kernel, shape[3])
    values = net.weights(f"{name}/bias", out) if bias is None else net.constant(f"{name}/bias", bias)
    net.op("CONV_2D", [source, weights, values], [made], strideW=1, strideH=1, padding=1,
           fusedActivationFunction=getattr(schema().ActivationFunctionType, activation))  # fmt: skip
    return made, result


@pytest.mark.parametrize("activation", ["NONE", "RELU"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_constants_change_nothing_in_float(kernel, activation):
    """The outputs stay what they were, with sums that go on as they are and through RELU, pointwise and not."""
    tflite = _bottleneck(kernel=kernel, activation=activation)
    samples = builders.samples(tflite, 20)
    made = center_channels(tflite, samples)
    assert made != tflite
    before, after = (np.array([out[0] for out in logits(one, samples)]) for one in (tflite, made))
    np.testing.assert_allclose(after, before, atol=2e-5 * np.abs(before).max())


def test_channels_come_to_lie_around_zero():
    """Of the two summed activations and their sum, no channel keeps to one side any more."""
    tflite = _bottleneck()
    samples = builders.samples(tflite, 20)
    made = center_channels(tflite, samples)
    for name in ("reduce", "again", "sum"):
        index = tensor_keys(read_model(tflite).main).index(name)
        before, after = (np.concatenate([seen[0].reshape(-1, 6) for seen in watch(one, [index], samples)])
                         for one in (tflite, made))  # fmt: skip
        off = [np.abs(values.max(0) + values.min(0)).max() / np.ptp(values, axis=0).min() for values in (before, after)]
        assert off[1] < 0.5 * off[0], name


def test_less_is_lost_in_int8():
    """At the same ranges' estimate the centred model's int8 file is at least 1 dB nearer to float."""
    tflite = _bottleneck()
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 40, seed=9)
    reference = logits(tflite, unseen)
    lost = []
    for model in (tflite, center_channels(tflite, samples)):
        found = balance(model, samples)
        lost.append(snr_db(reference, logits(quantize(found.tflite, RULE, found.ranges).tflite, unseen)))
    assert lost[1] > lost[0] + 1.0


def test_padding_and_outputs_are_left_alone():
    """A convolution that pads with zeros cannot take a constant off again; nor can who reads the model's output."""
    net = builders.Net(6)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "first", (1, 8, 8, 3), 4, "NONE")
    b = net.conv(a, "padded", (1, 8, 8, 4), 4, "NONE")
    tflite = net.build([x], [b], (["image"], ["out"]))
    assert plan_offsets(read_model(tflite).main) is None
    assert center_channels(tflite, builders.samples(tflite, 3)) == tflite


def test_ops_without_results_are_passed_over():
    """An op that only writes a variable has no output, and stands in nobody's way."""
    graph = read_model(_bottleneck()).main
    writes = Op(len(graph.ops), "ASSIGN_VARIABLE", "", 1, (graph.inputs[0], graph.inputs[0]), (), {})
    with_it = plan_offsets(replace(graph, ops=(*graph.ops, writes)))
    without = plan_offsets(graph)
    assert with_it is not None
    assert without is not None
    assert with_it.tensors == without.tensors
