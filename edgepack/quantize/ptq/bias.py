"""Bias correction: give every layer's output back the mean that rounding and clipping took from it.

Empirical, layer by layer in file order: the mean of what the float model's weights make of the float model's inputs,
against the mean of what the integer weights make of the integer model's inputs, both before the activation. Nagel et
al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, read_model
from edgepack.quantize.ptq.layers import Doubles, Floats, Layer, find_layers, set_constants, values_of, weighted_ops
from edgepack.quantize.ptq.observe import Sample, patches, watch

Quantize = Callable[[bytes], bytes]

#: Positions of one sample's mean input that are looked at: all of them, in practice.
_POSITIONS = 1 << 16


def correct_biases(
    right: bytes,
    tflite: bytes,
    quantize: Quantize,
    samples: Sequence[Sample],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> bytes:
    """Return the float model with biases that make the integer file's layers right on average.

    Args:
        right: The float model whose layers' outputs are the goal.
        tflite: The same model, biases of their own, that the integer file is made from.
        quantize: Makes the integer file of a float model.
        samples: Calibration samples.
        progress: Told (layers done, layers).
    """
    goal = read_model(right).main
    layers = [layer for layer in find_layers(read_model(tflite).main) if layer.bias >= 0]
    wanted = _means(right, goal, layers, samples)
    # Only biases change: the integer file is made once, and its integer biases follow the float ones.
    made = quantize(tflite)
    graph = read_model(made).main
    ops = weighted_ops(graph)
    changed: dict[int, Floats] = {}
    for done, layer in enumerate(layers):
        if progress is not None:
            progress(done, len(layers))
        op = ops[layer.place]
        (total,) = _mean_tensors(made, [op.inputs[0]], samples)
        have = mean_output(layer, real_weights(graph, op.inputs[1]), total)
        bias = (values_of(goal, layer.bias) + wanted[done] - have).astype(np.float32)
        changed[layer.bias] = bias
        made = set_constants(made, {op.inputs[2]: _integers(graph, op.inputs[2], bias)})
    return set_constants(tflite, changed)


def _integers(graph: Graph, index: int, bias: Floats) -> npt.NDArray[Any]:
    """Return a bias in steps of the integer file's tensor, or as it is where that is float."""
    tensor = graph.tensors[index]
    if tensor.quantization is None:
        return bias
    most = np.iinfo(np.int32).max
    return np.clip(np.rint(bias / tensor.quantization.scale.astype(np.float64)), -most, most).astype(np.int32)


def real_weights(graph: Graph, index: int) -> Doubles:
    """Return the real values of int8 or float weights, in their own shape."""
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
    seen = patches(layer, mean_input, _POSITIONS).mean(axis=0, dtype=np.float64)
    rows = np.moveaxis(weights, layer.axis, 0).reshape(layer.width, -1)
    result: Doubles = (rows * seen).sum(axis=1) if layer.depthwise else rows @ seen
    return result


def _means(right: bytes, goal: Graph, layers: Sequence[Layer], samples: Sequence[Sample]) -> list[Doubles]:
    inputs = _mean_tensors(right, [layer.source for layer in layers], samples)
    return [
        mean_output(layer, values_of(goal, layer.weights).astype(np.float64), total)
        for layer, total in zip(layers, inputs, strict=True)
    ]


def _mean_tensors(tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]) -> list[Doubles]:
    totals: list[Doubles] = []
    for seen in watch(tflite, tensors, samples):
        totals = [a + b for a, b in zip(totals, seen, strict=True)] if totals else [np.array(v) for v in seen]
    return [total / len(samples) for total in totals]
