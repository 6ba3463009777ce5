"""Cross-layer equalization: scale channels so that each uses the full range of the activation's one scale.

Multiplying a channel between two layers by t and dividing the next layer's weights by t changes nothing in float,
because RELU and the other ops between them commute with a positive factor; in int8 it determines how much of the
activation's range the channel uses. Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", section 4.1; here t comes from the measured range of each channel, and the activations of a residual stream
are scaled together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.choices import Effort
from edgepack.graph import Graph, Op, read_model
from edgepack.graph.op_layout import RELU6_MAX
from edgepack.quantize.ptq.activations import Sample, iterate_activations
from edgepack.quantize.ptq.layers import Floats, Layer, constant_values, find_layers, set_constants
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import CHEAP_WORK

#: Ops that commute with a positive factor per channel, with the inputs that carry it (None for all of them).
_COMMUTING: dict[str, tuple[int, ...] | None] = {
    "ABS": (0,),
    "ADD": None,
    "AVERAGE_POOL_2D": (0,),
    "BATCH_TO_SPACE_ND": (0,),
    "CONCATENATION": None,
    "EXPAND_DIMS": (0,),
    "LEAKY_RELU": (0,),
    "MAXIMUM": None,
    "MAX_POOL_2D": (0,),
    "MEAN": (0,),
    "MINIMUM": None,
    "NEG": (0,),
    "PAD": (0,),
    "PRELU": (0,),
    "RELU": (0,),
    "RELU6": (0,),
    "RESHAPE": (0,),
    "RESIZE_BILINEAR": (0,),
    "RESIZE_NEAREST_NEIGHBOR": (0,),
    "SPACE_TO_BATCH_ND": (0,),
    "SQUEEZE": (0,),
    "SUB": None,
    "SUM": (0,),
}

#: Fused activations that commute with a positive factor; RELU6 below its limit only.
_ACTIVATIONS = frozenset({"NONE", "RELU", "RELU6", None})

#: Shares that are tried, and those in front of depthwise layers.
_SHARES: tuple[tuple[float, float], ...] = ((0.0, 0.5), (0.0, 1.0), (0.25, 1.0), (0.5, 1.0))

#: Largest factor of a channel: one that is hardly active on the calibration samples may be active on others.
_MAX_FACTOR = 64.0

#: Value from which a channel counts as clipped by RELU6.
_CLIPPED_FROM = 5.999

#: Headroom below the limit of RELU6 for samples with larger values than those of the calibration. With 1.25, 2 and 4
#: the scaled float model of EfficientNet-Lite0 is 24, 33 and 51 dB from the original on unseen photographs; a network
#: like MobileNetV1 on digits gains 2 dB more with 1.25. Both are tried; 1.25 where weights have one scale per tensor.
TIGHT_HEADROOM, HEADROOM = 1.25, 4.0


@dataclass
class EqualizationGroup:
    """Activations whose channels must be scaled by the same factors, with the layers before and after.

    Attributes:
        tensors: Tensor indices.
        before: Layers that produce one of them.
        after: Layers that consume one of them.
        relu6: Those tensors that are outputs of RELU6.
    """

    tensors: list[int]
    before: list[Layer] = field(default_factory=list)
    after: list[Layer] = field(default_factory=list)
    relu6: set[int] = field(default_factory=set)

    @property
    def only_depthwise(self) -> bool:
        """True when only depthwise layers consume it: their per-channel scales absorb any factor at no cost."""
        return all(layer.depthwise for layer in self.after)


def find_equalization_groups(graph: Graph, layers: Sequence[Layer]) -> list[EqualizationGroup]:
    """Return the groups that can be scaled: enclosed by layers of `layers`, without inputs and outputs of the graph."""
    parent: dict[int, int] = {}

    def root(index: int) -> int:
        while parent.setdefault(index, index) != index:
            index = parent[index]
        return index

    layer_of = {layer.op.index: layer for layer in layers}
    relu6: set[int] = set()
    fixed: set[int] = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        fused = op.options.get("fused_activation")
        if op.name == "RELU6" or fused == "RELU6":
            relu6.add(op.outputs[0])
        tied = _tied_tensors(graph, op)
        for other in tied[1:]:
            parent[root(other)] = root(tied[0])
        # Any other op that reads or writes a tensor fixes the scale of its channels.
        scalable = {layer_of[op.index].source, layer_of[op.index].result} if op.index in layer_of else set(tied)
        if fused not in _ACTIVATIONS:
            scalable -= {op.outputs[0]}
        fixed.update(i for i in (*op.inputs, *op.outputs) if i >= 0 and i not in scalable)
    by_root: dict[int, EqualizationGroup] = {}
    for tensor in graph.tensors:
        if not tensor.is_constant and tensor.dtype == "FLOAT32":
            by_root.setdefault(root(tensor.index), EqualizationGroup([])).tensors.append(tensor.index)
    for layer in layers:
        by_root[root(layer.result)].before.append(layer)
        by_root[root(layer.source)].after.append(layer)
    groups = []
    for group in by_root.values():
        group.relu6 = relu6 & set(group.tensors)
        channels = {graph.tensors[i].shape[-1] if graph.tensors[i].shape else 0 for i in group.tensors}
        fits = all(layer.input_channels in channels for layer in group.after)
        if group.before and group.after and len(channels) == 1 and fits and not fixed & set(group.tensors):
            groups.append(group)
    return groups


def _tied_tensors(graph: Graph, op: Op) -> tuple[int, ...]:
    """Return the tensors that must share their factors because of an op, empty when it does not commute with them."""
    if op.name not in _COMMUTING:
        return ()
    positions = _COMMUTING[op.name]
    inputs = op.inputs if positions is None else tuple(op.inputs[i] for i in positions)
    if positions is not None and set(inputs) & set(op.inputs[len(positions) :]):
        # PRELU with its input as its slopes squares the factor.
        return ()
    tensors = [graph.tensors[index] for index in (*inputs, op.outputs[0])]
    channels = tensors[-1].shape[-1:]
    if any(t.is_constant or t.shape[-1:] != channels for t in tensors):
        return ()
    rank = tensors[-1].rank
    if op.name in {"ADD", "MAXIMUM", "MINIMUM", "SUB"} and any(t.shape != tensors[-1].shape for t in tensors):
        return ()
    if op.name == "CONCATENATION" and int(op.options["axis"]) % rank == rank - 1:
        return ()
    if op.name in {"MEAN", "SUM"}:
        axes = graph.tensors[op.inputs[1]].data
        if axes is None or any(int(axis) % tensors[0].rank == tensors[0].rank - 1 for axis in axes.reshape(-1)):
            return ()
    return (*inputs, op.outputs[0])


def channel_ranges(tflite: bytes, groups: Sequence[EqualizationGroup], samples: Sequence[Sample]) -> dict[int, Floats]:
    """Return the largest absolute value of each channel of each tensor of the groups, float32 (channels,)."""
    tensors = sorted({index for group in groups for index in group.tensors})
    ranges: dict[int, Floats] = {}
    if not tensors:
        return ranges
    for activations in iterate_activations(tflite, tensors, samples):
        for index, values in zip(tensors, activations, strict=True):
            largest = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0).astype(np.float32)
            ranges[index] = np.maximum(ranges[index], largest) if index in ranges else largest
    return ranges


def channel_factors(
    group: EqualizationGroup, ranges: Mapping[int, Floats], share: float, headroom: float = HEADROOM
) -> Floats:
    """Return the factor of each channel of a group: (largest channel's range / its own) ** share, at least 1.

    A channel that RELU6 clips on the samples has a factor of 1, and no channel is scaled up into the clipping range.

    Args:
        group: The group.
        ranges: The result of `channel_ranges`.
        share: 0 changes nothing, 1 gives every channel the same range.
        headroom: Limit of RELU6 divided by the largest value that a scaled channel may have on the samples.
    """
    relative = np.max([ranges[i] / max(float(ranges[i].max()), 1e-30) for i in group.tensors], axis=0)
    factors = np.minimum(np.maximum(relative, 1e-12) ** -share, _MAX_FACTOR)
    factors[relative <= 0.0] = 1.0
    for index in group.relu6:
        # Measured maxima: the model stays exact on the samples, and int8 would saturate beyond them anyway.
        factors = np.minimum(factors, RELU6_MAX / np.maximum(headroom * ranges[index], 1e-12))
    at_least_one: Floats = np.maximum(factors, 1.0).astype(np.float32)
    return at_least_one


def equalize_weights(tflite: bytes, ranges: Mapping[int, Floats], rounds: int = 20) -> bytes:
    """Return the float model with the weights of consecutive layers equalized, for per-tensor weights.

    A channel's range in the weights before, r1, and in the weights after, r2, both become sqrt(r1 r2): equation 11 of
    Nagel et al. 2019, repeated until it converges. A channel that RELU6 clips on the samples keeps its scale, and none
    is scaled up into the clipping range.

    Args:
        tflite: A float model.
        ranges: The result of `channel_ranges` for this model.
        rounds: Number of passes over the groups.
    """
    graph = read_model(tflite).main
    layers = find_layers(graph)
    groups = find_equalization_groups(graph, layers)
    values = {i: constant_values(graph, i) for layer in layers for i in (layer.weights, layer.bias) if i >= 0}
    ranges = dict(ranges)
    for _ in range(rounds):
        for group in groups:
            r1 = np.max([np.abs(layer.rows(values[layer.weights])).max(axis=1) for layer in group.before], axis=0)
            r2 = np.max([_input_channel_ranges(layer, values[layer.weights]) for layer in group.after], axis=0)
            t = np.sqrt(np.maximum(r2, 1e-12) / np.maximum(r1, 1e-12))
            t[(r1 <= 0.0) | (r2 <= 0.0)] = 1.0
            for index in group.relu6:
                headroom = RELU6_MAX / np.maximum(TIGHT_HEADROOM * ranges[index], 1e-12)
                # A channel that is clipped keeps its scale; one far below the limit may even come closer to it.
                t = np.where(ranges[index] >= _CLIPPED_FROM, 1.0, np.minimum(t, np.maximum(headroom, 1.0)))
            _scale_group(group, t.astype(np.float32), values)
            for index in group.tensors:
                ranges[index] = ranges[index] * t
    return set_constants(tflite, values) if groups else tflite


def _input_channel_ranges(layer: Layer, weights: Floats) -> Floats:
    """Return the largest absolute weight of each input channel."""
    largest: Floats
    if layer.depthwise:
        largest = np.abs(weights).max(axis=(0, 1, 2)).reshape(layer.input_channels, -1).max(axis=1)
        return largest
    largest = np.abs(weights).reshape(-1, layer.input_channels).max(axis=0)
    return largest


def _scale_group(group: EqualizationGroup, t: Floats, values: dict[int, Floats]) -> None:
    """Scale a group's channels by t, in the weights and biases of the layers before and after."""
    for layer in group.before:
        values[layer.weights] = values[layer.weights] * layer.per_output_channel(t)
        if layer.bias >= 0:
            values[layer.bias] = values[layer.bias] * t
    for layer in group.after:
        values[layer.weights] = values[layer.weights] / layer.per_input_channel(t)


def scale_channels(tflite: bytes, factors: Iterable[tuple[EqualizationGroup, npt.NDArray[Any]]]) -> bytes:
    """Return the float model with the channels of each group scaled; the same function in float."""
    graph = read_model(tflite).main
    values = {
        i: constant_values(graph, i) for layer in find_layers(graph) for i in (layer.weights, layer.bias) if i >= 0
    }
    pairs = list(factors)
    for group, t in pairs:
        _scale_group(group, np.asarray(t, np.float32), values)
    return set_constants(tflite, values) if pairs else tflite


def equalize(
    tflite: bytes,
    ranges: Mapping[int, Floats],
    share: float,
    depthwise_share: float = 1.0,
    headroom: float = HEADROOM,
) -> bytes:
    """Return the float model with the channels of its groups scaled; the outputs are the same up to float rounding.

    Args:
        tflite: A float model.
        ranges: The result of `channel_ranges` for this model.
        share: How far the ranges of channels are equalized where it costs precision of weights, 0 to 1.
        depthwise_share: The same in front of depthwise layers, where it costs nothing.
        headroom: As in `channel_factors`.
    """
    graph = read_model(tflite).main
    groups = find_equalization_groups(graph, find_layers(graph))
    return scale_channels(
        tflite,
        [
            (group, channel_factors(group, ranges, depthwise_share if group.only_depthwise else share, headroom))
            for group in groups
        ],
    )


class _Equalize(Step):
    id = "equalize"
    effort = Effort.LOW
    source = "cross-layer equalization, Nagel et al. 2019, section 4.1"
    purpose = "channel scales"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        groups = find_equalization_groups(subject.graph, subject.layers)
        if not groups:
            return []
        if subject.rule.weights == "per-tensor":
            return [{self.id: "weights"}]
        # Each share needs moments, and gradients at more effort; EfficientNet-Lite0 loses 1.5 dB with the best one.
        if subject.work > CHEAP_WORK:
            return []
        headrooms = (HEADROOM, TIGHT_HEADROOM) if any(group.relu6 for group in groups) else (HEADROOM,)
        return [{self.id: (*shares, headroom)} for headroom in headrooms for shares in _SHARES]

    def combinations(self, subject: Subject) -> Sequence[Change]:
        # What is tried first gains least; the last ones scale most.
        changes = self.configurations(subject, {})
        return [{"balance": None, **change} for change in changes[-2:]]

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        graph = read_model(fit.reference).main
        groups = find_equalization_groups(graph, find_layers(graph))
        ranges = view.once("channels", fit.reference, lambda: channel_ranges(fit.reference, groups, view.samples))
        if setting == "weights":
            model = equalize_weights(fit.reference, ranges)
        else:
            share, depthwise_share, headroom = (float(value) for value in setting)
            model = equalize(fit.reference, ranges, share, depthwise_share, headroom)
        return replace(fit, reference=model, tflite=model)

    def describe(self, setting: Setting) -> str:
        if isinstance(setting, str):
            return "by weights"
        return f"share {setting[0]:g}, {setting[1]:g} before depthwise layers, {setting[2]:g} below RELU6's limit"


EQUALIZE = _Equalize()
