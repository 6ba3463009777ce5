"""The last layers make up for what all errors before them do to the scores, without touching other layers."""

import builders
import numpy as np
import pytest
from ptq_models import PER_TENSOR, RULE, chain, kinds, minmax, subject

from edgepack.graph import read_model
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.last_layers import (
    BIASES,
    SCORES,
    Residual,
    last_layers,
    measure_residuals,
    measure_results,
    refit,
    regressed_layers,
)
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants
from edgepack.quantize.ptq.step import Fit
from edgepack.quantize.ptq.tuning import RIDGES
from edgepack.quantize.quantizer import quantize


def _applied(tflite: bytes, samples: list, setting, change=None) -> tuple[Fit, Fit]:
    """Return a fit and what the step makes of it; `change` falsifies the weights that are quantized."""
    about = subject(tflite, samples)
    fit = Fit(about.tflite, change(about.tflite) if change else about.tflite, minmax(tflite, samples))
    return fit, SCORES.apply(fit, setting, about.view(range(len(samples))), about)


def _shrunk(tflite: bytes) -> bytes:
    """A file whose first layer computes nine tenths of what it should, so that all scores are too small."""
    graph = read_model(tflite).main
    layer = find_layers(graph)[0]
    return set_constants(tflite, {i: 0.9 * constant_values(graph, i) for i in (layer.weights, layer.bias)})


def _snr(tflite: bytes, fit: Fit, samples: list, rule=RULE) -> float:
    return snr_db(logits(tflite, samples), logits(quantize(fit.tflite, rule, fit.ranges).tflite, samples))


@pytest.mark.parametrize("make", [builders.classifier, chain, kinds])
def test_a_common_error_is_taken_from_the_scores(make):
    """Errors that depend on the last layer's inputs are learned from samples, and gone on others."""
    tflite = make()
    samples, unseen = builders.samples(tflite, 100), builders.samples(tflite, 50, seed=9)
    before, ridge = _applied(tflite, samples, (0.01,), _shrunk)
    _, biases = _applied(tflite, samples, BIASES, _shrunk)
    plain, corrected, full = (_snr(tflite, fit, unseen) for fit in (before, biases, ridge))
    assert corrected >= plain - 0.1
    assert full > plain + 1.0


def test_other_layers_stay_as_they_are():
    """Only last layers change, to weights on their int8 grid."""
    tflite = builders.classifier()
    before, after = _applied(tflite, builders.samples(tflite, 40), (RIDGES[0],))
    graphs = [read_model(fit.tflite).main for fit in (before, after)]
    last = {layer.position for layer in regressed_layers(graphs[0])}
    assert last and len(last) < len(find_layers(graphs[0]))
    for layer in find_layers(graphs[0]):
        one, other = (constant_values(graph, layer.weights) for graph in graphs)
        assert np.array_equal(one, other) == (layer.position not in last)
        if layer.position in last:
            rows = layer.rows(other)
            steps = rows / (np.abs(rows).max(axis=1, keepdims=True) / 127)
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_a_stronger_penalty_changes_less():
    """With an infinite penalty the weights are those that were there, and the bias takes the mean."""
    generator = np.random.default_rng(1)
    tflite = builders.classifier()
    graph = read_model(tflite).main
    (layer,) = regressed_layers(graph)
    weights, bias = constant_values(graph, layer.weights), constant_values(graph, layer.bias)
    inputs = generator.normal(size=(60, layer.inputs))
    missing = inputs @ generator.normal(0, 0.1, (layer.inputs, layer.output_channels)) + 0.5
    residual = Residual(inputs, missing, 1)
    moved = []
    for penalty in (0.01, 1.0, 100.0, 1e12):
        rounded, shifted = refit(layer, weights, bias, residual, (penalty,), per_tensor=False)
        moved.append(float(np.square(rounded - weights).sum()))
        restored = layer.matrix(rounded - weights)[0] @ inputs.mean(axis=0) + shifted - bias
        np.testing.assert_allclose(restored, missing.mean(axis=0), atol=1e-5)
    assert moved == sorted(moved, reverse=True)
    _, shifted = refit(layer, weights, bias, residual, BIASES, per_tensor=False)
    np.testing.assert_allclose(shifted - bias, missing.mean(axis=0), atol=1e-5)


def test_inputs_that_never_change_leave_the_mean_only():
    """Nothing can be regressed on constant inputs."""
    tflite = builders.classifier()
    graph = read_model(tflite).main
    (layer,) = regressed_layers(graph)
    weights, bias = constant_values(graph, layer.weights), constant_values(graph, layer.bias)
    residual = Residual(np.ones((5, layer.inputs)), np.full((5, layer.output_channels), 0.25), 1)
    same, shifted = refit(layer, weights, bias, residual, (RIDGES[0],), per_tensor=False)
    np.testing.assert_array_equal(same, weights)
    np.testing.assert_allclose(shifted, bias + 0.25, rtol=1e-6)


@pytest.mark.parametrize("make", [builders.classifier, chain, kinds, builders.two_in_two_out])
def test_residuals_are_differences_of_the_same_positions(make):
    """Positions that are drawn are the same in both files: of a file that equals the float model nothing is missing."""
    tflite = make()
    samples = builders.samples(tflite, 6)
    expected = measure_results(tflite, samples, range(6), 7)
    for residual in measure_residuals(tflite, tflite, samples, range(6), expected, 7).values():
        assert len(residual.missing) in {6, 42}
        np.testing.assert_allclose(residual.missing, 0.0, atol=1e-6)


def test_the_step_is_tried_where_it_can_do_something():
    """Where there is a last layer; a model without layers has none."""
    samples = builders.samples(builders.classifier(), 4)
    changes = SCORES.configurations(subject(builders.classifier(), samples), {})
    assert changes == [*({"scores": (ridge,)} for ridge in RIDGES), {"scores": BIASES}]
    net = builders.Net()
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1, 4))
    net.op("TANH", [x], [y])
    tflite = net.build([x], [y])
    assert SCORES.configurations(subject(tflite, builders.samples(tflite, 4)), {}) == []
    graph = read_model(builders.classifier()).main
    assert last_layers(graph) == {find_layers(graph)[-1].op.index}


def test_one_scale_for_all_channels_is_kept():
    """Weights of a per-tensor rule stay on one grid."""
    tflite = builders.classifier()
    samples = builders.samples(tflite, 30)
    about = subject(tflite, samples, rule=PER_TENSOR)
    fit = Fit(about.tflite, about.tflite, minmax(tflite, samples))
    graph = read_model(SCORES.apply(fit, (RIDGES[0],), about.view(range(30)), about).tflite).main
    (layer,) = regressed_layers(graph)
    weights = constant_values(graph, layer.weights)
    steps = weights / (np.abs(weights).max() / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
