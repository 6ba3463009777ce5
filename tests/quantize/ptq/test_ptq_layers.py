import builders
import numpy as np
import pytest
from ptq_models import chain, residual

from edgepack.graph import read_model
from edgepack.graph.read import schema
from edgepack.quantize.ptq.absorb import absorb_biases
from edgepack.quantize.ptq.equalize import channel_ranges, equalize, equalize_weights, find_streams
from edgepack.quantize.ptq.layers import find_layers, own_biases, set_constants, values_of
from edgepack.quantize.ptq.observe import logits, patches, snr_db, watch
from edgepack.quantize.ptq.pool import means_for_pools
from edgepack.runtime.logits import expose_logits


def _worst(before: bytes, after: bytes, samples: list) -> float:
    """Largest difference of the logits, relative to the largest logit."""
    pairs = zip(logits(before, samples), logits(after, samples), strict=True)
    return max(float(np.abs(a[0] - b[0]).max() / np.abs(a[0]).max()) for a, b in pairs)


@pytest.mark.parametrize("make", [builders.classifier, chain, residual], ids=["classifier", "chain", "residual"])
def test_a_layer_is_its_patches_times_its_weights(make):
    """Patches times weights plus bias is what the runtime computes, strides, padding and depthwise layers included."""
    tflite = make()
    graph = read_model(tflite).main
    sample = builders.samples(tflite, 1)
    for layer in find_layers(graph):
        ((source, result),) = watch(tflite, [layer.source, layer.result], sample)
        seen = patches(layer, source, 1 << 20)
        rows = layer.rows(values_of(graph, layer.weights))
        got = np.einsum("pck,ck->pc", seen, rows) if layer.depthwise else seen @ rows.T
        got = got + values_of(graph, layer.bias)
        if layer.op.options.get("fused_activation") in {"RELU", "RELU6"}:
            got = np.clip(got, 0, 6 if layer.op.options["fused_activation"] == "RELU6" else None)
        np.testing.assert_allclose(got.reshape(result.shape), result, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(layer.from_rows(rows), values_of(graph, layer.weights))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("activation", ["RELU", "RELU6"])
@pytest.mark.parametrize("make", [chain, residual], ids=["chain", "residual"])
def test_equalization_changes_nothing_in_float(make, activation, share):
    """Equalized and original model agree to 1e-5 on the samples, through RELU, RELU6 and a residual sum."""
    tflite = make(activation)
    samples = builders.samples(tflite, 6)
    graph = read_model(tflite).main
    streams = find_streams(graph, find_layers(graph))
    assert streams
    ranges = channel_ranges(tflite, streams, samples)
    for made in (equalize(tflite, ranges, share), equalize_weights(tflite, ranges)):
        assert made != tflite
        assert _worst(tflite, made, samples) < 1e-5


def test_equalization_brings_channels_together():
    """With share 1 every channel between two layers reaches the largest channel's range (within the most allowed)."""
    tflite = chain("RELU", 20.0)
    samples = builders.samples(tflite, 6)
    graph = read_model(tflite).main
    streams = find_streams(graph, find_layers(graph))
    before = channel_ranges(tflite, streams, samples)
    after = channel_ranges(equalize(tflite, before, 1.0), streams, samples)
    stream = streams[0].tensors[0]
    assert before[stream].max() / before[stream].min() > 10
    assert after[stream].max() / after[stream].min() < 1.01


def test_inputs_outputs_and_odd_readers_are_left_alone():
    """A tensor that is an output, or that something else than a layer reads, is in no stream."""
    graph = read_model(builders.two_in_two_out()).main
    assert find_streams(graph, find_layers(graph)) == []
    graph = read_model(builders.classifier()).main
    tensors = {i for stream in find_streams(graph, find_layers(graph)) for i in stream.tensors}
    assert not tensors & {*graph.inputs, *graph.outputs}


def test_high_biases_move_on():
    """A channel that stays above zero loses its floor to the next bias; the outputs stay."""
    tflite = chain("RELU")
    graph = read_model(tflite).main
    first = find_layers(graph)[1]
    raised = values_of(graph, first.bias) + 50.0
    tflite = set_constants(tflite, {first.bias: raised})
    samples = builders.samples(tflite, 4)
    made = absorb_biases(tflite, samples)
    assert _worst(tflite, made, samples) < 1e-5
    assert (values_of(read_model(made).main, first.bias) < raised - 5).any()
    assert absorb_biases(chain("RELU6"), samples) == chain("RELU6")


def test_shared_zero_biases_are_parted():
    """Layers that share a bias get one each, with the same values; a second call changes nothing."""
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
    made = own_biases(tflite)
    layers = find_layers(read_model(made).main)
    assert len({layer.bias for layer in layers}) == 2
    assert own_biases(made) == made
    sample = builders.samples(tflite, 1)[0]
    np.testing.assert_array_equal(builders.run(tflite, sample)[0], builders.run(made, sample)[0])


def test_a_global_pool_becomes_a_mean():
    """AVERAGE_POOL_2D over the whole picture becomes MEAN with the same outputs; other models stay as they are."""
    tflite = builders.classifier()
    made = means_for_pools(tflite)
    assert [op.name for op in read_model(made).main.ops][2] == "MEAN"
    assert _worst(tflite, made, builders.samples(tflite, 3)) < 1e-6
    assert means_for_pools(residual()) == residual()


def test_logits_are_what_softmax_reads():
    """The exposed output is the tensor before SOFTMAX, under the output's name; without SOFTMAX nothing changes."""
    tflite = builders.classifier()
    made = read_model(expose_logits(tflite))
    assert made.main.tensors[made.main.outputs[0]].name == "dense"
    assert made.output_names() == ("classes",)
    sample = builders.samples(tflite, 1)[0]
    scores = np.exp(builders.run(expose_logits(tflite), sample)[0])
    np.testing.assert_allclose(scores / scores.sum(), builders.run(tflite, sample)[0], rtol=1e-5)
    plain = builders.two_in_two_out()
    assert expose_logits(plain) == plain


def test_snr_of_known_noise():
    """A tenth of the amplitude is 20 dB."""
    assert snr_db([[np.full(8, 10.0)]], [[np.full(8, 11.0)]]) == pytest.approx(20.0)
