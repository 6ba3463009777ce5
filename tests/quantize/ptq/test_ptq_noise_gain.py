"""The noise gain of an activation predicts how much noise in it adds to the logits."""

import builders
import numpy as np
import pytest
from ptq_models import noise_gains

from edgepack.graph import read_model
from edgepack.quantize.ptq import noise_gain
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants
from edgepack.quantize.ptq.lowering import LoweredModel
from edgepack.quantize.ptq.noise_gain import GainFunction

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("make", [builders.classifier, builders.two_in_two_out], ids=["one", "two"])
def test_noise_adds_what_the_gain_predicts(make):
    """Noise in one activation adds what is predicted: to the only output, or to several in units of their variance."""
    from edgepack.quantize.ptq.lowering.differentiable_logits import differentiable_logits

    tflite = make()
    lowered = LoweredModel(tflite)
    samples = builders.samples(tflite, 48)
    result = noise_gains(tflite, samples, {})
    inputs = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    reference = lowered.run(inputs)
    outputs = differentiable_logits(lowered)
    variances = [np.var(reference[k], axis=0).sum() if len(outputs) > 1 else 1.0 for k in outputs]
    random = np.random.default_rng(3)
    for index in [*lowered.graph.inputs, *(lowered.graph.ops[k].outputs[0] for k in (0, 1))]:
        gain = result[index].total
        assert gain.shape == lowered.shapes[index][-1:] and (result[index].active <= gain).all()
        deviation = 1e-3

        def add_noise(number, value, index=index, deviation=deviation):
            noise = random.normal(0, deviation, value.shape).astype(np.float32)
            return value + noise if number == index else value

        ratios = []
        for _ in range(8):
            noisy = lowered.run(inputs, transform=add_noise)
            errors = [np.square(noisy[k] - reference[k]).sum() / len(samples) for k in outputs]
            ratios.append(np.mean([error / variance for error, variance in zip(errors, variances, strict=True)]))
        assert np.mean(ratios) == pytest.approx(gain.sum() * deviation**2, rel=0.2)


def test_results_repeat_and_do_not_depend_on_the_batch(monkeypatch):
    """The same samples and seed give the same bytes, and batches of another size the same values to rounding."""
    tflite = builders.classifier()
    samples = builders.samples(tflite, 10)
    first, second = (noise_gains(tflite, samples, {}) for _ in range(2))
    monkeypatch.setattr(noise_gain, "GRADIENT_BYTES", 40_000)
    other = noise_gains(tflite, samples, {})
    for index, value in first.items():
        np.testing.assert_array_equal(value.total, second[index].total)
        np.testing.assert_allclose(value.total, other[index].total, rtol=1e-3)


def test_classes_are_replaced_by_what_they_come_from():
    """A model that returns a class by ARG_MAX is differentiated at the scores before it."""
    net = builders.Net()
    x, scores = net.tensor("x", (1, 6)), net.tensor("scores", (1, 4))
    net.op("FULLY_CONNECTED", [x, net.weights("w", 4, 6), net.weights("b", 4)], [scores])
    soft, index = net.tensor("soft", (1, 4)), net.tensor("class", (1,), dtype="INT64")
    net.op("SOFTMAX", [scores], [soft], beta=1.0)
    net.op("ARG_MAX", [soft, net.constant("axis", [1], "INT32")], [index], outputType=4)
    tflite = net.build([x], [index])
    assert set(noise_gains(tflite, builders.samples(tflite, 4), {})) == {x, scores}


def test_a_function_serves_files_with_other_constants_of_layers():
    """What was prepared for one file gives the gains of another, as its own function does; another graph is refused."""
    tflite = builders.classifier()
    layers = find_layers(read_model(tflite).main)
    random = np.random.default_rng(5)
    graph = read_model(tflite).main
    changed = set_constants(
        tflite,
        {
            index: constant_values(graph, index) + random.normal(0, 0.1, graph.tensors[index].shape).astype(np.float32)
            for layer in layers
            for index in (layer.weights, layer.bias)
        },
    )
    samples = builders.samples(tflite, 6)
    peaks = {layer.result: np.full((2, layer.output_channels), 0.5) for layer in layers}
    function = GainFunction(tflite, peaks)
    assert function.serves(changed, peaks) and not function.serves(changed, {})
    assert not function.serves(builders.two_in_two_out(), peaks)
    alone = noise_gains(changed, samples, peaks)
    for index, gain in function(changed, samples, peaks).items():
        for part in ("active", "total", "clipping"):
            np.testing.assert_allclose(getattr(gain, part), getattr(alone[index], part), rtol=1e-5)
    before = noise_gains(tflite, samples, peaks)
    assert any(not np.allclose(before[index].total, alone[index].total) for index in alone)
