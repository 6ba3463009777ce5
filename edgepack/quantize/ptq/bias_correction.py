"""Bias correction: restore the mean of every layer's output that rounding and clipping shifted.

Empirical, layer by layer in file order: the mean output of the float model's weights on the float model's inputs is
compared with the mean output of the integer weights on the integer model's inputs, both before the activation. Nagel et
al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, read_model
from edgepack.quantize.ptq.activations import Sample, input_patches, iterate_activations
from edgepack.quantize.ptq.layers import (
    Doubles,
    Floats,
    Layer,
    constant_values,
    find_layers,
    set_constants,
    weighted_ops,
)

Quantize = Callable[[bytes], bytes]

#: Limit of the positions of the mean input that are used: in practice, all of them.
_POSITIONS = 1 << 16


def correct_biases(
    reference: bytes,
    tflite: bytes,
    quantize: Quantize,
    samples: Sequence[Sample],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> bytes:
    """Return the float model with biases that correct the mean output of the integer file's layers.

    Args:
        reference: The float model whose layers' mean outputs are to be restored.
        tflite: The same model, from which the integer file is made; no two layers share a bias.
        quantize: Quantizes a float model to the integer file.
        samples: Calibration samples.
        progress: Called with (layers done, layers).
    """
    reference_graph = read_model(reference).main
    layers = [layer for layer in find_layers(read_model(tflite).main) if layer.bias >= 0]
    expected = _mean_outputs(reference, reference_graph, layers, samples)
    # Only biases change: the integer file is made once, and its integer biases follow the float ones.
    quantized = quantize(tflite)
    graph = read_model(quantized).main
    ops = weighted_ops(graph)
    biases: dict[int, Floats] = {}
    for number, layer in enumerate(layers):
        if progress is not None:
            progress(number, len(layers))
        op = ops[layer.position]
        (mean_input,) = _mean_activations(quantized, [op.inputs[0]], samples)
        actual = mean_output(layer, real_weights(graph, op.inputs[1]), mean_input)
        bias = (constant_values(reference_graph, layer.bias) + expected[number] - actual).astype(np.float32)
        biases[layer.bias] = bias
        quantized = set_constants(quantized, {op.inputs[2]: _quantized_bias(graph, op.inputs[2], bias)})
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


def mean_output(layer: Layer, weights: Doubles, mean_input: Doubles) -> Doubles:
    """Return the mean of a layer's output before bias and activation, per channel.

    Args:
        layer: The layer.
        weights: Real weights in the layer's shape.
        mean_input: Its input, averaged over samples: a layer is linear, so its mean output follows from that.
    """
    mean_patch = input_patches(layer, mean_input, _POSITIONS).mean(axis=0, dtype=np.float64)
    rows = np.moveaxis(weights, layer.axis, 0).reshape(layer.output_channels, -1)
    result: Doubles = (rows * mean_patch).sum(axis=1) if layer.depthwise else rows @ mean_patch
    return result


def _mean_outputs(reference: bytes, graph: Graph, layers: Sequence[Layer], samples: Sequence[Sample]) -> list[Doubles]:
    mean_inputs = _mean_activations(reference, [layer.source for layer in layers], samples)
    return [
        mean_output(layer, constant_values(graph, layer.weights).astype(np.float64), mean_input)
        for layer, mean_input in zip(layers, mean_inputs, strict=True)
    ]


def _mean_activations(tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]) -> list[Doubles]:
    totals: list[Doubles] = []
    for values in iterate_activations(tflite, tensors, samples):
        totals = [a + b for a, b in zip(totals, values, strict=True)] if totals else [np.array(v) for v in values]
    return [total / len(samples) for total in totals]
