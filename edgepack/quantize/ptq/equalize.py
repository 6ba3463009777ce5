"""Cross-layer equalization: let every channel of an activation use the whole of its one scale.

Multiplying a channel between two layers by t and dividing the next layer's weights by t changes nothing in float,
because RELU and what else lies between commutes with a positive factor; in int8 it decides how much of the scale the
channel gets. The idea is Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4.1; here t comes from the measured range of each channel, and residual streams are scaled as one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, read_model
from edgepack.graph.op_layout import RELU6_MAX
from edgepack.quantize.ptq.layers import Floats, Layer, find_layers, set_constants, values_of
from edgepack.quantize.ptq.observe import Sample, watch

#: Ops that a positive factor per channel passes through, with the inputs that carry it (None for all of them).
_PASSING: dict[str, tuple[int, ...] | None] = {
    "ADD": None,
    "AVERAGE_POOL_2D": (0,),
    "CONCATENATION": None,
    "LEAKY_RELU": (0,),
    "MAX_POOL_2D": (0,),
    "MEAN": (0,),
    "PAD": (0,),
    "RELU": (0,),
    "RELU6": (0,),
    "RESHAPE": (0,),
    "RESIZE_BILINEAR": (0,),
    "RESIZE_NEAREST_NEIGHBOR": (0,),
    "SQUEEZE": (0,),
}

#: Activations fused into an op that a positive factor passes through; RELU6 within limits.
_ACTIVATIONS = frozenset({"NONE", "RELU", "RELU6", None})

#: A channel is scaled up at most so much: a channel that hardly spoke in calibration may speak later.
_MOST = 64.0

#: A channel that comes this near to the clip is taken to be clipped.
_CLIPS = 5.999

#: Room left below the clip for samples louder than those of the calibration.
_HEADROOM = 1.25


@dataclass
class Stream:
    """Activations that must be scaled alike, with the layers before and after.

    Attributes:
        tensors: Tensor indices.
        before: Layers that write one of them.
        after: Layers that read one of them.
        clipped: Those tensors that come out of RELU6.
    """

    tensors: list[int]
    before: list[Layer] = field(default_factory=list)
    after: list[Layer] = field(default_factory=list)
    clipped: set[int] = field(default_factory=set)

    @property
    def free(self) -> bool:
        """True when only depthwise layers read it: their scales per channel take up any factor at no cost."""
        return all(layer.depthwise for layer in self.after)


def find_streams(graph: Graph, layers: Sequence[Layer]) -> list[Stream]:
    """Return the streams that can be scaled: closed between layers of `layers`, no input or output of the graph."""
    parent: dict[int, int] = {}

    def root(index: int) -> int:
        while parent.setdefault(index, index) != index:
            index = parent[index]
        return index

    by_op = {layer.op.index: layer for layer in layers}
    clipped: set[int] = set()
    closed: set[int] = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        fused = op.options.get("fused_activation")
        if op.name == "RELU6" or fused == "RELU6":
            clipped.add(op.outputs[0])
        carried = _carried(graph, op)
        for other in carried[1:]:
            parent[root(other)] = root(carried[0])
        # Whatever else reads or writes a tensor ties its channels down.
        mine = {by_op[op.index].source, by_op[op.index].result} if op.index in by_op else set(carried)
        if fused not in _ACTIVATIONS:
            mine -= {op.outputs[0]}
        closed.update(i for i in (*op.inputs, *op.outputs) if i >= 0 and i not in mine)
    streams: dict[int, Stream] = {}
    for tensor in graph.tensors:
        if not tensor.is_constant and tensor.dtype == "FLOAT32":
            streams.setdefault(root(tensor.index), Stream([])).tensors.append(tensor.index)
    for layer in layers:
        streams[root(layer.result)].before.append(layer)
        streams[root(layer.source)].after.append(layer)
    found = []
    for stream in streams.values():
        stream.clipped = clipped & set(stream.tensors)
        width = {graph.tensors[i].shape[-1] if graph.tensors[i].shape else 0 for i in stream.tensors}
        fits = all(layer.channels in width for layer in stream.after)
        if stream.before and stream.after and len(width) == 1 and fits and not closed & set(stream.tensors):
            found.append(stream)
    return found


def _carried(graph: Graph, op: Op) -> tuple[int, ...]:
    """Return the tensors that an op scales alike, empty when it does not pass a factor through."""
    if op.name not in _PASSING:
        return ()
    which = _PASSING[op.name]
    taken = op.inputs if which is None else tuple(op.inputs[i] for i in which)
    tensors = [graph.tensors[index] for index in (*taken, op.outputs[0])]
    channels = tensors[-1].shape[-1:]
    if any(t.is_constant or t.shape[-1:] != channels for t in tensors):
        return ()
    rank = tensors[-1].rank
    if op.name == "ADD" and any(t.shape != tensors[-1].shape for t in tensors):
        return ()
    if op.name == "CONCATENATION" and int(op.options["axis"]) % rank == rank - 1:
        return ()
    if op.name == "MEAN":
        axes = graph.tensors[op.inputs[1]].data
        if axes is None or any(int(axis) % tensors[0].rank == tensors[0].rank - 1 for axis in axes.reshape(-1)):
            return ()
    return (*taken, op.outputs[0])


def channel_ranges(tflite: bytes, streams: Sequence[Stream], samples: Sequence[Sample]) -> dict[int, Floats]:
    """Return the largest absolute value of each channel of each tensor of the streams, float32 (channels,)."""
    tensors = sorted({index for stream in streams for index in stream.tensors})
    found: dict[int, Floats] = {}
    if not tensors:
        return found
    for seen in watch(tflite, tensors, samples):
        for index, values in zip(tensors, seen, strict=True):
            largest = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0).astype(np.float32)
            found[index] = np.maximum(found[index], largest) if index in found else largest
    return found


def factors(stream: Stream, ranges: Mapping[int, Floats], share: float) -> Floats:
    """Return the factor of each channel of a stream: (largest channel's range / its own) ** share, at least 1.

    A channel that RELU6 clips on the samples keeps its factor of 1, and no channel is scaled up into the clip.

    Args:
        stream: The stream.
        ranges: What `channel_ranges` gave.
        share: 0 changes nothing, 1 gives every channel the same range.
    """
    relative = np.max([ranges[i] / max(float(ranges[i].max()), 1e-30) for i in stream.tensors], axis=0)
    wanted = np.minimum(np.maximum(relative, 1e-12) ** -share, _MOST)
    wanted[relative <= 0.0] = 1.0
    for index in stream.clipped:
        # Measured maxima: the model stays exact on the samples, and int8 would saturate beyond them anyway.
        wanted = np.minimum(wanted, RELU6_MAX / np.maximum(_HEADROOM * ranges[index], 1e-12))
    raised: Floats = np.maximum(wanted, 1.0).astype(np.float32)
    return raised


def equalize_weights(tflite: bytes, ranges: Mapping[int, Floats], rounds: int = 20) -> bytes:
    """Return the float model with the weights of consecutive layers equalized, for weights with one scale each.

    A channel's range in the layer before, r1, and in the layer after, r2, both become sqrt(r1 r2): equation 11 of Nagel
    et al. 2019, repeated until it settles. A channel that RELU6 clips on the samples keeps its factor, and none is
    scaled up into the clip.

    Args:
        tflite: A float model.
        ranges: What `channel_ranges` gave for this model.
        rounds: How often the streams are gone through.
    """
    graph = read_model(tflite).main
    layers = find_layers(graph)
    streams = find_streams(graph, layers)
    values = {i: values_of(graph, i) for layer in layers for i in (layer.weights, layer.bias) if i >= 0}
    ranges = dict(ranges)
    for _ in range(rounds):
        for stream in streams:
            r1 = np.max([np.abs(layer.rows(values[layer.weights])).max(axis=1) for layer in stream.before], axis=0)
            r2 = np.max([_input_ranges(layer, values[layer.weights]) for layer in stream.after], axis=0)
            t = np.sqrt(np.maximum(r2, 1e-12) / np.maximum(r1, 1e-12))
            t[(r1 <= 0.0) | (r2 <= 0.0)] = 1.0
            for index in stream.clipped:
                room = RELU6_MAX / np.maximum(_HEADROOM * ranges[index], 1e-12)
                # A clip that is at work fixes its channel; one that is far away may even come nearer.
                t = np.where(ranges[index] >= _CLIPS, 1.0, np.minimum(t, np.maximum(room, 1.0)))
            _scale(stream, t.astype(np.float32), values)
            for index in stream.tensors:
                ranges[index] = ranges[index] * t
    return set_constants(tflite, values) if streams else tflite


def _input_ranges(layer: Layer, weights: Floats) -> Floats:
    """Return the largest absolute weight of each input channel."""
    largest: Floats
    if layer.depthwise:
        largest = np.abs(weights).max(axis=(0, 1, 2)).reshape(layer.channels, -1).max(axis=1)
        return largest
    largest = np.abs(weights).reshape(-1, layer.channels).max(axis=0)
    return largest


def _scale(stream: Stream, t: Floats, values: dict[int, Floats]) -> None:
    """Scale a stream's channels by t, in the weights and biases around it."""
    for layer in stream.before:
        values[layer.weights] = values[layer.weights] * layer.along_output(t)
        if layer.bias >= 0:
            values[layer.bias] = values[layer.bias] * t
    for layer in stream.after:
        values[layer.weights] = values[layer.weights] / layer.along_input(t)


def scaled(tflite: bytes, by: Iterable[tuple[Stream, npt.NDArray[Any]]]) -> bytes:
    """Return the float model with the channels of each stream scaled; the same function in float."""
    graph = read_model(tflite).main
    values = {i: values_of(graph, i) for layer in find_layers(graph) for i in (layer.weights, layer.bias) if i >= 0}
    given = list(by)
    for stream, t in given:
        _scale(stream, np.asarray(t, np.float32), values)
    return set_constants(tflite, values) if given else tflite


def equalize(tflite: bytes, ranges: Mapping[int, Floats], share: float, free_share: float = 1.0) -> bytes:
    """Return the float model with its streams scaled; outputs stay the same to float rounding.

    Args:
        tflite: A float model.
        ranges: What `channel_ranges` gave for this model.
        share: How far channels are brought together where weights pay for it, 0 to 1.
        free_share: The same in front of depthwise layers, where it costs nothing.
    """
    graph = read_model(tflite).main
    streams = find_streams(graph, find_layers(graph))
    return scaled(tflite, [(s, factors(s, ranges, free_share if s.free else share)) for s in streams])
