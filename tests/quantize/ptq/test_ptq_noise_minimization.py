"""The noise estimate predicts noise, and channel scales and ranges by it lower the noise of the int8 file."""

import builders
import numpy as np
import pytest
from ptq_models import applied, chain, minmax, noise_gains, residual, subject

from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.clipping_error import THRESHOLDS, channel_statistics
from edgepack.quantize.ptq.lowering import LoweredModel
from edgepack.quantize.ptq.lowering.differentiable_logits import differentiable_logits
from edgepack.quantize.ptq.noise_minimization import BALANCE, BOUNDS
from edgepack.quantize.ptq.step import Fit


@pytest.mark.slow
def test_gains_predict_noise():
    """Noise in a hidden activation adds the noise that its gains predict to the logits, within 20 %."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 32)
    lowered = LoweredModel(tflite)
    index = tensor_keys(lowered.graph).index("point")
    (end,) = differentiable_logits(lowered)
    inputs = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    values = lowered.run(inputs)
    random, power = np.random.default_rng(2), 0.0
    for _ in range(20):
        noise = random.normal(0, 1e-3, values[index].shape) * (values[index].numpy() != 0)

        def add(number, value, noise=noise):
            return value + noise.astype(np.float32) if number == index else value

        noisy = lowered.run(inputs, transform=add)[end]
        power += float(np.square(noisy - values[end], dtype=np.float64).sum()) / 20 / 32
    expected = 1e-6 * float(noise_gains(tflite, samples, {})[index].active.sum())
    assert power == pytest.approx(expected, rel=0.2)


def test_clipping_error_extends_beyond_the_samples():
    """Clipping error decreases with the bound, matches the samples below their maximum and is positive beyond it."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 50)
    index = tensor_keys(read_model(tflite).main).index("dense")
    statistics = channel_statistics(tflite, [index], samples)[index]
    outputs = np.concatenate([out[0] for out in logits(tflite, samples)])
    np.testing.assert_allclose(
        statistics.peak, [np.maximum(-outputs.min(0), 0), np.maximum(outputs.max(0), 0)], rtol=1e-5
    )
    assert (np.diff(statistics.clipped, axis=1) <= 1e-12).all()
    half = statistics.peak[1] * 0.5
    cut = np.square(np.maximum(outputs - half, 0)).sum(axis=0) / 50
    near = int(np.argmin(np.abs(THRESHOLDS - 0.5)))
    assert THRESHOLDS[near] == pytest.approx(0.5)
    assert (statistics.clipping_error(1, half) >= cut * 0.999 - 1e-9).all()
    active = statistics.peak[1] > 0
    assert (statistics.clipping_error(1, statistics.peak[1] * 1.02)[active] > 0).any()
    assert (statistics.clipping_error(1, statistics.peak[1] * 2.0) == 0).all()


def test_expected_clipping_error_is_leave_one_out():
    """The next sample is expected to exceed the largest value as the largest exceeds the second largest."""
    tflite = chain("RELU", 2.0)
    samples = builders.samples(tflite, 30)
    index = tensor_keys(read_model(tflite).main).index("dense")
    statistics = channel_statistics(tflite, [index], samples)[index]
    outputs = np.sort(np.concatenate([out[0] for out in logits(tflite, samples)]), axis=0)[::-1]
    live = outputs[1] > 0
    over = np.minimum(outputs[0, live] / outputs[1, live], 1.5) - 1.0
    assert over.max() > 0
    np.testing.assert_allclose(
        statistics.clipping_error(1, statistics.peak[1])[live],
        np.square(over).mean() * np.square(outputs[0, live]) / 30,
        rtol=1e-4,
    )


@pytest.mark.slow
def test_clipping_gain_depends_on_where_clipping_occurs():
    """Clipping what RELU drops after a sum has a low gain; clipping that adds up over an image has a high one."""
    net = builders.Net(8)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "stem", (1, 8, 8, 3), 8, "RELU")
    b = net.conv(a, "branch", (1, 8, 8, 8), 8, "NONE")
    c = net.conv(x, "other", (1, 8, 8, 3), 8, "NONE")
    total = net.tensor("sum", (1, 8, 8, 8))
    net.op("ADD", [b, c], [total], fusedActivationFunction=1)
    end = net.tensor("end", (1, 8))
    net.op("MEAN", [total, net.constant("axes", [1, 2], "INT32")], [end])
    tflite = net.build([x], [end], (["image"], ["scores"]))
    samples = builders.samples(tflite, 32)
    index = tensor_keys(read_model(tflite).main).index("branch")
    peak = channel_statistics(tflite, [index], samples)[index].peak
    below, above = noise_gains(tflite, samples, {index: peak})[index].clipping
    assert below.max() < 0.5 < above.min()
    assert (above > 1.5).any()
    np.testing.assert_array_equal(noise_gains(tflite, samples, {})[index].clipping, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "clips", "least"), [(chain, False, 4.0), (lambda: chain("RELU6"), True, 0.5), (residual, False, 0.5)]
)
def test_balance_keeps_the_function_and_lowers_the_noise(make, clips, least):
    """Scaled channels keep the float logits, except for rare clipping by RELU6, and reduce the int8 noise."""
    tflite = make()
    samples, unseen = builders.samples(tflite, 40), builders.samples(tflite, 60, seed=9)
    about = subject(tflite, samples, "medium")
    reference = logits(tflite, unseen)
    scaled = applied(BALANCE, "channel scales", about, {})
    # About the mean: the same model has 2 dB less than with the energy of its offsets counted.
    assert snr_db(reference, logits(scaled.tflite, unseen)) > (27 if clips else 50)
    both = applied(BOUNDS, "ranges by noise", subject(scaled.tflite, samples), minmax(scaled.tflite, samples))
    plain = about.file(Fit(about.tflite, about.tflite, minmax(about.tflite, samples)))
    gain = snr_db(reference, logits(about.file(both), unseen)) - snr_db(reference, logits(plain, unseen))
    assert gain > least


@pytest.mark.slow
def test_ranges_by_noise_change_no_weights_and_hold_the_input():
    """The step that chooses ranges leaves the model alone, and the input keeps every value of the samples."""
    tflite = chain("RELU", 2.0)
    about = subject(tflite, builders.samples(tflite, 20), "medium")
    plain = minmax(about.tflite, about.samples)
    fit = applied(BOUNDS, "ranges by noise", about, plain)
    assert fit.tflite == about.tflite
    assert fit.ranges.keys() == plain.keys()
    assert fit.ranges != plain
    assert fit.ranges["x"] == pytest.approx(plain["x"], rel=1e-5)
    assert fit.ranges["probabilities"] == plain["probabilities"]
