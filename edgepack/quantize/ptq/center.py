"""Centre the channels of linear activations: one zero point serves all of them, so none should waste a side of it.

Between layers without an activation function a constant per channel may be added by one layer's bias and taken off
again by the next one's: the same in float, as with high-bias absorption (Nagel et al. 2019, section 4.1.3), which does
it behind RELU. Where ADD sums two activations their constants add up; where its sum goes through RELU they must cancel.
Which constants bring the middles of all channels nearest to zero is a least squares problem, the same for each channel.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.graph import Graph, Op, read_model
from edgepack.quantize.ptq.gains import backward_batches
from edgepack.quantize.ptq.layers import Doubles, Floats, Layer, find_layers, set_constants, values_of
from edgepack.quantize.ptq.network import Network
from edgepack.quantize.ptq.observe import Sample

#: Share of a channel's values left out at each end when its middle is taken.
_LEFT_OUT = 0.0005


def center_channels(tflite: bytes, samples: Sequence[Sample]) -> bytes:
    """Return the float model with its linear activations centred; the same bytes where there are none.

    Args:
        tflite: A float model, biases of their own.
        samples: Calibration samples.

    Raises:
        NotDifferentiable: There is an op whose gradient is not known.
    """
    graph = read_model(tflite).main
    plan = plan_offsets(graph)
    if plan is None:
        return tflite
    middles, loudness = _middles(tflite, plan.tensors, samples)
    offsets = plan.solve(middles, loudness)
    return set_constants(tflite, _biases(graph, offsets))


@dataclass(frozen=True)
class Offsets:
    """Which activations can carry a constant per channel, and how these depend on each other.

    Attributes:
        tensors: Their indices.
        sums: Row by tensor, column by layer: the constants of which layers add up to the tensor's, (tensors, layers).
        zeros: Sums that must vanish, (constraints, layers).
    """

    tensors: tuple[int, ...]
    sums: Doubles
    zeros: Doubles

    def solve(self, middles: Mapping[int, Doubles], loudness: Mapping[int, float]) -> dict[int, Doubles]:
        """Return each tensor's constants, that bring its channels' middles nearest to zero.

        Args:
            middles: Of each tensor's channels.
            loudness: How much a tensor counts.
        """
        free = _null_space(self.zeros)
        found: dict[int, Doubles] = {}
        widths = {len(middles[i]) for i in self.tensors}
        for width in sorted(widths):
            rows = [row for row, i in enumerate(self.tensors) if len(middles[i]) == width]
            weight = np.sqrt([[loudness[self.tensors[row]]] for row in rows])
            goal = -np.array([middles[self.tensors[row]] for row in rows])
            base = self.sums[rows] @ free
            chosen = np.linalg.lstsq(weight * base, weight * goal, rcond=None)[0]
            found.update({self.tensors[row]: values for row, values in zip(rows, base @ chosen, strict=True)})
        return found


def plan_offsets(graph: Graph) -> Offsets | None:
    """Return the activations of a float graph that can carry constants, None when there are none."""
    layers = {layer.op.index: layer for layer in find_layers(graph) if layer.bias >= 0}
    shifting: dict[int, dict[int, float]] = {}
    zeros: list[dict[int, float]] = []
    places: list[int] = []
    for op in graph.ops:
        if op.index not in layers and op.name != "ADD":
            continue
        result = op.outputs[0]
        able = _linear(op) and result not in graph.outputs and _taken(graph, result, layers)
        if op.index in layers and able:
            shifting[result] = {len(places): 1.0}
            places.append(result)
        elif op.name == "ADD":
            parts: dict[int, float] = {}
            for index in op.inputs:
                for place, times in shifting.get(index, {}).items():
                    parts[place] = parts.get(place, 0.0) + times
            if parts and able:
                shifting[result] = parts
            elif parts:
                zeros.append(parts)
    if not places:
        return None
    width = len(places)
    return Offsets(tuple(shifting), _dense(shifting.values(), width), _dense(zeros, width))


def _dense(rows: Iterable[Mapping[int, float]], width: int) -> Doubles:
    return np.array([[row.get(i, 0.0) for i in range(width)] for row in rows], np.float64).reshape(-1, width)


def _linear(op: Op) -> bool:
    return op.options.get("fused_activation", "NONE") in (None, "NONE")


def _taken(graph: Graph, index: int, layers: Mapping[int, Layer]) -> bool:
    """Return whether all that read a tensor can take its constant off again, or hand it on."""
    readers = graph.consumers.get(index, ())
    return bool(readers) and all(
        _takes_off(layers[place], index) if place in layers else _adds(graph, graph.ops[place]) for place in readers
    )


def _takes_off(layer: Layer, index: int) -> bool:
    """Return whether a layer's bias can: padding would stand for 0 and not for the constant."""
    if layer.source != index:
        return False
    return layer.dense or layer.shape[1:3] == (1, 1) or layer.op.options["padding"] == "VALID"


def _adds(graph: Graph, op: Op) -> bool:
    """Return whether an op is the sum of two activations of one shape."""
    if op.name != "ADD" or op.inputs[0] == op.inputs[1]:
        return False
    one, other = (graph.tensors[i] for i in op.inputs)
    return one.shape == other.shape and not (one.is_constant or other.is_constant)


def _null_space(rows: Doubles) -> Doubles:
    """Return a basis of what the rows send to zero, in columns."""
    width = rows.shape[1]
    if not len(rows):
        return np.eye(width)
    _, values, right = np.linalg.svd(rows)
    basis: Doubles = right[int((values > 1e-9).sum()) :].T
    return basis


def _middles(
    tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]
) -> tuple[dict[int, Doubles], dict[int, float]]:
    """Return the middles of channels, of values that are heard at the logits, and how loud each tensor is."""
    network = Network(tflite)
    values: dict[int, list[Floats]] = {i: [] for i in tensors}
    loudness = dict.fromkeys(tensors, 1e-12)
    for _, tape, back in backward_batches(network, samples, seed=2):
        for index in tensors:
            if index in back:
                rows = tape.seen[index].reshape(-1, tape.seen[index].shape[-1])
                gradient = back[index].reshape(rows.shape)
                values[index].append(np.where(gradient != 0.0, rows, np.nan))
                loudness[index] += float(np.square(gradient, dtype=np.float64).sum())
    middles = {}
    for index, parts in values.items():
        width = network.graph.tensors[index].shape[-1]
        middles[index] = _middle(np.concatenate(parts)) if parts else np.zeros(width)
    return middles, loudness


def _middle(rows: Floats) -> Doubles:
    found = np.zeros(rows.shape[1])
    for channel in range(rows.shape[1]):
        heard = rows[:, channel][~np.isnan(rows[:, channel])]
        if len(heard):
            found[channel] = np.quantile(heard, [_LEFT_OUT, 1.0 - _LEFT_OUT]).mean()
    return found


def _biases(graph: Graph, offsets: Mapping[int, Doubles]) -> dict[int, Floats]:
    """Return the biases that put the constants on and take them off."""
    changed: dict[int, Doubles] = {}
    for layer in find_layers(graph):
        if layer.bias < 0:
            continue
        bias = values_of(graph, layer.bias).astype(np.float64)
        if layer.result in offsets:
            bias = bias + offsets[layer.result]
        if layer.source in offsets:
            moved = values_of(graph, layer.weights) * layer.along_input(offsets[layer.source].astype(np.float32))
            bias = bias - layer.rows(moved).sum(axis=1, dtype=np.float64)
        changed[layer.bias] = bias
    return {index: bias.astype(np.float32) for index, bias in changed.items()}
