"""Center the channels of linear activations around zero, because all of them share one zero point.

Between layers without an activation function, one layer's bias may add a constant per channel that the next layer's
bias subtracts again: the same function in float, as with high-bias absorption (Nagel et al. 2019, section 4.1.3), which
does so behind RELU. Where ADD sums two activations, their constants add up; where its sum passes through RELU, they
must cancel. Finding the constants that bring the midpoints of all channels nearest to zero is a least squares problem,
the same for each channel.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgepack.choices import Effort
from edgepack.graph import Graph, Op, read_model
from edgepack.graph.op_layout import is_linear
from edgepack.quantize.histogram import channel_extremes
from edgepack.quantize.ptq.activations import Sample, run_activations
from edgepack.quantize.ptq.layers import Doubles, Floats, Layer, constant_values, find_layers, set_constants
from edgepack.quantize.ptq.moments import evenly_spaced
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import MOMENT_SAMPLES


def center_channels(tflite: bytes, samples: Sequence[Sample]) -> bytes:
    """Return the float model with its linear activations centered; the same bytes where there are none.

    Args:
        tflite: A float model in which no two layers share a bias.
        samples: Calibration samples.
    """
    graph = read_model(tflite).main
    plan = plan_offsets(graph)
    if plan is None:
        return tflite
    midpoints, weights = _midpoints(tflite, plan.tensors, samples)
    offsets = plan.solve(midpoints, weights)
    return set_constants(tflite, _shifted_biases(graph, offsets))


@dataclass(frozen=True)
class OffsetPlan:
    """Which activations can carry a constant per channel, and how these constants depend on each other.

    Attributes:
        tensors: Their indices.
        sums: How often each layer's constant is part of each tensor's, (tensors, layers).
        zeros: Sums that must vanish, (constraints, layers).
    """

    tensors: tuple[int, ...]
    sums: Doubles
    zeros: Doubles

    def solve(self, midpoints: Mapping[int, Doubles], gains: Mapping[int, float]) -> dict[int, Doubles]:
        """Return each tensor's constants, which bring its channels' midpoints nearest to zero.

        Args:
            midpoints: Midpoints of each tensor's channels.
            gains: Weight of each tensor.
        """
        free = _null_space(self.zeros)
        offsets: dict[int, Doubles] = {}
        channel_counts = {len(midpoints[i]) for i in self.tensors}
        for channels in sorted(channel_counts):
            rows = [row for row, i in enumerate(self.tensors) if len(midpoints[i]) == channels]
            weight = np.sqrt([[gains[self.tensors[row]]] for row in rows])
            target = -np.array([midpoints[self.tensors[row]] for row in rows])
            base = self.sums[rows] @ free
            solution = np.linalg.lstsq(weight * base, weight * target, rcond=None)[0]
            offsets.update({self.tensors[row]: values for row, values in zip(rows, base @ solution, strict=True)})
        return offsets


def plan_offsets(graph: Graph) -> OffsetPlan | None:
    """Return the activations of a float graph that can carry constants, None when there are none."""
    layers = {layer.op.index: layer for layer in find_layers(graph) if layer.bias >= 0}
    shifted: dict[int, dict[int, float]] = {}
    zeros: list[dict[int, float]] = []
    columns = 0
    for op in graph.ops:
        if op.index not in layers and op.name != "ADD":
            continue
        result = op.outputs[0]
        can_shift = is_linear(op) and result not in graph.outputs and _can_be_removed(graph, result, layers)
        if op.index in layers and can_shift:
            shifted[result] = {columns: 1.0}
            columns += 1
        elif op.name == "ADD":
            parts: dict[int, float] = {}
            for index in op.inputs:
                for column, times in shifted.get(index, {}).items():
                    parts[column] = parts.get(column, 0.0) + times
            if parts and can_shift:
                shifted[result] = parts
            elif parts:
                zeros.append(parts)
    if not columns:
        return None
    return OffsetPlan(tuple(shifted), _dense(shifted.values(), columns), _dense(zeros, columns))


def _dense(rows: Iterable[Mapping[int, float]], columns: int) -> Doubles:
    return np.array([[row.get(i, 0.0) for i in range(columns)] for row in rows], np.float64).reshape(-1, columns)


def _can_be_removed(graph: Graph, index: int, layers: Mapping[int, Layer]) -> bool:
    """Return whether all consumers of a tensor can subtract its constant again, or pass it on."""
    consumers = graph.consumers.get(index, ())
    return bool(consumers) and all(
        _can_subtract(layers[consumer], index) if consumer in layers else _is_sum(graph, graph.ops[consumer])
        for consumer in consumers
    )


def _can_subtract(layer: Layer, index: int) -> bool:
    """Return whether a layer's bias can subtract a constant; with padding it cannot, which represents 0."""
    if layer.source != index:
        return False
    return layer.dense or layer.shape[1:3] == (1, 1) or layer.op.options["padding"] == "VALID"


def _is_sum(graph: Graph, op: Op) -> bool:
    """Return whether an op is the sum of two activations of one shape."""
    if op.name != "ADD" or op.inputs[0] == op.inputs[1]:
        return False
    one, other = (graph.tensors[i] for i in op.inputs)
    return one.shape == other.shape and not (one.is_constant or other.is_constant)


def _null_space(rows: Doubles) -> Doubles:
    """Return a basis of the rows' null space, in columns."""
    columns = rows.shape[1]
    if not len(rows):
        return np.eye(columns)
    _, values, right = np.linalg.svd(rows)
    basis: Doubles = right[int((values > 1e-9).sum()) :].T
    return basis


def _midpoints(
    tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]
) -> tuple[dict[int, Doubles], dict[int, float]]:
    """Return the midpoints of channels, and the weight of each tensor: what its width costs relative to its values."""
    lows: dict[int, list[Doubles]] = {index: [] for index in tensors}
    highs: dict[int, list[Doubles]] = {index: [] for index in tensors}
    power = dict.fromkeys(tensors, 1e-12)
    for values in run_activations(tflite, tensors, evenly_spaced(samples, MOMENT_SAMPLES)):
        for index in tensors:
            low, high = channel_extremes(values(index))
            lows[index].append(low.astype(np.float64))
            highs[index].append(high.astype(np.float64))
            power[index] += float(np.square(values(index)).mean())
    # Means of the extremes of single samples: the extremes of all samples are those of a few values.
    midpoints = {i: (np.mean(lows[i], axis=0) + np.mean(highs[i], axis=0)) / 2 for i in tensors}
    return midpoints, {i: len(samples) / power[i] for i in tensors}


def _shifted_biases(graph: Graph, offsets: Mapping[int, Doubles]) -> dict[int, Floats]:
    """Return the biases that add the constants and subtract them again."""
    biases: dict[int, Doubles] = {}
    for layer in find_layers(graph):
        if layer.bias < 0:
            continue
        bias = constant_values(graph, layer.bias).astype(np.float64)
        if layer.result in offsets:
            bias = bias + offsets[layer.result]
        if layer.source in offsets:
            offset = layer.per_input_channel(offsets[layer.source].astype(np.float32))
            shift = constant_values(graph, layer.weights) * offset
            bias = bias - layer.rows(shift).sum(axis=1, dtype=np.float64)
        biases[layer.bias] = bias
    return {index: bias.astype(np.float32) for index, bias in biases.items()}


class _Center(Step):
    id = "center"
    effort = Effort.LOW
    source = "constants that center the channels of linear activations, cf. Nagel et al. 2019"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        return [{self.id: "centered"}] if plan_offsets(subject.graph) is not None else []

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        # The same function in float whatever the constants are, so all samples may choose them.
        model = subject.once("centered", fit.reference, lambda: center_channels(fit.reference, subject.samples))
        return replace(fit, reference=model, tflite=model)


CENTER = _Center()
