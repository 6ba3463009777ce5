"""Bias correction: restore the mean of every layer's output that rounding and clipping shifted.

The mean output of the float model's weights on the float model's inputs is compared with the mean output of the integer
weights on the integer model's inputs, both before the activation. Nagel et al. 2019, "Data-Free Quantization Through
Weight Equalization and Bias Correction", section 4.2. There the whole model runs once per layer; here once per part of
the model, whose layers are corrected together, the parts in file order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.choices import Effort
from edgepack.graph import Graph, read_model
from edgepack.quantize.ptq.activations import Sample, renamed, run_activations
from edgepack.quantize.ptq.gptq import mean_shift
from edgepack.quantize.ptq.layers import (
    Doubles,
    Floats,
    Layer,
    constant_values,
    find_layers,
    set_constants,
    weighted_ops,
)
from edgepack.quantize.ptq.moments import Moments, evenly_spaced, input_patches
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import BIAS_PARTS, BIAS_SAMPLES, CHEAP_WORK

#: Limit of the positions of the mean input that are used: in practice, all of them.
_POSITIONS = 1 << 16


def correct_biases(
    reference: bytes,
    tflite: bytes,
    quantize: Callable[[bytes], bytes],
    samples: Sequence[Sample],
    *,
    progress: Callable[[int, int], None] = lambda done, parts: None,
) -> bytes:
    """Return the float model with biases that correct the mean output of the integer file's layers.

    Args:
        reference: The float model whose layers' mean outputs are to be restored.
        tflite: The same graph, from which the integer file is made; no two layers share a bias.
        quantize: Quantizes a float model to the integer file.
        samples: Calibration samples.
        progress: Called with (parts done, parts).
    """
    source = read_model(reference)
    graph = source.main
    layers = [layer for layer in find_layers(graph) if layer.bias >= 0]
    expected = {
        layer.position: mean_output(graph, layer, constant_values(graph, layer.weights), mean)
        for layer, mean in zip(
            layers, _mean_inputs(reference, [layer.source for layer in layers], samples), strict=True
        )
    }
    # Only biases change: the integer file is made once, and its integer biases follow the float ones.
    quantized = quantize(tflite)
    integer = read_model(quantized)
    ops = weighted_ops(integer.main)
    stored = renamed(samples, source, integer)
    biases: dict[int, Floats] = {}
    parts = [part for part in np.array_split(np.arange(len(layers)), min(BIAS_PARTS, len(layers))) if len(part)]
    for done, part in enumerate(parts):
        progress(done, len(parts))
        chosen = [layers[i] for i in part]
        inputs = [ops[layer.position].inputs[layer.data_position] for layer in chosen]
        changes: dict[int, npt.NDArray[Any]] = {}
        for layer, mean in zip(chosen, _mean_inputs(quantized, inputs, stored), strict=True):
            op = ops[layer.position]
            weights = real_weights(integer.main, op.inputs[1])
            actual = mean_output(graph, layer, weights, mean)
            bias = (constant_values(graph, layer.bias) + expected[layer.position] - actual).astype(np.float32)
            biases[layer.bias] = bias
            target = op.inputs[layer.bias_position]
            changes[target] = _quantized_bias(integer.main, target, bias)
        quantized = set_constants(quantized, changes)
    return set_constants(tflite, biases)


def _quantized_bias(graph: Graph, index: int, bias: Floats) -> npt.NDArray[Any]:
    """Return a bias in scale steps of the integer file's tensor, or unchanged where that is float."""
    tensor = graph.tensors[index]
    if tensor.quantization is None:
        return bias
    limit = np.iinfo(np.int32).max
    return np.clip(np.rint(bias / tensor.quantization.scale.astype(np.float64)), -limit, limit).astype(np.int32)


def real_weights(graph: Graph, index: int) -> Doubles:
    """Return the real values of int8 or float weights, in the tensor's shape."""
    tensor = graph.tensors[index]
    assert tensor.data is not None
    values = tensor.data.astype(np.float64)
    if tensor.quantization is None:
        return values
    scale = tensor.quantization.scale.astype(np.float64)
    if scale.size > 1:
        scale = scale.reshape([-1 if axis == tensor.quantization.axis else 1 for axis in range(tensor.rank)])
    return values * scale


def mean_output(graph: Graph, layer: Layer, weights: npt.NDArray[Any], mean_input: Doubles) -> Doubles:
    """Return the mean of a layer's output before bias and activation, per channel.

    Args:
        graph: The graph of the layer.
        layer: The layer.
        weights: Real weights in the layer's shape.
        mean_input: Its input, averaged over samples: a layer is linear, so its mean output follows from that.
    """
    patches = input_patches(graph, layer, mean_input.astype(np.float32), _POSITIONS)
    mean = patches.mean(axis=1, dtype=np.float64)
    return mean_shift(layer, layer.matrix(weights).astype(np.float64), Moments(patches.shape[1], mean, []))


def _mean_inputs(tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]) -> list[Doubles]:
    """Return the real values of tensors, averaged over samples."""
    model = read_model(tflite)
    wanted = sorted(set(tensors))
    totals: dict[int, Doubles] = {}
    for values in run_activations(tflite, wanted, samples):
        for index in wanted:
            totals[index] = totals.get(index, 0.0) + values(index).astype(np.float64)
    means = {}
    for index, total in totals.items():
        quantization = model.main.tensors[index].quantization
        mean = total / len(samples)
        if quantization is not None and model.main.tensors[index].dtype != "FLOAT32":
            mean = (mean - float(quantization.zero_point[0])) * float(quantization.scale[0])
        means[index] = mean
    return [means[index] for index in tensors]


class _Bias(Step):
    id = "bias"
    effort = Effort.MEDIUM
    source = "empirical bias correction on the integer file, Nagel et al. 2019, section 4.2"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        if not subject.layers:
            return []
        # EfficientNet-Lite0 gains 0.7 dB on other crops of the same photographs, and loses 0.6 to 1.3 dB on other
        # photographs: the closed form has taken the shift of each layer before.
        return [{self.id: "all layers"}] if subject.work <= CHEAP_WORK else []

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        model = correct_biases(
            fit.reference,
            fit.tflite,
            lambda tflite: subject.quantize(tflite, subject.rule, fit.ranges),
            evenly_spaced(view.samples, BIAS_SAMPLES),
            progress=lambda done, parts: subject.progress(self.id, done, parts),
        )
        return replace(fit, tflite=model)


BIAS = _Bias()
