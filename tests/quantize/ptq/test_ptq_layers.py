import builders
import numpy as np
import pytest
from ptq_models import chain, residual

from edgepack.graph import read_model
from edgepack.graph.read import schema
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.cross_layer_equalization import (
    channel_ranges,
    equalize,
    equalize_weights,
    find_equalization_groups,
)
from edgepack.quantize.ptq.global_pooling import replace_global_pools
from edgepack.quantize.ptq.high_bias_absorption import absorb_high_biases
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants, unshare_biases
from edgepack.runtime.logits import expose_logits


def _worst(before: bytes, after: bytes, samples: list) -> float:
    """Largest difference of the logits, relative to the largest logit."""
    pairs = zip(logits(before, samples), logits(after, samples), strict=True)
    return max(float(np.abs(a[0] - b[0]).max() / np.abs(a[0]).max()) for a, b in pairs)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("activation", ["RELU", "RELU6"])
@pytest.mark.parametrize("make", [chain, residual], ids=["chain", "residual"])
def test_equalization_changes_nothing_in_float(make, activation, share):
    """Equalized and original model agree to 1e-5 on the samples, with RELU, RELU6 and a residual sum."""
    tflite = make(activation)
    samples = builders.samples(tflite, 6)
    graph = read_model(tflite).main
    groups = find_equalization_groups(graph, find_layers(graph))
    assert groups
    ranges = channel_ranges(tflite, groups, samples)
    for changed in (equalize(tflite, ranges, share), equalize_weights(tflite, ranges)):
        assert changed != tflite
        assert _worst(tflite, changed, samples) < 1e-5


def test_equalization_brings_channels_together():
    """With share 1 every channel between two layers reaches the largest channel's range, up to the largest factor."""
    tflite = chain("RELU", 20.0)
    samples = builders.samples(tflite, 6)
    graph = read_model(tflite).main
    groups = find_equalization_groups(graph, find_layers(graph))
    before = channel_ranges(tflite, groups, samples)
    after = channel_ranges(equalize(tflite, before, 1.0), groups, samples)
    tensor = groups[0].tensors[0]
    assert before[tensor].max() / before[tensor].min() > 10
    assert after[tensor].max() / after[tensor].min() < 1.01


def test_inputs_outputs_and_odd_readers_are_left_alone():
    """A tensor that is an output, or that an op other than a layer consumes, is in no group."""
    graph = read_model(builders.two_in_two_out()).main
    assert find_equalization_groups(graph, find_layers(graph)) == []
    graph = read_model(builders.classifier()).main
    tensors = {i for group in find_equalization_groups(graph, find_layers(graph)) for i in group.tensors}
    assert not tensors & {*graph.inputs, *graph.outputs}


def test_high_biases_move_on():
    """The minimum of a channel that stays above zero moves into the next bias; the outputs are unchanged."""
    tflite = chain("RELU")
    graph = read_model(tflite).main
    first = find_layers(graph)[1]
    raised = constant_values(graph, first.bias) + 50.0
    tflite = set_constants(tflite, {first.bias: raised})
    samples = builders.samples(tflite, 4)
    changed = absorb_high_biases(tflite, samples)
    assert _worst(tflite, changed, samples) < 1e-5
    assert (constant_values(read_model(changed).main, first.bias) < raised - 5).any()
    assert absorb_high_biases(chain("RELU6"), samples) == chain("RELU6")


def test_shared_zero_biases_are_parted():
    """Layers that share a bias get one each with the same values; a second call changes nothing."""
    net = builders.Net()
    x = net.tensor("x", (1, 4, 4, 4))
    shared = net.constant("zeros", np.zeros(4))
    none = schema().ActivationFunctionType.NONE
    for name in ("a", "b"):
        y = net.tensor(name, (1, 4, 4, 4))
        kernel = net.weights(f"{name}/kernel", 4, 1, 1, 4)
        net.op("CONV_2D", [x, kernel, shared], [y], strideW=1, strideH=1, fusedActivationFunction=none)
        x = y
    tflite = net.build([0], [x])
    changed = unshare_biases(tflite)
    layers = find_layers(read_model(changed).main)
    assert len({layer.bias for layer in layers}) == 2
    graph = read_model(changed).main
    read = {index for op in graph.ops for index in op.inputs}
    assert all(tensor.index in read for tensor in graph.tensors if tensor.is_constant), "nothing is left unused"
    assert unshare_biases(changed) == changed
    sample = builders.samples(tflite, 1)[0]
    np.testing.assert_array_equal(builders.run(tflite, sample)[0], builders.run(changed, sample)[0])


def test_a_global_pool_becomes_a_mean():
    """AVERAGE_POOL_2D over the whole image becomes MEAN with the same outputs; other models are unchanged."""
    tflite = builders.classifier()
    changed = replace_global_pools(tflite)
    assert [op.name for op in read_model(changed).main.ops][2] == "MEAN"
    assert _worst(tflite, changed, builders.samples(tflite, 3)) < 1e-6
    assert replace_global_pools(residual()) == residual()


def test_logits_are_what_softmax_reads():
    """The exposed output is the tensor before SOFTMAX, under the output's name; a model without one is unchanged."""
    tflite = builders.classifier()
    changed = read_model(expose_logits(tflite))
    assert changed.main.tensors[changed.main.outputs[0]].name == "dense"
    assert changed.output_names() == ("classes",)
    sample = builders.samples(tflite, 1)[0]
    scores = np.exp(builders.run(expose_logits(tflite), sample)[0])
    np.testing.assert_allclose(scores / scores.sum(), builders.run(tflite, sample)[0], rtol=1e-5)
    plain = builders.two_in_two_out()
    assert expose_logits(plain) == plain


def test_snr_of_known_noise():
    """Noise of a tenth of the amplitude is an SNR of 20 dB."""
    assert snr_db([[np.full(8, 10.0)]], [[np.full(8, 11.0)]]) == pytest.approx(20.0)
