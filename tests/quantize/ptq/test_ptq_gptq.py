"""Rounding with error feedback: less error on unseen inputs than nearest, on the grid that the quantizer uses."""

import builders
import numpy as np
import pytest
from ptq_models import PER_TENSOR, RULE, applied, chain, kinds, minmax, residual, subject

from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq import gptq
from edgepack.quantize.ptq.gptq import ROUNDING, SETTINGS, _inverse_triangle, round_rows
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants, weighted_ops
from edgepack.quantize.ptq.moments import measure_moments
from edgepack.quantize.ptq.step import Fit
from edgepack.quantize.quantizer import quantize


def _correlated(tflite: bytes, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Samples whose neighbouring values are alike, as those of images are."""
    samples = builders.samples(tflite, count, seed=seed)
    for sample in samples:
        for name, values in sample.items():
            smooth = values + sum(np.roll(values, shift, axis) for shift in (1, 2) for axis in (1, 2, 3))
            sample[name] = smooth.astype(np.float32)
    return samples


@pytest.mark.parametrize("rule", [RULE, PER_TENSOR], ids=["per-channel", "per-tensor"])
@pytest.mark.parametrize("make", [kinds, chain, residual])
def test_outputs_of_layers_are_closer_than_with_nearest_rounding(make, rule):
    """On the inputs of unseen samples, the error of the layers' outputs falls, and of no layer rises by much."""
    tflite = make()
    about = subject(tflite, _correlated(tflite, 40, 0), rule=rule)
    files = {setting: applied(ROUNDING, setting, about).tflite for setting in ("gptq", "nearest")}
    graphs = {setting: read_model(file).main for setting, file in files.items()}
    errors: dict[str, list[float]] = {"gptq": [], "nearest": []}
    for layer, moments in measure_moments(about.tflite, about.layers, _correlated(tflite, 40, 9)):
        original = layer.matrix(constant_values(about.graph, layer.weights)).astype(np.float64)
        for setting, graph in graphs.items():
            change = layer.matrix(constant_values(graph, layer.weights)).astype(np.float64) - original
            errors[setting].append(float(np.einsum("gri,gij,grj->", change, moments.square[0], change)))
    ratio = np.array(errors["gptq"]) / np.array(errors["nearest"])
    assert np.exp(np.log(ratio).mean()) < 0.75
    assert ratio.max() < 1.1


@pytest.mark.parametrize(
    "rule", [RULE, PER_TENSOR, SchemeRule("int8", "INT8", "per-tensor")], ids=["per-channel", "per-tensor", "dense"]
)
@pytest.mark.parametrize("make", [kinds, chain])
def test_rounded_weights_survive_the_quantizer(make, rule):
    """The quantizer derives the integers that were fitted, for every kind of layer and granularity."""
    tflite = make()
    about = subject(tflite, builders.samples(tflite, 20), rule=rule)
    fit = applied(ROUNDING, "gptq", about)
    graph, quantized = read_model(fit.tflite).main, read_model(about.file(fit)).main
    moved = 0
    for layer in find_layers(graph):
        tensor = quantized.tensors[weighted_ops(quantized)[layer.position].inputs[1]]
        scale = tensor.quantization.scale
        assert (scale.size == 1) == about.per_tensor(layer) or layer.output_channels == 1
        real = tensor.data.astype(np.float32) * (layer.per_output_channel(scale) if scale.size > 1 else scale)
        np.testing.assert_allclose(real, constant_values(graph, layer.weights), rtol=1e-5, atol=1e-7)
        before = constant_values(about.graph, layer.weights)
        plain = np.rint(before / (layer.per_output_channel(scale) if scale.size > 1 else scale))
        moved += int((tensor.data != plain).sum())
    assert moved > 20


@pytest.mark.parametrize("setting", ["gptq", "nearest"])
def test_biases_restore_the_means_of_every_layer(setting):
    """The mean output of each rounded layer on the float model's inputs is the float layer's, per channel."""
    tflite = kinds()
    about = subject(tflite, _correlated(tflite, 24, 0))
    fit = applied(ROUNDING, setting, about)
    graph = read_model(fit.tflite).main
    for layer, moments in measure_moments(about.tflite, about.layers, about.samples):
        change = layer.matrix(constant_values(about.graph, layer.weights)) - layer.matrix(
            constant_values(graph, layer.weights)
        )
        shift = (change.astype(np.float64) @ moments.mean[..., np.newaxis]).reshape(layer.output_channels, -1)
        strides = 4 if layer.transposed else 1
        restored = constant_values(graph, layer.bias) - constant_values(about.graph, layer.bias)
        np.testing.assert_allclose(restored, shift.sum(axis=1) / strides, rtol=1e-3, atol=1e-5)
        assert np.abs(shift).max() > 1e-5


def test_the_mean_of_the_scores_comes_back():
    """Rounded to nearest without a correction the scores are off; the closed form brings their mean back."""
    tflite = kinds()
    samples = _correlated(tflite, 40, 0)
    about = subject(tflite, samples)
    fit = applied(ROUNDING, "nearest", about)
    biases = {layer.bias: constant_values(about.graph, layer.bias) for layer in about.layers}

    def shift(model: bytes) -> float:
        expected, actual = (np.mean([builders.run(m, s)[0] for s in samples], axis=0) for m in (tflite, model))
        return float(np.abs(expected - actual).max())

    assert shift(fit.tflite) < 0.5 * shift(set_constants(fit.tflite, biases))


def test_uncorrelated_inputs_leave_nothing_to_compensate():
    """With a second moment that is diagonal every weight is rounded to its nearest value."""
    random = np.random.default_rng(0)
    rows = random.normal(0, 1, (1, 6, 12))
    scale = np.abs(rows).max(axis=2, keepdims=True) / 127
    square = np.diag(random.uniform(0.5, 2.0, 12))[np.newaxis]
    np.testing.assert_allclose(round_rows(rows, scale, [square], 1000), np.rint(rows / scale) * scale, atol=1e-12)


@pytest.mark.parametrize("square", [np.zeros((1, 8, 8)), np.ones((1, 8, 8))], ids=["never-active", "one-direction"])
def test_inputs_without_information_are_rounded_all_the_same(square):
    """Inputs that are always zero or always equal give finite weights on the grid, at most a few steps away."""
    rows = np.random.default_rng(1).normal(0, 1, (1, 3, 8))
    scale = np.abs(rows).max(axis=2, keepdims=True) / 127
    result = round_rows(rows, scale, [square], 4)
    integers = result / scale
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-9)
    assert np.abs(result - rows).max() < 8 * scale.max()


def test_a_layer_of_zeros_and_samples_of_zeros_pass():
    """Weights that are all zero and samples that are all zero neither fail nor produce a value that is no number."""
    tflite = kinds()
    graph = read_model(tflite).main
    tflite = set_constants(
        tflite, {layer.weights: np.zeros(layer.shape, np.float32) for layer in find_layers(graph)[:2]}
    )
    samples = [{"image": np.zeros((1, 8, 8, 4), np.float32)}] * 3
    about = subject(tflite, samples)
    fit = applied(ROUNDING, "gptq", about, minmax(tflite, builders.samples(tflite, 4)))
    graph = read_model(fit.tflite).main
    assert all(np.isfinite(constant_values(graph, layer.weights)).all() for layer in find_layers(graph))
    assert read_model(quantize(fit.tflite, RULE, fit.ranges).tflite).main.ops


@pytest.mark.parametrize("kind", ["negative", "not a number", "zero"])
def test_moments_without_a_factor_are_rounded_to_nearest(kind):
    """What rounding errors leave of the moments of inputs that hardly vary fails no layer, nor all of them."""
    generator = np.random.default_rng(0)
    rows, scale = generator.normal(size=(1, 5, 70)), np.full((1, 5, 1), 0.05)
    square = {"negative": -np.eye(70)[np.newaxis], "zero": np.zeros((1, 70, 70))}.get(
        kind, np.full((1, 70, 70), np.nan)
    )
    rounded = round_rows(rows, scale, [square], 100)
    np.testing.assert_allclose(rounded, np.clip(np.rint(rows / scale), -127, 127) * scale)


def test_samples_that_hardly_differ_are_no_failure():
    """A network whose activations are almost the same for all samples is rounded in every setting."""
    tflite = kinds()
    samples = builders.samples(tflite, 12)
    for sample in samples[1:]:
        for name in sample:
            sample[name] = samples[0][name] + np.float32(1e-6) * sample[name]
    about = subject(tflite, samples)
    for setting in SETTINGS:
        graph = read_model(applied(ROUNDING, setting, about).tflite).main
        assert all(np.isfinite(constant_values(graph, layer.weights)).all() for layer in about.layers)


def test_inverse_triangles_are_inverse():
    """By halves, of sizes around the limit and odd ones, in stacks."""
    for size in (1, 63, 64, 65, 131, 300):
        upper = np.triu(np.random.default_rng(size).normal(size=(2, size, size))) / size + 2 * np.eye(size)
        np.testing.assert_allclose(
            _inverse_triangle(upper) @ upper, np.broadcast_to(np.eye(size), upper.shape), atol=1e-9
        )


def test_another_granularity_of_dense_layers_measures_no_moments_again(monkeypatch):
    """Their moments are kept, and give what measuring them anew gives."""
    tflite = builders.classifier()
    samples = builders.samples(tflite, 20)
    dense = SchemeRule("int8", "INT8", fully_connected="per-tensor", weights="per-channel")
    anew = applied(ROUNDING, "gptq", subject(tflite, samples, rule=dense)).tflite
    first, second = subject(tflite, samples, rule=RULE), subject(tflite, samples, rule=dense)
    view = first.view(range(20))
    fit = Fit(first.tflite, first.tflite)
    ROUNDING.apply(fit, "gptq", view, first)
    measured: list[int] = []
    whole = gptq.measure_moments
    monkeypatch.setattr(
        gptq, "measure_moments", lambda *a: (measured.append(layer.position) or (layer, m) for layer, m in whole(*a))
    )
    assert ROUNDING.apply(fit, "gptq", view, second).tflite == anew
    assert measured == []
