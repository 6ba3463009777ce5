"""Constants center the channels of linear activations: same outputs in float, less noise in int8."""

from dataclasses import replace

import builders
import numpy as np
import pytest
from ptq_models import applied, subject

from edgepack.graph import Op, read_model
from edgepack.graph.edit import tensor_keys
from edgepack.graph.read import schema
from edgepack.quantize.ptq.activations import iterate_activations, logits, snr_db
from edgepack.quantize.ptq.channel_centering import center_channels, plan_offsets
from edgepack.quantize.ptq.gptq import ROUNDING


def _bottleneck(*, kernel: int = 1, activation: str = "NONE") -> bytes:
    """A linear bottleneck with a residual sum, as in MobileNetV2; its channels are far from zero, on either side."""
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
    output = net.tensor(name, result)
    weights = net.weights(f"{name}/kernel", out, kernel, kernel, shape[3])
    values = net.weights(f"{name}/bias", out) if bias is None else net.constant(f"{name}/bias", bias)
    net.op("CONV_2D", [source, weights, values], [output], strideW=1, strideH=1, padding=1,
           fusedActivationFunction=getattr(schema().ActivationFunctionType, activation))  # fmt: skip
    return output, result


@pytest.mark.parametrize("activation", ["NONE", "RELU"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_constants_change_nothing_in_float(kernel, activation):
    """The float outputs are unchanged: with linear sums and sums through RELU, with 1x1 and larger kernels."""
    tflite = _bottleneck(kernel=kernel, activation=activation)
    samples = builders.samples(tflite, 20)
    centered = center_channels(tflite, samples)
    assert centered != tflite
    before, after = (np.array([out[0] for out in logits(one, samples)]) for one in (tflite, centered))
    np.testing.assert_allclose(after, before, atol=2e-5 * np.abs(before).max())


def test_channels_come_to_lie_around_zero():
    """In the two summed activations and their sum, every channel is closer to symmetric around zero than before."""
    tflite = _bottleneck()
    samples = builders.samples(tflite, 20)
    centered = center_channels(tflite, samples)
    for name in ("reduce", "again", "sum"):
        index = tensor_keys(read_model(tflite).main).index(name)
        before, after = (
            np.concatenate([values.reshape(-1, 6) for (values,) in iterate_activations(model, [index], samples)])
            for model in (tflite, centered)
        )
        off = [np.abs(values.max(0) + values.min(0)).max() / np.ptp(values, axis=0).min() for values in (before, after)]
        assert off[1] < 0.5 * off[0], name


@pytest.mark.slow
def test_less_is_lost_in_int8():
    """With rounded weights and min/max ranges, the centered model's int8 file loses less."""
    tflite = _bottleneck()
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 200, seed=9)
    reference = logits(tflite, unseen)
    snr = []
    for model in (tflite, center_channels(tflite, samples)):
        about = subject(model, samples)
        fit = applied(ROUNDING, "gptq", about)
        snr.append(snr_db(reference, logits(about.file(fit), unseen)))
    assert snr[1] > snr[0] + 0.3


def test_padding_and_outputs_are_left_alone():
    """A convolution with zero padding cannot subtract a constant; a model output may not carry one."""
    net = builders.Net(6)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "first", (1, 8, 8, 3), 4, "NONE")
    b = net.conv(a, "padded", (1, 8, 8, 4), 4, "NONE")
    tflite = net.build([x], [b], (["image"], ["out"]))
    assert plan_offsets(read_model(tflite).main) is None
    assert center_channels(tflite, builders.samples(tflite, 3)) == tflite


def test_ops_without_results_are_passed_over():
    """An op without outputs, which only writes a variable, does not affect the plan."""
    graph = read_model(_bottleneck()).main
    writes = Op(len(graph.ops), "ASSIGN_VARIABLE", "", 1, (graph.inputs[0], graph.inputs[0]), (), {})
    with_it = plan_offsets(replace(graph, ops=(*graph.ops, writes)))
    without = plan_offsets(graph)
    assert with_it is not None
    assert without is not None
    assert with_it.tensors == without.tensors
