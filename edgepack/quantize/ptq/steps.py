"""The steps in order, each kept only where it helps this model on held-back samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from edgepack.errors import UsageError
from edgepack.graph import read_model
from edgepack.graph.edit import float_activations, unique_names
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq.balance import MARGIN
from edgepack.quantize.ptq.center import plan_offsets
from edgepack.quantize.ptq.equalize import find_streams
from edgepack.quantize.ptq.layers import find_layers, own_biases
from edgepack.quantize.ptq.network import Network, NotDifferentiable
from edgepack.quantize.ptq.observe import Sample, logits, snr_db
from edgepack.quantize.ptq.pool import means_for_pools
from edgepack.quantize.ptq.workshop import Progress, Recipe, Workshop
from edgepack.quantize.ranges import METHODS, Range

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
    "center": ("medium", "constants that centre the channels of linear activations, cf. Nagel et al. 2019"),
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

#: What steps that always gained on unseen samples of nine models (0.2 to 3 dB) may cost on the held-back ones: twenty
#: samples held back said anything from -2.1 to 7.3 of them.
_CHANCE = 3.0

#: What ranges by estimated noise may cost there: they leave room for samples that are not there.
_BOUNDS_COST = 1.25

#: What a method that clips must gain there over min/max: what it clips on other samples does not show.
_CLIPPING_GAIN = 0.75

#: What a margin may cost on the held-back samples: its use shows on samples that are not there.
_MARGIN_COST = 1.0

#: Values of all activations of all samples that noise is estimated from in seconds.
_SECONDS_VALUES = 50_000_000

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


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
        ranges: Range of each activation by `tensor_keys`, for `edgepack.quantize.quantizer.quantize`.
        steps: What was tried, in order.
    """

    tflite: bytes
    ranges: dict[str, Range]
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report for the manifest."""
        return {"steps": [step.to_json() for step in self.steps]}


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
    search = _Search(unique_names(tflite), rule, samples, effort, progress or (lambda step, done, parts: None))
    for step in on:
        if step not in off:
            getattr(search, f"try_{step}")()
    made, ranges = search.workshop(samples).build(search.recipe)
    return Improved(made, ranges, tuple(search.steps))


class _Search:
    """Tries step after step and keeps what helps."""

    def __init__(
        self, tflite: bytes, rule: SchemeRule, samples: Sequence[Sample], effort: str, progress: Progress
    ) -> None:
        self._given = (tflite, rule, progress)
        self._effort = effort
        self._progress = progress
        few = len(samples) < _FEW
        self._held = list(samples) if few else list(samples[::_HELD_EVERY])
        fitting = list(samples) if few else [s for i, s in enumerate(samples) if i % _HELD_EVERY]
        self._shop = self.workshop(fitting)
        self._reference = logits(tflite, self._held)
        self.recipe = Recipe()
        self.steps: list[Step] = []
        self._score = self._measure(self.recipe)

    def workshop(self, samples: Sequence[Sample]) -> Workshop:
        """Return a workshop on these samples."""
        tflite, rule, progress = self._given
        return Workshop(tflite, rule, samples, progress)

    def try_ranges(self) -> None:
        """One method for the whole model."""
        trials = [(replace(self.recipe, method=method), method) for method in METHODS]
        self._best("ranges", trials, least=_CLIPPING_GAIN)

    def try_margin(self) -> None:
        """A margin for activations with few values."""
        if self._shop.few_valued(self.recipe):
            self._best("margin", [(replace(self.recipe, margin=True), f"{MARGIN:g} times")], least=-_MARGIN_COST)

    def try_bounds(self) -> None:
        """Ranges by estimated noise."""
        reason = self._not_estimated or ("left for effort medium: large activations" if self._too_large() else "")
        if reason:
            self.steps.append(Step("bounds", False, self._score, 0.0, reason))
        else:
            self._best("bounds", [(replace(self.recipe, bounds=True), "")], least=-_BOUNDS_COST)

    def try_balance(self) -> None:
        """Channel scales and ranges by estimated noise; held against the steps before with biases corrected."""
        if self._shop.rule.weights == "per-tensor":
            return
        if reason := self._not_estimated:
            self.steps.append(Step("balance", False, self._score, 0.0, reason))
            return
        now, then = self._score, self._measure(replace(self.recipe, bias=True))
        self._score = then
        self._best("balance", [(replace(self.recipe, balance=True, bias=True), "biases corrected")], least=-_CHANCE)
        self.recipe = replace(self.recipe, bias=False)
        self._score = self._measure(self.recipe) if self.recipe.balance else now

    def _too_large(self) -> bool:
        """Return whether the estimate would take more than seconds, at the effort that is to take seconds."""
        graph = read_model(self._shop.tflite).main
        values = sum(graph.tensors[index].elements for index in float_activations(graph))
        return self._effort == "low" and values * len(self._shop.samples) > _SECONDS_VALUES

    @cached_property
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

    def try_center(self) -> None:
        """Constants on linear activations."""
        if not self._not_estimated and plan_offsets(read_model(own_biases(self._shop.tflite)).main) is not None:
            self._best("center", [(replace(self.recipe, center=True), "")], least=-_CHANCE)

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
        """Adaptive rounding; biases are corrected once more behind it."""
        self._best("rounding", [(replace(self.recipe, rounding=True), "")], least=-_CHANCE)

    def _best(self, step: str, trials: Sequence[tuple[Recipe, str]], least: float = _LEAST_GAIN) -> None:
        scored: list[tuple[float, Recipe, str]] = []
        for done, (recipe, detail) in enumerate(trials):
            self._progress(step, done, len(trials))
            scored.append((self._measure(recipe), recipe, detail))
        score, recipe, detail = max(scored, key=lambda one: one[0])
        gain = 0.0 if score == self._score else score - self._score
        kept = gain >= least or recipe == self.recipe
        self.steps.append(Step(step, kept, score, gain, detail))
        if kept:
            self.recipe, self._score = recipe, score

    def _measure(self, recipe: Recipe) -> float:
        return snr_db(self._reference, logits(self._shop.quantize(*self._shop.build(recipe)), self._held))
