"""Biases keep their value in int8 files, however small the weights beside them are."""

import builders
import numpy as np
import pytest
from ptq_models import PER_TENSOR, RULE, chain, kinds, minmax

from edgepack.graph import read_model
from edgepack.quantize.bias_limits import raise_weights, representable_biases
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants, weighted_ops
from edgepack.quantize.quantizer import quantize


def _dead(tflite: bytes) -> bytes:
    """The model with half of each layer's channels switched off: weights of 1e-30, a bias of a half."""
    graph = read_model(tflite).main
    values = {}
    for layer in find_layers(graph):
        rows = np.array(layer.rows(constant_values(graph, layer.weights)))
        rows[::2] = 1e-30
        weights = layer.from_rows(rows.reshape(layer.matrix(constant_values(graph, layer.weights)).shape))
        bias = constant_values(graph, layer.bias)
        bias[::2] = 0.5
        values |= {layer.weights: weights, layer.bias: bias}
    return set_constants(tflite, values)


@pytest.mark.parametrize("rule", [RULE, PER_TENSOR], ids=["per-channel", "per-tensor"])
@pytest.mark.parametrize("make", [chain, kinds])
def test_biases_of_dead_channels_keep_their_value(make, rule):
    """In the integer file each bias is the float model's, within a thousandth."""
    tflite = _dead(make())
    samples = builders.samples(tflite, 4)
    graph, result = read_model(tflite).main, read_model(quantize(tflite, rule, minmax(tflite, samples)).tflite).main
    ops = weighted_ops(result)
    for layer in find_layers(graph):
        tensor = result.tensors[ops[layer.position].inputs[layer.bias_position]]
        values = tensor.data * tensor.quantization.scale.astype(np.float64)
        expected = constant_values(graph, layer.bias)
        step = float(tensor.quantization.scale.max())
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=step)


def test_models_without_such_channels_are_not_touched():
    """The same bytes, so that nothing else changes."""
    tflite = chain()
    samples = builders.samples(tflite, 4)
    assert representable_biases(tflite, minmax(tflite, samples), RULE) is tflite


def test_what_a_raised_weight_adds_is_small():
    """With any int8 input, less than 2^-13 of the bias."""
    rows, bias = np.full((3, 9), 1e-30, np.float32), np.array([0.5, -3.0, 0.0], np.float32)
    raised = raise_weights(rows, bias, 0.02)
    added = np.abs(raised).sum(axis=1) * 0.02 * 255
    assert (added <= np.abs(bias) * 2.0**-12 + 1e-20).all()
    np.testing.assert_array_equal(raised[2], rows[2])
