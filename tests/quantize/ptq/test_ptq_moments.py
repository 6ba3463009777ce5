"""The moments of the layers' inputs are those of the values that the runtime computes."""

import builders
import numpy as np
import pytest
from ptq_models import chain, kinds, residual

from edgepack.graph import read_model
from edgepack.quantize.ptq import moments as module
from edgepack.quantize.ptq.activations import iterate_activations
from edgepack.quantize.ptq.layers import Layer, constant_values, find_layers
from edgepack.quantize.ptq.moments import evenly_spaced, input_patches, measure_moments

MODELS = pytest.mark.parametrize("make", [kinds, chain, residual, builders.classifier])


def _patches(layer: Layer, values: np.ndarray, result: tuple[int, ...]) -> np.ndarray:
    """Every input that a layer multiplies with its weights, by loops: (positions, groups, inputs)."""
    if layer.kernel is None:
        return values.reshape(-1, 1, layer.inputs)
    options, (height, width) = layer.op.options, layer.kernel
    strides, dilations = ([int(options.get(f"{kind}_{axis}", 1)) for axis in "hw"] for kind in ("stride", "dilation"))
    before = [0, 0]
    if options["padding"] == "SAME":
        for axis, size in enumerate((height, width)):
            reach = (result[1 + axis] - 1) * strides[axis] + (size - 1) * dilations[axis] + 1
            before[axis] = max(reach - values.shape[1 + axis], 0) // 2
    padded = np.pad(values, ((0, 0), (before[0], 99), (before[1], 99), (0, 0)))
    found = []
    for y in range(result[1]):
        for x in range(result[2]):
            rows = y * strides[0] + np.arange(height) * dilations[0]
            columns = x * strides[1] + np.arange(width) * dilations[1]
            window = padded[0][np.ix_(rows, columns)].reshape(height * width, layer.groups, -1)
            found.append(window.transpose(1, 0, 2).reshape(layer.groups, -1))
    return np.array(found)


@MODELS
@pytest.mark.parametrize("widest", [1536, 7])
def test_moments_are_those_of_the_activations(make, widest, monkeypatch):
    """Mean and second moment of all positions equal NumPy's, whole and in blocks on the diagonal."""
    monkeypatch.setattr(module, "WIDEST_BLOCK", widest)
    tflite, samples = make(), builders.samples(make(), 5)
    graph = read_model(tflite).main
    layers = find_layers(graph)
    measured = list(measure_moments(tflite, layers, samples))
    assert [layer.position for layer, _ in measured] == [layer.position for layer in layers]
    for layer, moments in measured:
        inputs = iterate_activations(tflite, [layer.source], samples)
        result = graph.tensors[layer.result].shape
        expected = np.concatenate([_patches(layer, values, result) for (values,) in inputs]).astype(np.float64)
        assert moments.count == len(expected)
        np.testing.assert_allclose(moments.mean, expected.mean(axis=0), rtol=1e-4, atol=1e-5)
        start = 0
        for block in moments.square:
            part = expected[:, :, start : start + block.shape[-1]]
            square = np.einsum("pgi,pgj->gij", part, part) / len(part)
            np.testing.assert_allclose(block, square, rtol=1e-4, atol=1e-5 * np.abs(square).max())
            start += block.shape[-1]
        assert start == layer.inputs


def test_memory_decides_how_often_the_model_runs_not_the_result(monkeypatch):
    """With room for one layer at a time the moments are the same to the last bit."""
    tflite = kinds()
    layers, samples = find_layers(read_model(tflite).main), builders.samples(tflite, 3)
    together = [moments for _, moments in measure_moments(tflite, layers, samples)]
    monkeypatch.setattr(module, "MOMENT_BYTES", 1)
    alone = [moments for _, moments in measure_moments(tflite, layers, samples)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.mean, other.mean)
        for left, right in zip(one.square, other.square, strict=True):
            np.testing.assert_array_equal(left, right)


def test_what_waits_to_be_multiplied_is_limited(monkeypatch):
    """Each layer keeps at most one sample's positions beyond the limit, and the moments are the same."""
    tflite, samples = chain(), builders.samples(chain(), 8)
    layers = find_layers(read_model(tflite).main)
    whole = [moments for _, moments in measure_moments(tflite, layers, samples)]
    limit, waiting = 2000, []
    add = module._Sums.add

    def watched(self, patches):
        add(self, patches)
        waiting.append((sum(part.nbytes for part in self._pending), patches.nbytes))

    monkeypatch.setattr(module, "PRODUCT_BYTES", limit)
    monkeypatch.setattr(module._Sums, "add", watched)
    limited = [moments for _, moments in measure_moments(tflite, layers, samples)]
    assert max(pending for pending, _ in waiting) < limit < max(size for _, size in waiting)
    for one, other in zip(whole, limited, strict=True):
        assert one.count == other.count
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(one.square[0], other.square[0], rtol=1e-5, atol=1e-7)


def test_few_positions_are_drawn_at_random_and_always_the_same():
    """A limit on the positions gives that many of the layer's positions, and the same ones again."""
    tflite = chain()
    graph = read_model(tflite).main
    layer = find_layers(graph)[0]
    values = builders.samples(tflite, 1)[0]["image"]
    every = input_patches(graph, layer, values, 1 << 20)
    some = input_patches(graph, layer, values, 10, seed=4)
    assert every.shape == (1, 64, 27) and some.shape == (1, 10, 27)
    rows = {row.tobytes() for row in every[0]}
    assert all(row.tobytes() in rows for row in some[0])
    np.testing.assert_array_equal(some, input_patches(graph, layer, values, 10, seed=4))
    assert (some != input_patches(graph, layer, values, 10, seed=5)).any()


@MODELS
def test_a_layer_is_its_patches_times_its_matrix(make):
    """Inputs times the layer's matrix plus bias equals the runtime's result, for every kind of layer."""
    tflite = make()
    graph = read_model(tflite).main
    sample = builders.samples(tflite, 1)
    for layer in find_layers(graph):
        weights = constant_values(graph, layer.weights)
        matrix = layer.matrix(weights)
        np.testing.assert_array_equal(layer.from_rows(matrix), weights)
        if layer.transposed:
            continue
        ((source, result),) = iterate_activations(tflite, [layer.source, layer.result], sample)
        patches = input_patches(graph, layer, source, 1 << 20)
        output = np.einsum("gpi,gri->pgr", patches, matrix).reshape(-1, layer.output_channels)
        output = output + constant_values(graph, layer.bias)
        if layer.op.options.get("fused_activation") in {"RELU", "RELU6"}:
            output = np.clip(output, 0, 6 if layer.op.options["fused_activation"] == "RELU6" else None)
        np.testing.assert_allclose(output.reshape(result.shape), result, rtol=1e-4, atol=1e-4)


def test_samples_are_taken_evenly():
    """At most as many as asked for, from the first to the last; fewer are all taken."""
    samples = [{"x": np.array(i)} for i in range(10)]
    assert [int(sample["x"]) for sample in evenly_spaced(samples, 4)] == [0, 3, 6, 9]
    assert evenly_spaced(samples, 20) == samples


def test_a_depthwise_layer_is_summed_as_its_patches_are():
    """Products taken side by side in memory are those of each channel's own matrix."""
    tflite = kinds()
    layers = [layer for layer in find_layers(read_model(tflite).main) if layer.depthwise]
    samples = builders.samples(tflite, 3)
    graph = read_model(tflite).main
    assert layers
    for layer, moments in measure_moments(tflite, layers, samples):
        sources = [values[0] for values in iterate_activations(tflite, [layer.source], samples)]
        patches = np.concatenate([input_patches(graph, layer, values, 1 << 20) for values in sources], axis=1)
        expected = np.swapaxes(patches, 1, 2) @ patches / patches.shape[1]
        np.testing.assert_allclose(moments.square[0], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(moments.mean, patches.mean(axis=1), rtol=1e-4, atol=1e-6)
