"""Scale channels and choose ranges together so that the estimated int8 noise at the logits is lowest.

An activation with bounds -l and h and channels scaled by t adds, at the logits, per channel: gain * ((l + h) / 255)^2 /
(12 t^2) for rounding, and gain * clipping gain * clipping error for clipping; the weights of the next layer, whose
scale step the channel that is scaled down most determines, add their own noise. Channel factors and bounds are
optimized in turn until that sum converges. Gains are squared gradients (`noise_gain`), as Fisher information weighs
rounding errors in Li et al. 2021, "BRECQ"; the clipping error on unseen samples is estimated in `clipping_error`.
Cross-layer equalization (Nagel et al. 2019) is the special case of equal gains, bounds at the maximum and weights
without noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgepack.choices import Effort
from edgepack.graph import Graph, read_model
from edgepack.graph.edit import float_activations, tensor_keys
from edgepack.graph.op_layout import RELU6_MAX
from edgepack.quantize.ptq.checkpoint import part_name
from edgepack.quantize.ptq.clipping_error import ChannelStatistics, channel_statistics
from edgepack.quantize.ptq.cross_layer_equalization import (
    HEADROOM,
    EqualizationGroup,
    find_equalization_groups,
    scale_channels,
)
from edgepack.quantize.ptq.layers import Doubles, Layer, constant_values, find_layers
from edgepack.quantize.ptq.model_ranges import single_value_channels
from edgepack.quantize.ptq.noise_gain import GainFunction, NoiseGain
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import CHEAP_WORK, CLIPPING_SHARES
from edgepack.quantize.ptq.tuning import ROOM as MARGIN
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_constraints import WITHOUT_ROUNDING, fixed_range, same_scale_groups

#: Value from which a channel counts as clipped by RELU6.
_CLIPPED_FROM = 5.99

#: Noise of a weight in squares of its scale step: half of that of rounding to nearest (1/12), about what remains after
#: rounding with error feedback (GPTQ). On six models 0.1 to 1 times 1/12 made 0.3 dB of difference.
_WEIGHT_NOISE = 0.5 / 12.0

#: Arrays of a noise gain.
_GAIN_PARTS = ("active", "total", "clipping")

#: Functions that are kept, one for each form of the graph.
_MOST_FUNCTIONS = 4

_LEVELS, _MAX_WEIGHT = 255.0, 127.0

#: Rounds of optimizing channel factors and bounds in turn, and the changes that a factor may take in one round.
_ROUNDS = 5
_FACTOR_CHANGES = np.exp(np.linspace(-1.2, 1.2, 25))

#: Bounds that are tried, as shares of the largest observed value.
_BOUNDS = np.concatenate([np.linspace(0.35, 1.0, 14), np.linspace(1.05, 2.0, 20)])


@dataclass(frozen=True)
class ScaledModel:
    """A model with scaled channels, and ranges.

    Attributes:
        tflite: The float model, scaled.
        ranges: Range of the activations that the logits depend on, by `tensor_keys`.
    """

    tflite: bytes
    ranges: dict[str, Range]


class _Balance(Step):
    id = "balance"
    effort = Effort.MEDIUM
    source = "channel scales and ranges by estimated noise, cf. Nagel et al. 2019 and Li et al. 2021"
    purpose = "channel scales"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        groups = find_equalization_groups(subject.graph, subject.layers)
        if not groups or subject.rule.weights == "per-tensor":
            return []
        if subject.effort != Effort.HIGH and subject.work > CHEAP_WORK:
            return []
        # Behind RELU6 a scaled channel is clipped earlier, and how far unseen samples reach is a guess.
        exact = "channel scales except behind RELU6"
        limited = any(group.relu6 for group in groups)
        kinds = [exact] if limited else ["channel scales"]
        if limited and subject.work <= CHEAP_WORK:
            kinds.append("channel scales")
        bounds: Change = {"bounds": "ranges by noise"}
        changes: list[Change] = [{self.id: kind, "equalize": None} for kind in kinds]
        return [*changes, *({**change, **bounds} for change in changes)]

    def combinations(self, subject: Subject) -> Sequence[Change]:
        return [change for change in self.configurations(subject, {}) if "bounds" not in change]

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        search = _search(fit.reference, view, subject, relu6=setting == "channel scales")
        model = search.solve(fit.reference, _ROUNDS).tflite
        return replace(fit, reference=model, tflite=model)


class _Bounds(Step):
    id = "bounds"
    effort = Effort.MEDIUM
    source = "range per tensor by its estimated noise at the outputs, cf. Li et al. 2021"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        return [{self.id: "ranges by noise"}]

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        ranges = _search(fit.reference, view, subject).solve(fit.reference, 0).ranges
        # Of scores and averages a hundred samples say too little: they have what `ranges` and `margin` gave them.
        chosen = fit.ranges.keys() - single_value_channels(fit.reference)
        return replace(fit, ranges={**fit.ranges, **{key: ranges[key] for key in sorted(chosen & ranges.keys())}})


BALANCE = _Balance()
BOUNDS = _Bounds()


def _search(tflite: bytes, view: View, subject: Subject, *, relu6: bool = True) -> "_NoiseSearch":
    statistics, gains = _channels(tflite, view), measured_gains(tflite, view, subject)
    known = {index: gain for index, gain in gains.items() if index in statistics}
    return _NoiseSearch(read_model(tflite).main, known, statistics, relu6=relu6)


def measured_gains(tflite: bytes, view: View, subject: Subject) -> dict[int, NoiseGain]:
    """Return the noise gains of a float model's activations, measured once on all samples."""
    peaks = {index: channels.peak for index, channels in _channels(tflite, view).items()}
    return subject.once("noise gains", tflite, lambda: _kept_gains(tflite, peaks, subject))


def _kept_gains(tflite: bytes, peaks: Mapping[int, Doubles], subject: Subject) -> dict[int, NoiseGain]:
    """Measure noise gains, or read them from the checkpoint: the peaks are those of the view that came first."""
    name = part_name("noise gains", tflite)
    known = subject.checkpoint.get(name)
    if known is not None:
        indices = sorted({int(key.split("_")[1]) for key in known})
        return {i: NoiseGain(known[f"active_{i}"], known[f"total_{i}"], known[f"clipping_{i}"]) for i in indices}
    functions: list[GainFunction] = subject.once("gain functions", subject.tflite, list)
    function = next((known for known in functions if known.serves(tflite, peaks)), None)
    if function is None:
        function = GainFunction(tflite, peaks)
        functions[:] = [*functions[-_MOST_FUNCTIONS + 1 :], function]
    gains = function(tflite, subject.samples, peaks)
    arrays = {f"{part}_{index}": getattr(gain, part) for index, gain in gains.items() for part in _GAIN_PARTS}
    subject.checkpoint.put(name, arrays)
    return gains


def _channels(tflite: bytes, view: View) -> dict[int, ChannelStatistics]:
    graph = read_model(tflite).main
    return view.once("channel statistics", tflite, lambda: _statistics(tflite, graph, view))


def _statistics(tflite: bytes, graph: Graph, view: View) -> dict[int, ChannelStatistics]:
    tensors = [index for index in float_activations(graph) if graph.tensors[index].rank]
    return channel_statistics(tflite, tensors, view.samples)


class _NoiseSearch:
    """The noise estimate and its minimization; channel factors and bounds are the state."""

    def __init__(
        self,
        graph: Graph,
        gains: Mapping[int, NoiseGain],
        statistics: Mapping[int, ChannelStatistics],
        *,
        relu6: bool = True,
    ) -> None:
        self.graph, self.gains, self.statistics = graph, gains, statistics
        producers = {op.outputs[0]: op for op in graph.ops}
        self.without_rounding = {i for i in gains if i in producers and producers[i].name in WITHOUT_ROUNDING}
        self.relu6 = {
            i
            for i in gains
            if i in producers and "RELU6" in (producers[i].name, producers[i].options.get("fused_activation"))
        }
        groups = [g for g in find_equalization_groups(graph, find_layers(graph)) if set(g.tensors) <= set(gains)]
        if not relu6:
            groups = [group for group in groups if not group.relu6]
        self.groups: list[EqualizationGroup] = groups
        self.factors = [np.ones(group.before[0].output_channels) for group in groups]
        self.group_of = {i: number for number, group in enumerate(groups) for i in group.tensors}
        fixed = {op.outputs[0] for op in graph.ops if fixed_range(op, 8) is not None}
        tied = [[i for i in tensors if i in gains and i not in fixed] for tensors in same_scale_groups(graph)]
        alone = set(gains) - {i for tensors in tied for i in tensors} - fixed
        self.same_scale = [tensors for tensors in tied if tensors] + [[i] for i in sorted(alone)]
        self.bounds: dict[int, tuple[float, float]] = {}

    def solve(self, tflite: bytes, rounds: int) -> ScaledModel:
        self._choose_bounds()
        for _ in range(rounds if self.groups else 0):
            for number, group in enumerate(self.groups):
                self.factors[number] = self._improved_factors(group, self.factors[number])
            self._choose_bounds()
        model = scale_channels(tflite, zip(self.groups, self.factors, strict=True)) if rounds else tflite
        keys = tensor_keys(self.graph)
        ranges = {keys[i]: (-float(low), float(high)) for i, (low, high) in sorted(self.bounds.items())}
        return ScaledModel(model, ranges)

    def factor(self, index: int) -> Doubles:
        """Return the channel factors of a tensor."""
        return self.factors[self.group_of[index]] if index in self.group_of else np.ones(1)

    def noise(self, index: int, bounds: tuple[float | Doubles, float | Doubles], factor: Doubles) -> Doubles:
        """Return the noise that a tensor adds to the logits, per channel of `factor`, (..., channels).

        Args:
            index: The tensor.
            bounds: Magnitudes below and above zero, numbers or (candidates, 1).
            factor: Channel factors.
        """
        low, high = bounds
        gain, statistics = self.gains[index].active, self.statistics[index]
        gain_per_value = gain / np.maximum(statistics.active, 1e-9)
        top = np.minimum(high, RELU6_MAX) if index in self.relu6 else high
        above = gain_per_value * self._clipping_noise(index, 1, top / factor)
        if index in self.relu6:
            above = np.where((statistics.peak[1] >= _CLIPPED_FROM) & (top / factor >= _CLIPPED_FROM), 0.0, above)
        total: Doubles = above + gain_per_value * self._clipping_noise(index, 0, low / factor)
        if index not in self.without_rounding:
            total = total + gain * ((low + high) / _LEVELS) ** 2 / 12.0 / factor**2
        return total

    def _clipping_noise(self, index: int, side: int, bound: Doubles) -> Doubles:
        """Return the clipping error of a bound, weighted with its gain relative to rounding error, per channel."""
        statistics = self.statistics[index]
        share = bound / np.maximum(statistics.peak[side], 1e-12)
        relative_gain: Doubles = np.interp(share, CLIPPING_SHARES, self.gains[index].clipping[side])
        return relative_gain * statistics.clipping_error(side, bound)

    def _choose_bounds(self) -> None:
        for tensors in self.same_scale:
            peaks = [self.statistics[i].peak * self.factor(i) for i in tensors]
            low, high = (max(float(peak[side].max()) for peak in peaks) for side in range(2))
            has_input = bool(set(tensors) & set(self.graph.inputs))
            if not has_input and all(self.statistics[i].positions == 1 for i in tensors):
                low, high = MARGIN * low, MARGIN * high
            elif not has_input:
                lows, highs = low * _BOUNDS, high * _BOUNDS
                for _ in range(2):
                    high = float(highs[self._noises(tensors, low, highs).argmin()])
                    low = float(lows[self._noises(tensors, lows, high).argmin()])
            if set(tensors) & self.relu6:
                high = min(high, RELU6_MAX)
            self.bounds.update(dict.fromkeys(tensors, (low, high)))

    def _noises(self, tensors: Sequence[int], low: float | Doubles, high: float | Doubles) -> Doubles:
        """Return the noise of tensors with a common scale for each of several bounds on one side."""
        bounds = [value if isinstance(value, float) else value[:, np.newaxis] for value in (low, high)]
        noises = [self.noise(i, (bounds[0], bounds[1]), self.factor(i)).sum(axis=-1) for i in tensors]
        return np.asarray(np.sum(noises, axis=0))

    def _improved_factors(self, group: EqualizationGroup, factor: Doubles) -> Doubles:
        """Return a group's factors, each moved halfway (geometrically) to where the noise is lowest."""
        candidates = factor * _FACTOR_CHANGES[:, np.newaxis]
        if group.relu6:
            # A channel scaled down would exceed the limit of RELU6, where the float model clips.
            peak = np.max([self.statistics[i].peak[1] for i in group.relu6], axis=0)
            candidates = np.clip(candidates, 1.0, np.maximum(RELU6_MAX / np.maximum(HEADROOM * peak, 1e-12), 1.0))
        noise = sum((self.noise(i, self.bounds[i], candidates) for i in group.tensors), np.zeros(candidates.shape))
        for layer in group.after:
            if not layer.depthwise:
                noise += self._weight_noise(layer, factor, candidates)
        best = candidates[noise.argmin(axis=0), np.arange(len(factor))]
        halfway: Doubles = np.sqrt(factor * best)
        return halfway

    def _weight_noise(self, layer: Layer, factor: Doubles, candidates: Doubles) -> Doubles:
        """Return the noise of a layer's weights when one input channel changes its factor: (candidates, channels)."""
        weights = np.abs(constant_values(self.graph, layer.weights))
        weights = weights.reshape(layer.output_channels, -1, layer.input_channels).max(axis=1)
        current = weights / factor
        order = np.sort(current, axis=1)
        second = order[:, -2:-1] if current.shape[1] > 1 else np.zeros((len(current), 1))
        others = np.where(current >= order[:, -1:], second, order[:, -1:])
        source = self.statistics[layer.source]
        power = source.power * (np.prod(layer.shape[1:-1]) / source.positions)
        if len(power) != layer.input_channels:
            power = np.full(layer.input_channels, power.mean())
        gain = self.gains[layer.result].total
        total_power = float((factor**2 * power).sum())
        noise = np.empty(candidates.shape)
        for row, values in enumerate(candidates):
            squared_steps = gain @ np.maximum(others, weights / values) ** 2
            noise[row] = squared_steps * (total_power + (values**2 - factor**2) * power)
        return noise * (_WEIGHT_NOISE / _MAX_WEIGHT**2)
