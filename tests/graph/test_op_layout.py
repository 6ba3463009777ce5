"""The layout of ops agrees with files that TFLiteConverter wrote and with the runtime's kernels."""

import builders
import numpy as np
import pytest

from edgepack.graph import read_model
from edgepack.graph.op_layout import (
    ACTIVATION_BOUNDS,
    OP_LAYOUTS,
    bias_index,
    dilated_size,
    padding_amounts,
    weights_index,
)
from edgepack.graph.read import schema


def test_layouts_agree_with_converted_files(shared_models):
    """Weights are per-channel along the layout's axis, and the bias has one value per output channel."""
    graph = read_model(shared_models / "mlperf-tiny" / "kws_reference_int8.tflite").main
    layers = [op for op in graph.ops if op.name in OP_LAYOUTS]
    assert {op.name for op in layers} == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
    for op in layers:
        layout, weights = OP_LAYOUTS[op.name], graph.tensors[weights_index(op)]
        assert graph.tensors[bias_index(op)].shape == (weights.shape[layout.channel_axis],)
        assert weights.quantization.axis == layout.channel_axis or not weights.quantization.per_channel


def test_ops_without_the_input_have_no_index():
    """An op that leaves its bias out, and an op without weights, give -1."""
    net = builders.Net()
    x, y, z = (net.tensor(name, (1, 4)) for name in "xyz")
    net.op("FULLY_CONNECTED", [x, net.weights("w", 4, 4)], [y])
    net.op("RELU", [y], [z])
    dense, relu = read_model(net.build([x], [z])).main.ops
    assert (weights_index(dense), bias_index(dense)) == (3, -1)
    assert (weights_index(relu), bias_index(relu)) == (-1, -1)


@pytest.mark.parametrize("size", [5, 6, 7])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_same_padding_is_the_runtimes(size, kernel, stride, dilation):
    """A convolution with SAME padding equals one over the same zeros added by hand."""
    span = dilated_size(kernel, dilation)
    before, after = padding_amounts("SAME", size, span, stride)
    count = (size + before + after - span) // stride + 1
    net = builders.Net()
    x, y = net.tensor("x", (1, size, 1, 1)), net.tensor("y", (1, count, 1, 1))
    weights = net.weights("w", 1, kernel, 1, 1)
    net.op("CONV_2D", [x, weights, net.constant("b", [0.0])], [y], strideW=1, strideH=stride, dilationHFactor=dilation)
    tflite = net.build([x], [y])
    sample = builders.samples(tflite, 1)[0]
    (got,) = builders.run(tflite, sample)
    padded = np.pad(sample["x"].ravel(), (before, after))
    taps = read_model(tflite).main.tensors[weights].data.ravel()
    expected = [float(padded[i * stride : i * stride + span : dilation] @ taps) for i in range(count)]
    assert np.allclose(got.ravel(), expected, atol=1e-6)


def test_valid_adds_nothing():
    """VALID padding adds no zeros."""
    assert padding_amounts("VALID", 7, 3, 2) == (0, 0)


@pytest.mark.parametrize("activation", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_bounds_are_the_runtimes(activation):
    """A fused activation clips at its bounds."""
    net = builders.Net()
    x, y = net.tensor("x", (1, 5)), net.tensor("y", (1, 5))
    fused = getattr(schema().ActivationFunctionType, activation)
    net.op("ADD", [x, net.constant("zero", np.zeros(1))], [y], fusedActivationFunction=fused)
    values = np.array([[-9.0, -0.5, 0.5, 5.5, 9.0]], np.float32)
    (got,) = builders.run(net.build([x], [y]), {"x": values})
    assert np.array_equal(got, np.clip(values, *ACTIVATION_BOUNDS[activation]))
