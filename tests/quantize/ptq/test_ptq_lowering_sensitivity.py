"""The sensitivity of an activation predicts how much noise in it adds to the logits."""

import builders
import numpy as np
import pytest

from edgepack.quantize.ptq.lowering import LoweredModel
from edgepack.quantize.ptq.lowering.sensitivity import sensitivities

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("make", [builders.classifier, builders.two_in_two_out], ids=["one", "two"])
def test_noise_adds_what_the_sensitivity_predicts(make):
    """Noise in one activation raises the noise-to-signal ratio of the logits, averaged over outputs, as predicted."""
    from edgepack.quantize.ptq.lowering.differentiable_logits import differentiable_logits

    tflite = make()
    lowered = LoweredModel(tflite)
    samples = builders.samples(tflite, 48)
    result = sensitivities(lowered, samples, batch_bytes=40_000)
    inputs = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    reference = lowered.run(inputs)
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
            logits = differentiable_logits(lowered)
            ratios.append(
                np.mean(
                    [
                        np.square(noisy[k] - reference[k]).sum() / np.var(reference[k], axis=0).sum() / len(samples)
                        for k in logits
                    ]
                )
            )
        assert np.mean(ratios) == pytest.approx(gain.sum() * deviation**2, rel=0.2)


def test_results_repeat_and_do_not_depend_on_the_batch():
    """The same samples and seed give the same bytes, and batches of another size the same values to rounding."""
    tflite = builders.classifier()
    samples = builders.samples(tflite, 10)
    first, second = (sensitivities(LoweredModel(tflite), samples) for _ in range(2))
    other = sensitivities(LoweredModel(tflite), samples, batch_bytes=40_000)
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
    assert set(sensitivities(LoweredModel(tflite), builders.samples(tflite, 4))) == {x, scores}
