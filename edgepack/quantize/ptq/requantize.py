"""Quantize variants of one model again and again, fast: what changes is written into a file that was quantized before.

A search quantizes the same graph dozens of times with other weights, biases and ranges. The quantizer's file is the
same each time but for the constants of the layers and the scales and zero points of activations. Which range decides
which scale is not assumed but observed: the model is quantized once with ranges that differ from each other, and each
tensor of the result is matched with the range that its scale came from. Then the file is filled in with the true ranges
and compared with what the quantizer makes of them. Only where both are the same bytes is the quantizer left out for the
variants that follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgepack.graph import Graph, read_model
from edgepack.graph.edit import tensor_keys
from edgepack.graph.variant import remember_variant
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.bias_limits import (
    SMALLEST_RANGE,
    from_scale_rows,
    int8_parameters,
    raise_weights,
    scale_rows,
)
from edgepack.quantize.ptq.layers import find_layers, weighted_ops
from edgepack.quantize.ptq.variants import Place, Variants
from edgepack.quantize.quantizer import QuantizationRefused, quantize
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_constraints import fixed_range, same_scale_groups
from edgepack.quantize.scale_limits import bounded_ranges

#: Ranges are made to differ by up to this share, so that limits on scales hold with and without it alike.
_DIFFERENCE = 0.02

_INT8 = np.iinfo(np.int8)


class Requantizer:
    """Quantizes models to int8, variants of one that was quantized before in a fraction of the time.

    Variants have the same graph with other constants of layers or other ranges.
    """

    def __init__(self) -> None:
        self._templates: list[_Template] = []
        self._refused: list[Variants] = []

    def __call__(self, tflite: bytes, rule: SchemeRule, ranges: Mapping[str, Range]) -> bytes:
        """Return the int8 file: what `edgepack.quantize.quantizer.quantize` returns.

        Raises:
            QuantizationRefused: The quantizer refuses the model.
        """
        for template in self._templates:
            if template.rule == rule and template.variants.contains(tflite):
                filled = template.fill(tflite, ranges)
                return quantize(tflite, rule, ranges).tflite if filled is None else filled
        quantized = quantize(tflite, rule, ranges).tflite
        if not any(refused.contains(tflite) for refused in self._refused):
            variants = Variants.of(tflite)
            observed = _observe(variants, rule, ranges)
            if observed is not None and observed.fill(tflite, ranges) == quantized:
                self._templates.append(observed)
            else:
                self._refused.append(variants)
        return quantized


@dataclass(frozen=True)
class _Filled:
    """A layer of the quantized file.

    Attributes:
        source: Tensor index of its input there.
        weights: Tensor index of its weights there.
        bias: Tensor index of its bias there, -1 without one.
        float_weights: Place of the weights in the float file.
        float_bias: Place of the bias in the float file; None without one.
        axis: Dimension of the weights whose entries have scales of their own; None where all share one.
    """

    source: int
    weights: int
    bias: int
    float_weights: Place
    float_bias: Place | None
    axis: int | None


@dataclass
class _Template:
    """A quantized file, and how its arrays follow from the float file and the ranges.

    Attributes:
        variants: The float files that it is for.
        rule: The rule that it was quantized for.
        quantized: The file.
        layers: Its layers whose constants may change.
        fixed: Ranges that the kernels fix, by key.
        groups: Keys of the ranges that must be equal, because their tensors share a scale.
        ranges: Keys of the ranges that a tensor's scale comes from, all of them equal, and what is added to the zero
            point of an int8 tensor, by tensor index.
        scales: Places of scales by tensor index.
        zero_points: Places of zero points by tensor index.
        data: Places of constants by tensor index.
    """

    variants: Variants
    rule: SchemeRule
    quantized: bytes
    layers: list[_Filled] = field(default_factory=list)
    fixed: dict[str, Range] = field(default_factory=dict)
    groups: list[list[str]] = field(default_factory=list)
    ranges: dict[int, tuple[tuple[str, ...], int]] = field(default_factory=dict)
    scales: dict[int, Place] = field(default_factory=dict)
    zero_points: dict[int, Place] = field(default_factory=dict)
    data: dict[int, Place] = field(default_factory=dict)

    def fill(self, tflite: bytes, ranges: Mapping[str, Range]) -> bytes | None:
        """Return the quantized file of a variant; None where it has another form.

        Args:
            tflite: One of the variants.
            ranges: (minimum, maximum) by `tensor_keys`.
        """
        bounded = bounded_ranges(self._graph(tflite), ranges)
        if any(len({bounded.get(key) for key in group}) > 1 for group in self.groups):
            return None
        if any(bounded.get(key) != value for key, value in self.fixed.items()):
            return None
        out = bytearray(self.quantized)
        for tensor, (keys, offset) in self.ranges.items():
            if any(bounded.get(key) != bounded.get(keys[0]) for key in keys) or keys[0] not in bounded:
                return None
            scale, zero_point = int8_parameters(bounded[keys[0]])
            self.scales[tensor].write(out, scale)
            self.zero_points[tensor].write(out, zero_point + offset)
        for layer in self.layers:
            weights = layer.float_weights.read(tflite)
            bias = None if layer.float_bias is None else layer.float_bias.read(tflite)
            source = self.scales[layer.source].read(out)
            rows = scale_rows(weights, layer.axis)
            if bias is not None:
                rows = raise_weights(rows, bias, float(source[0]))
            scale = np.maximum(np.abs(rows).max(axis=1), SMALLEST_RANGE) / np.float32(_INT8.max)
            integers = np.clip(np.rint(rows / scale[:, np.newaxis]), -_INT8.max, _INT8.max)
            self.scales[layer.weights].write(out, scale)
            self.data[layer.weights].write(out, from_scale_rows(integers, weights.shape, layer.axis))
            if bias is not None:
                self.scales[layer.bias].write(out, source * scale)
                self.data[layer.bias].write(out, np.rint(bias / (source * scale)))
        filled = bytes(out)
        remember_variant(filled, self.quantized)
        return filled

    def _graph(self, tflite: bytes) -> Graph:
        """Return the graph of a variant, with its own constants."""
        graph = self.variants.graph
        tensors = list(graph.tensors)
        for index, place in self.variants.constants.items():
            raw = np.frombuffer(tflite, np.uint8, place.end - place.start, place.start)
            tensors[index] = replace(tensors[index], raw=raw)
        return replace(graph, tensors=tuple(tensors))


def _observe(variants: Variants, rule: SchemeRule, ranges: Mapping[str, Range]) -> _Template | None:
    """Return the template of a model; None where an array of the file matches neither a range nor a layer."""
    tflite, graph = variants.tflite, variants.graph
    random = np.random.default_rng(0)
    keys = tensor_keys(graph)
    fixed = [keys[op.outputs[0]] for op in graph.ops if op.outputs and fixed_range(op, 8) is not None]
    # Ranges that the kernels fix stay what they are, and so do those of tensors that share their scales.
    factors = {ranges[key]: 1.0 for key in fixed if key in ranges}
    different: dict[str, Range] = {}
    for key, (low, high) in sorted(ranges.items()):
        # Equal ranges stay equal, because tensors that must share a scale have them.
        factor = factors.setdefault((low, high), 1.0 + _DIFFERENCE * float(random.random()))
        different[key] = (low * factor, high * factor)
    try:
        quantized = quantize(tflite, rule, different).tflite
    except QuantizationRefused:
        return None
    result = read_model(quantized).main
    template = _Template(variants, rule, quantized)
    for tensor in result.tensors:
        for places, array in (
            (template.scales, None if tensor.quantization is None else tensor.quantization.scale),
            (template.zero_points, None if tensor.quantization is None else tensor.quantization.zero_point),
            (template.data, tensor.data),
        ):
            place = None if array is None else Place.of(array, quantized)
            if place is not None:
                places[tensor.index] = place
    if not _match_layers(template, graph, result):
        return None
    template.fixed = {key: ranges[key] for key in fixed if key in ranges}
    template.groups = [[keys[index] for index in group if keys[index] in ranges] for group in same_scale_groups(graph)]
    constants = {index for layer in template.layers for index in (layer.weights, layer.bias)}
    keys_of: dict[tuple[float, float], list[str]] = {}
    for key, value in bounded_ranges(graph, different).items():
        scale, zero_point = int8_parameters(value)
        keys_of.setdefault((float(scale), float(zero_point)), []).append(key)
    for tensor in result.tensors:
        if tensor.quantization is None or tensor.index in constants or tensor.name in fixed:
            continue
        scales, zero_points = tensor.quantization.scale, tensor.quantization.zero_point
        offset = -int(_INT8.min) if tensor.dtype == "UINT8" else 0
        found = keys_of.get((float(scales[0]), float(zero_points[0]) - offset)) if len(scales) == 1 else None
        if tensor.data is not None and (found or tensor.dtype != "INT8"):
            # A constant that follows from a range: none of the layers'.
            return None
        if found:
            if tensor.index not in template.zero_points:
                return None
            template.ranges[tensor.index] = ((tensor.name,) if tensor.name in found else tuple(found)), offset
    return template


def _match_layers(template: _Template, graph: Graph, result: Graph) -> bool:
    """Find the layers of the float graph in the quantized one; return whether all were found."""
    after = weighted_ops(result)
    if [op.name for op in weighted_ops(graph)] != [op.name for op in after]:
        return False
    constants = template.variants.constants
    for layer in find_layers(graph):
        op = after[layer.position]
        weights = op.inputs[layer.op.inputs.index(layer.weights)]
        bias = op.inputs[layer.bias_position] if layer.bias >= 0 else -1
        quantization = result.tensors[weights].quantization
        source = op.inputs[layer.data_position]
        whole = source in template.scales and {weights, bias} - {-1} <= set(template.scales) & set(template.data)
        if quantization is None or not whole or not {layer.weights, layer.bias} - {-1} <= set(constants):
            return False
        if result.tensors[weights].dtype != "INT8" or (bias >= 0 and result.tensors[bias].dtype != "INT32"):
            return False
        axis = quantization.axis if quantization.per_channel else None
        template.layers.append(
            _Filled(source, weights, bias, constants[layer.weights], constants.get(layer.bias), axis)
        )
    return True
