"""The steps in order, each kept only where it helps this model on held-back samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgepack.errors import UsageError
from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys, unique_names
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.apply import apply
from edgepack.quantize.calibrate import Calibration, calibrate
from edgepack.quantize.improve.absorb import absorb_biases
from edgepack.quantize.improve.balance import Balanced, balance
from edgepack.quantize.improve.bias import correct_biases
from edgepack.quantize.improve.equalize import channel_ranges, equalize, equalize_weights, find_streams
from edgepack.quantize.improve.layers import Layer, find_layers, own_biases
from edgepack.quantize.improve.network import Network, NotDifferentiable
from edgepack.quantize.improve.observe import Sample, logits, snr_db
from edgepack.quantize.improve.pool import means_for_pools
from edgepack.quantize.improve.rounding import fit_rounding
from edgepack.quantize.ranges import METHODS, Range, choose_ranges
from edgepack.quantize.scales import fixed_range, same_scale_groups

EFFORTS = ("low", "medium", "high")

#: Every step, in the order they run, with the effort from which it is on and where it comes from.
STEPS: dict[str, tuple[str, str]] = {
    "ranges": ("low", "range per model: min/max, percentile (Wu et al. 2020), squared error, entropy (Migacz 2017)"),
    "margin": (
        "low",
        "room around scores and averages: a clipped winner costs more than a coarser step",
    ),
    "bounds": ("low", "range per tensor by the noise it is estimated to make at the outputs, cf. Li et al. 2021"),
    "pools": ("medium", "a global average pool becomes MEAN, which has a scale of its own"),
    "balance": ("medium", "channel scales and ranges by estimated noise, cf. Nagel et al. 2019 and Li et al. 2021"),
    "equalize": ("medium", "cross-layer equalization, Nagel et al. 2019, section 4.1"),
    "absorb": ("medium", "high-bias absorption, Nagel et al. 2019, section 4.1.3"),
    "bias": ("medium", "empirical bias correction, Nagel et al. 2019, section 4.2"),
    "rounding": ("high", "weights rounded one after another, Frantar et al. 2022; cf. Nagel et al. 2020"),
}

#: Every so many samples one is held back to choose by.
_HELD_EVERY = 5

#: With fewer samples nothing is held back: too few would be left to measure ranges on.
_FEW = 10

#: A step must gain this much (dB) on the held-back samples to be kept: below lies chance.
_LEAST_GAIN = 0.1

#: What pools, bias correction and rounding may cost on the held-back samples. On unseen samples of nine models each of
#: them gained every time, 0.2 to 3 dB, while twenty samples held back said anything from -0.7 to 4.5.
_CHANCE = 1.5

#: What ranges by estimated noise may cost there: they leave room for samples that are not there.
_BOUNDS_COST = 0.75

#: What a method that clips must gain there over min/max: what it clips on other samples does not show.
_CLIPPING_GAIN = 0.75

#: How much wider the range of scores and averages gets. A hundred samples give a thousand of them, too few to know
#: their extremes; the coarser step costs 2 dB of some 43, far below the rest of the noise.
_MARGIN = 1.25

#: What a margin may cost on the held-back samples: its use shows on samples that are not there.
_MARGIN_COST = 1.0

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        id: Key of `STEPS`.
        kept: False when it did not help and was left off.
        snr_db: SNR of the logits on the held-back samples with it; inf when the outputs are equal.
        gain_db: What it gained over the steps before it, dB.
        detail: The setting chosen.
    """

    id: str
    kept: bool
    snr_db: float
    gain_db: float
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON, figures rounded to what they mean."""
        figures = {"snr_db": round(self.snr_db, 2), "gain_db": round(self.gain_db, 2)}
        return {"step": self.id, "kept": self.kept, **figures, "detail": self.detail, "source": STEPS[self.id][1]}


@dataclass(frozen=True)
class Improved:
    """A float model made ready to be quantized.

    Attributes:
        tflite: The float model: equalized, biases corrected, weights on their int8 grid at effort high.
        ranges: Range of each activation by `tensor_keys`, for `edgepack.quantize.apply.apply`.
        steps: What was tried, in order.
    """

    tflite: bytes
    ranges: dict[str, Range]
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report for the manifest."""
        return {"steps": [step.to_json() for step in self.steps]}


@dataclass(frozen=True)
class _Recipe:
    """Settings of all steps; the same recipe on the same samples gives the same bytes."""

    method: str = "minmax"
    margin: bool = False
    bounds: bool = False
    pools: bool = False
    balance: bool = False
    share: float | None = None
    absorb: bool = False
    bias: bool = False
    rounding: bool = False


def improve(
    tflite: bytes,
    rule: SchemeRule,
    samples: Sequence[Sample],
    effort: str = "medium",
    *,
    off: Sequence[str] = (),
    progress: Progress | None = None,
) -> Improved:
    """Find the float model and ranges whose int8 file loses least, without labels.

    Every fifth sample is held back: the rest fit each step, the held-back ones say whether it stays. At the end the
    steps that stay are run once more on all samples. Deterministic.

    Args:
        tflite: A float .tflite.
        rule: The int8 rule it is for.
        samples: Real values by `Model.input_names()`, with the batch dimension; 100 to 500 are typical.
        effort: `low` (ranges), `medium` (all but rounding) or `high`.
        off: Steps of `STEPS` to leave out.
        progress: Told (step, part done, parts).

    Raises:
        UsageError: Unknown effort or step.
        QuantizationRefused: ai-edge-quantizer cannot take the model; nothing can be tried then.
        QuantizationError: The model cannot be calibrated.
    """
    if effort not in EFFORTS:
        raise UsageError(f"unknown effort '{effort}'", hint=f"efforts are: {', '.join(EFFORTS)}")
    if unknown := sorted(set(off) - set(STEPS)):
        raise UsageError(f"unknown step '{unknown[0]}'", hint=f"steps are: {', '.join(STEPS)}")
    on = [step for step, (least, _) in STEPS.items() if EFFORTS.index(least) <= EFFORTS.index(effort)]
    search = _Search(unique_names(tflite), rule, samples, progress or (lambda step, done, parts: None))
    for step in on:
        if step not in off:
            getattr(search, f"try_{step}")()
    made, ranges = search.workshop(samples).build(search.recipe)
    return Improved(made, ranges, tuple(search.steps))


class _Workshop:
    """Builds recipes on one set of samples; parts that recipes share are built once."""

    def __init__(self, tflite: bytes, rule: SchemeRule, samples: Sequence[Sample], progress: Progress) -> None:
        self.tflite, self.rule, self.samples, self.progress = tflite, rule, samples, progress
        self._kept: dict[Any, Any] = {}

    def build(self, recipe: _Recipe) -> tuple[bytes, dict[str, Range]]:
        """Return (float model, ranges)."""
        right = self.equalized(recipe)
        ranges = self.ranges(recipe)
        made = right

        def quantize(model: bytes) -> bytes:
            return self.quantize(model, ranges)

        if recipe.rounding:
            made = fit_rounding(
                right, right, quantize, self.samples, per_tensor=self.per_tensor,
                progress=lambda done, parts: self.progress("rounding", done, parts),
            )  # fmt: skip
        if recipe.bias:
            made = correct_biases(
                right, made, quantize, self.samples, progress=lambda done, parts: self.progress("bias", done, parts)
            )
        return made, ranges

    def quantize(self, model: bytes, ranges: Mapping[str, Range]) -> bytes:
        """Return the integer file."""
        return apply(model, self.rule, ranges).tflite

    def per_tensor(self, layer: Layer) -> bool:
        """Return whether a layer's weights get one scale."""
        dense = layer.dense and self.rule.fully_connected == "per-tensor"
        return dense or self.rule.weights == "per-tensor"

    def equalized(self, recipe: _Recipe) -> bytes:
        """Return the float model before anything is fitted to the integer file."""
        key = ("equalized", recipe.pools, recipe.balance, recipe.share, recipe.absorb)
        made: bytes = self._once(key, lambda: self._equalized(recipe))
        return made

    def ranges(self, recipe: _Recipe) -> dict[str, Range]:
        """Return the recipe's ranges."""
        found = self.ranges_by(recipe, recipe.method)
        if recipe.bounds or recipe.balance:
            return {**found, **self.balanced(recipe).ranges}
        if recipe.margin:
            wide = self.few_valued(recipe)
            found = {
                k: (low * _MARGIN, high * _MARGIN) if k in wide else (low, high) for k, (low, high) in found.items()
            }
        return found

    def few_valued(self, recipe: _Recipe) -> set[str]:
        """Return the keys of the activations with one value per channel, such as scores and averages.

        Where one must share its scale with a larger activation, it is left out.
        """
        graph = read_model(self.equalized(recipe)).main
        keys = tensor_keys(graph)
        few = {
            tensor.index
            for tensor in graph.tensors
            if tensor.rank > 1 and tensor.elements == tensor.shape[-1] and tensor.index not in graph.inputs
        }
        fixed = {op.outputs[0] for op in graph.ops if fixed_range(op, 8) is not None}
        for group in same_scale_groups(graph):
            if not few.issuperset(group):
                few -= set(group)
        return {keys[index] for index in few - fixed if not graph.tensors[index].is_constant}

    def ranges_by(self, recipe: _Recipe, method: str) -> dict[str, Range]:
        """Return the ranges of one method."""
        model = self.equalized(recipe)
        key = ("calibration", recipe.pools, recipe.balance, recipe.share, recipe.absorb)
        calibration: Calibration = self._once(key, lambda: calibrate(model, self.samples, 2))
        found: dict[str, Range] = self._once(
            (*key, method), lambda: choose_ranges(calibration, read_model(model), method)
        )
        return found

    def balanced(self, recipe: _Recipe) -> Balanced:
        """Return the model with ranges by estimated noise, its channels scaled as well where the recipe says so."""
        base = replace(recipe, balance=False, bounds=False)
        key = ("balanced", recipe.pools, recipe.balance, recipe.share, recipe.absorb)
        made: Balanced = self._once(key, lambda: balance(self.equalized(base), self.samples, scale=recipe.balance))
        return made

    def _equalized(self, recipe: _Recipe) -> bytes:
        if recipe.balance:
            return self.balanced(recipe).tflite
        if not (recipe.pools or recipe.absorb or recipe.bias or recipe.rounding or recipe.share is not None):
            return self.tflite
        model = own_biases(self.tflite)
        if recipe.pools:
            model = means_for_pools(model)
        if recipe.share is not None:
            graph = read_model(model).main
            seen = channel_ranges(model, find_streams(graph, find_layers(graph)), self.samples)
            if self.rule.weights == "per-tensor":
                model = equalize_weights(model, seen)
            else:
                model = equalize(model, seen, recipe.share)
        return absorb_biases(model, self.samples) if recipe.absorb else model

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


class _Search:
    """Tries step after step and keeps what helps."""

    def __init__(self, tflite: bytes, rule: SchemeRule, samples: Sequence[Sample], progress: Progress) -> None:
        self._given = (tflite, rule, progress)
        self._progress = progress
        few = len(samples) < _FEW
        self._held = list(samples) if few else list(samples[::_HELD_EVERY])
        fitting = list(samples) if few else [s for i, s in enumerate(samples) if i % _HELD_EVERY]
        self._shop = self.workshop(fitting)
        self._reference = logits(tflite, self._held)
        self.recipe = _Recipe()
        self.steps: list[Step] = []
        self._score = self._measure(self.recipe)

    def workshop(self, samples: Sequence[Sample]) -> _Workshop:
        """Return a workshop on these samples."""
        tflite, rule, progress = self._given
        return _Workshop(tflite, rule, samples, progress)

    def try_ranges(self) -> None:
        """One method for the whole model."""
        trials = [(replace(self.recipe, method=method), method) for method in METHODS]
        self._best("ranges", trials, least=_CLIPPING_GAIN)

    def try_margin(self) -> None:
        """A margin for activations with few values."""
        if self._shop.few_valued(self.recipe):
            self._best("margin", [(replace(self.recipe, margin=True), f"{_MARGIN:g} times")], least=-_MARGIN_COST)

    def try_bounds(self) -> None:
        """Ranges by estimated noise."""
        if reason := self._not_estimated():
            self.steps.append(Step("bounds", False, self._score, 0.0, reason))
        else:
            self._best("bounds", [(replace(self.recipe, bounds=True), "")], least=-_BOUNDS_COST)

    def try_balance(self) -> None:
        """Channel scales and ranges by estimated noise; held against the steps before with biases corrected."""
        if self._shop.rule.weights == "per-tensor":
            return
        if reason := self._not_estimated():
            self.steps.append(Step("balance", False, self._score, 0.0, reason))
            return
        now, then = self._score, self._measure(replace(self.recipe, bias=True))
        self._score = then
        self._best("balance", [(replace(self.recipe, balance=True, bias=True), "biases corrected")], least=-_CHANCE)
        self.recipe = replace(self.recipe, bias=False)
        self._score = self._measure(self.recipe) if self.recipe.balance else now

    def _not_estimated(self) -> str:
        """Return why noise cannot be estimated for this model, empty when it can."""
        try:
            Network(self._shop.tflite)
        except NotDifferentiable as error:
            return error.message
        return ""

    def try_pools(self) -> None:
        """MEAN for global pools."""
        if means_for_pools(self._shop.tflite) != self._shop.tflite:
            self._best("pools", [(replace(self.recipe, pools=True), "MEAN")], least=-_CHANCE)

    def try_equalize(self) -> None:
        """How far channels are brought together, with each range method."""
        graph = read_model(self._shop.tflite).main
        if find_streams(graph, find_layers(graph)) and not self.recipe.balance:
            shares = _SHARES if self._shop.rule.weights != "per-tensor" else (0.5,)
            methods = dict.fromkeys(("minmax", "percentile", self.recipe.method))
            trials = [(share, method) for share in shares for method in methods]
            self._best(
                "equalize",
                [
                    (replace(self.recipe, share=s, method=m, bounds=False), f"share {s:g}, {m} ranges")
                    for s, m in trials
                ],
            )

    def try_absorb(self) -> None:
        """High-bias absorption."""
        if self._shop.equalized(replace(self.recipe, absorb=True)) != self._shop.equalized(self.recipe):
            self._best("absorb", [(replace(self.recipe, absorb=True), "")])

    def try_bias(self) -> None:
        """Bias correction."""
        self._best("bias", [(replace(self.recipe, bias=True), "")], least=-_CHANCE)

    def try_rounding(self) -> None:
        """Adaptive rounding, which corrects biases on its way."""
        self._best("rounding", [(replace(self.recipe, rounding=True, bias=False), "")], least=-_CHANCE)

    def _best(self, step: str, trials: Sequence[tuple[_Recipe, str]], least: float = _LEAST_GAIN) -> None:
        scored: list[tuple[float, _Recipe, str]] = []
        for done, (recipe, detail) in enumerate(trials):
            self._progress(step, done, len(trials))
            scored.append((self._measure(recipe), recipe, detail))
        score, recipe, detail = max(scored, key=lambda one: one[0])
        gain = 0.0 if score == self._score else score - self._score
        kept = gain >= least or recipe == self.recipe
        self.steps.append(Step(step, kept, score, gain, detail))
        if kept:
            self.recipe, self._score = recipe, score

    def _measure(self, recipe: _Recipe) -> float:
        return snr_db(self._reference, logits(self._shop.quantize(*self._shop.build(recipe)), self._held))
