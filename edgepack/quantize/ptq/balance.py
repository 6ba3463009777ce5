"""Scale channels and choose ranges together, so that what int8 adds to the logits is estimated to be least.

An activation with bounds -l and h and channels scaled by t adds, at the logits, per channel: gain * ((l + h) / 255)^2 /
(12 t^2) for rounding, and gain * loudness * (what the bounds cut off) for clipping; the next layer's weights, whose
steps the channel scaled down least decides, add theirs. Channels and bounds are improved in turns until that sum
settles. Gains are squared gradients (`gains`), as Fisher information weighs rounding in Li et al. 2021, "BRECQ"; what
bounds cut off on unseen samples is estimated in `tails`. Cross-layer equalization (Nagel et al. 2019) is the case of
equal gains, bounds at the maximum and weights for free.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.graph import Graph, read_model
from edgepack.graph.edit import tensor_keys
from edgepack.graph.op_layout import RELU6_MAX
from edgepack.quantize.ptq.equalize import Stream, find_streams, scaled
from edgepack.quantize.ptq.gains import SHARES, Gain, gains
from edgepack.quantize.ptq.layers import Doubles, Layer, find_layers, values_of
from edgepack.quantize.ptq.network import Network
from edgepack.quantize.ptq.observe import Sample
from edgepack.quantize.ptq.tails import Channels, channels_of
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_constraints import fixed_range, same_scale_groups

#: Ops that hand their input's integers on: no rounding of their own.
_EXACT = frozenset({"CONCATENATION", "MAX_POOL_2D", "PAD", "RELU", "RELU6", "RESHAPE", "SQUEEZE"})

#: From where a channel counts as clipped by RELU6.
_CLIPS = 5.99

#: Noise of a weight in squares of its step: a quarter of what blind rounding has, more or less what is left of it by
#: rounding that passes errors on. On six models 0.1 to 1 times blind rounding's 1/12 made 0.3 dB of difference.
_WEIGHT_NOISE = 0.5 / 12.0

_LEVELS, _TOP = 255.0, 127.0

#: How much wider than seen the range of scores and averages gets, which have one value a channel. A hundred samples are
#: too few to know their extremes, and a clipped winner costs more than a coarser step. On six models 1.15 and 1.2 did
#: the same, 1.1 lost 0.3 dB more.
MARGIN = 1.15

#: How often channels and bounds take turns, and the steps that a channel may take in one.
_ROUNDS = 8
_STEPS = np.exp(np.linspace(-1.2, 1.2, 25))

#: Bounds that are tried, as shares of the largest value seen.
_BOUNDS = np.concatenate([np.linspace(0.35, 1.0, 14), np.linspace(1.05, 2.0, 20)])


@dataclass(frozen=True)
class Balanced:
    """A model whose channels are balanced.

    Attributes:
        tflite: The float model, scaled.
        ranges: Range of the activations that the logits depend on, by `tensor_keys`.
    """

    tflite: bytes
    ranges: dict[str, Range]


def balance(tflite: bytes, samples: Sequence[Sample], *, scale: bool = True) -> Balanced:
    """Return the float model with its streams scaled, and ranges.

    Outputs stay the same to float rounding, but behind RELU6, where six may clip a scaled channel earlier.

    Inputs keep their smallest and largest value: pictures and the like lie on a grid of their own, which another range
    would miss.

    Args:
        tflite: A float model.
        samples: Calibration samples.
        scale: False chooses ranges only and leaves the model alone.

    Raises:
        NotDifferentiable: There is an op whose gradient is not known.
    """
    graph = read_model(tflite).main
    channels = channels_of(tflite, Network(tflite).activations, samples)
    found = gains(tflite, samples, {index: seen.reach for index, seen in channels.items()})
    search = _Balance(graph, found, channels)
    return search.solve(tflite, _ROUNDS if scale else 0)


class _Balance:
    """The estimate, and its search; factors and bounds are the state."""

    def __init__(self, graph: Graph, found: Mapping[int, Gain], channels: Mapping[int, Channels]) -> None:
        self.graph, self.gains, self.channels = graph, found, channels
        made = {op.outputs[0]: op for op in graph.ops}
        self.exact = {i for i in found if i in made and made[i].name in _EXACT}
        self.six = {
            i for i in found if i in made and "RELU6" in (made[i].name, made[i].options.get("fused_activation"))
        }
        known = [s for s in find_streams(graph, find_layers(graph)) if set(s.tensors) <= set(found)]
        self.streams: list[Stream] = known
        self.factors = [np.ones(s.before[0].width) for s in known]
        self.place = {i: number for number, s in enumerate(known) for i in s.tensors}
        fixed = {op.outputs[0] for op in graph.ops if fixed_range(op, 8) is not None}
        tied = [[i for i in group if i in found and i not in fixed] for group in same_scale_groups(graph)]
        alone = set(found) - {i for group in tied for i in group} - fixed
        self.groups = [group for group in tied if group] + [[i] for i in sorted(alone)]
        self.bounds: dict[int, tuple[float, float]] = {}

    def solve(self, tflite: bytes, rounds: int) -> Balanced:
        self._choose_bounds()
        for _ in range(rounds if self.streams else 0):
            for number, stream in enumerate(self.streams):
                self.factors[number] = self._better(stream, self.factors[number])
            self._choose_bounds()
        made = scaled(tflite, zip(self.streams, self.factors, strict=True)) if rounds else tflite
        keys = tensor_keys(self.graph)
        ranges = {keys[i]: (-float(low), float(high)) for i, (low, high) in sorted(self.bounds.items())}
        return Balanced(made, ranges)

    def factor(self, index: int) -> Doubles:
        """Return a tensor's factors."""
        return self.factors[self.place[index]] if index in self.place else np.ones(1)

    def noise(self, index: int, bounds: tuple[float, float], factor: Doubles) -> Doubles:
        """Return what a tensor adds to the logits, per channel of `factor`, (..., channels)."""
        low, high = bounds
        gain, channels = self.gains[index].active, self.channels[index]
        each = gain / np.maximum(channels.active, 1e-9)
        top = min(high, RELU6_MAX) if index in self.six else high
        above = each * self._clipping(index, 1, top / factor)
        if index in self.six:
            above = np.where((channels.reach[1] >= _CLIPS) & (top / factor >= _CLIPS), 0.0, above)
        total: Doubles = above + each * self._clipping(index, 0, low / factor)
        if index not in self.exact:
            total = total + gain * ((low + high) / _LEVELS) ** 2 / 12.0 / factor**2
        return total

    def _clipping(self, index: int, side: int, bound: Doubles) -> Doubles:
        """Return the power of what a bound cuts off, as loud as it is heard, per channel."""
        channels = self.channels[index]
        share = bound / np.maximum(channels.reach[side], 1e-12)
        loud: Doubles = np.interp(share, SHARES, self.gains[index].clipping[side])
        return loud * channels.cost(side, bound)

    def _choose_bounds(self) -> None:
        for group in self.groups:
            reach = [self.channels[i].reach * self.factor(i) for i in group]
            low, high = (max(float(r[side].max()) for r in reach) for side in range(2))
            given = bool(set(group) & set(self.graph.inputs))
            if not given and all(self.channels[i].positions == 1 for i in group):
                low, high = MARGIN * low, MARGIN * high
            elif not given:
                widest = low, high
                for _ in range(2):
                    high = self._least(group, [(low, widest[1] * share) for share in _BOUNDS])[1]
                    low = self._least(group, [(widest[0] * share, high) for share in _BOUNDS])[0]
            if set(group) & self.six:
                high = min(high, RELU6_MAX)
            self.bounds.update(dict.fromkeys(group, (low, high)))

    def _least(self, group: Sequence[int], offered: Iterable[tuple[float, float]]) -> tuple[float, float]:
        return min(offered, key=lambda bounds: sum(float(self.noise(i, bounds, self.factor(i)).sum()) for i in group))

    def _better(self, stream: Stream, factor: Doubles) -> Doubles:
        """Return a stream's factors, each moved half of its way to where it adds least."""
        tried = factor * _STEPS[:, np.newaxis]
        if stream.clipped:
            # Scaled down, a channel would reach beyond RELU6's six, where float clips.
            tried = np.maximum(tried, 1.0)
        cost = sum((self.noise(i, self.bounds[i], tried) for i in stream.tensors), np.zeros(tried.shape))
        for layer in stream.after:
            if not layer.depthwise:
                cost += self._weight_noise(layer, factor, tried)
        best = tried[cost.argmin(axis=0), np.arange(len(factor))]
        halfway: Doubles = np.sqrt(factor * best)
        return halfway

    def _weight_noise(self, layer: Layer, factor: Doubles, tried: Doubles) -> Doubles:
        """Return what a layer's weights add when one input channel takes another factor: (tries, channels)."""
        weights = np.abs(values_of(self.graph, layer.weights)).reshape(layer.width, -1, layer.channels).max(axis=1)
        now = weights / factor
        order = np.sort(now, axis=1)
        second = order[:, -2:-1] if now.shape[1] > 1 else np.zeros((len(now), 1))
        others = np.where(now >= order[:, -1:], second, order[:, -1:])
        source = self.channels[layer.source]
        power = source.power * (np.prod(layer.shape[1:-1]) / source.positions)
        if len(power) != layer.channels:
            power = np.full(layer.channels, power.mean())
        whole = self.gains[layer.result].whole
        total = float((factor**2 * power).sum())
        found = np.empty(tried.shape)
        for row, values in enumerate(tried):
            steps = whole @ np.maximum(others, weights / values) ** 2
            found[row] = steps * (total + (values**2 - factor**2) * power)
        return found * (_WEIGHT_NOISE / _TOP**2)
