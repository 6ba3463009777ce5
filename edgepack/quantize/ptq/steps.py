"""Run the steps in order, each kept only where it improves this model on held-back samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from edgepack.choices import Effort
from edgepack.errors import UsageError
from edgepack.graph import read_model
from edgepack.graph.edit import float_activations, unique_names
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq.activations import Sample, coarsest_tensor, logits, snr_db
from edgepack.quantize.ptq.channel_centering import plan_offsets
from edgepack.quantize.ptq.cross_layer_equalization import find_equalization_groups
from edgepack.quantize.ptq.global_pooling import replace_global_pools
from edgepack.quantize.ptq.layers import find_layers, unshare_biases
from edgepack.quantize.ptq.model_builder import ModelBuilder, Progress, Settings
from edgepack.quantize.ptq.network import Network, NotDifferentiable
from edgepack.quantize.ptq.noise_minimization import MARGIN
from edgepack.quantize.ranges import METHODS, Range
from edgepack.text import first_line

EFFORTS: tuple[str, ...] = tuple(effort.value for effort in Effort)

#: Every step, in the order they run, with the lowest effort that runs it and its source.
STEPS: dict[str, tuple[str, str]] = {
    "ranges": ("low", "range per model: min/max, percentile (Wu et al. 2020), squared error, entropy (Migacz 2017)"),
    "margin": (
        "low",
        "wider ranges for scores and averages: clipping the top score costs more than a coarser scale",
    ),
    "bounds": ("low", "range per tensor by its estimated noise at the outputs, cf. Li et al. 2021"),
    "pools": ("medium", "a global average pool becomes MEAN, which has a scale of its own"),
    "center": ("medium", "constants that center the channels of linear activations, cf. Nagel et al. 2019"),
    "balance": ("medium", "channel scales and ranges by estimated noise, cf. Nagel et al. 2019 and Li et al. 2021"),
    "equalize": ("medium", "cross-layer equalization, Nagel et al. 2019, section 4.1"),
    "absorb": ("medium", "high-bias absorption, Nagel et al. 2019, section 4.1.3"),
    "bias": ("medium", "empirical bias correction, Nagel et al. 2019, section 4.2"),
    "rounding": ("high", "weights rounded one after another, Frantar et al. 2022; cf. Nagel et al. 2020"),
}

#: One sample out of this many is held back to select steps by.
_HELD_BACK_EVERY = 5

#: With fewer samples none is held back: too few would be left to measure ranges on.
_MIN_SAMPLES_TO_HOLD_BACK = 10

#: Gain (dB) on the held-back samples that a step needs to be kept: smaller gains are noise.
_MIN_GAIN = 0.1

#: Loss (dB) there that is accepted of steps that always gained on unseen samples of nine models (0.2 to 3 dB): with
#: twenty samples held back their measured gain was anything from -2.1 to 7.3 dB.
_ACCEPTED_LOSS = 3.0

#: Loss (dB) there that is accepted of ranges by estimated noise: they leave headroom for samples that are not there.
_ACCEPTED_LOSS_OF_BOUNDS = 1.25

#: Gain (dB) there over min/max that a method that clips needs: its clipping error on other samples does not show.
_MIN_GAIN_OF_CLIPPING = 0.75

#: Loss (dB) there that is accepted of a margin: its benefit shows on samples that are not there.
_ACCEPTED_LOSS_OF_MARGIN = 1.0

#: Gain (dB) of all steps together below which a note says what the limit is, and SNR (dB) from which none is needed:
#: there top-1 of the models of scripts/bench quality is that of the float model within half a point.
_NOTABLE_GAIN, _GOOD_SNR = 3.0, 20.0

#: Limit of the values of all activations of all samples from which noise is estimated within seconds.
_FAST_VALUES = 50_000_000

#: Shares of cross-layer equalization that are tried.
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Step:
    """The outcome of one step.

    Attributes:
        id: Key of `STEPS`.
        kept: False when it did not help and was left out.
        snr_db: SNR of the logits on the held-back samples with it, dB; inf when the outputs are equal.
        gain_db: Gain over the steps before it, dB.
        detail: The chosen setting, or why the step was not tried.
    """

    id: str
    kept: bool
    snr_db: float
    gain_db: float
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON, figures rounded to two decimals."""
        figures = {"snr_db": round(self.snr_db, 2), "gain_db": round(self.gain_db, 2)}
        return {"step": self.id, "kept": self.kept, **figures, "detail": self.detail, "source": STEPS[self.id][1]}


@dataclass(frozen=True)
class Improved:
    """A float model prepared for quantization.

    Attributes:
        tflite: The float model: equalized, biases corrected, weights on their int8 grid at effort high.
        ranges: Range of each activation by `tensor_keys`, for `edgepack.quantize.quantizer.quantize`.
        steps: The steps that were tried, in order.
        notes: Sentences for people: what keeps the steps from helping.
    """

    tflite: bytes
    ranges: dict[str, Range]
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report for the manifest."""
        notes = {"notes": list(self.notes)} if self.notes else {}
        return {"steps": [step.to_json() for step in self.steps], **notes}


def improve(
    tflite: bytes,
    rule: SchemeRule,
    samples: Sequence[Sample],
    effort: str = "medium",
    *,
    off: Sequence[str] = (),
    progress: Progress | None = None,
) -> Improved:
    """Find the float model and ranges whose int8 file is closest to the original model, without labels.

    Every fifth sample is held back: each step is fitted on the others and kept if it improves the result on the
    held-back ones. At the end the kept steps run once more on all samples. Deterministic.

    Args:
        tflite: A float .tflite.
        rule: The int8 rule of the target.
        samples: Real values by `Model.input_names()`, with the batch dimension; 100 to 500 are typical.
        effort: `low` (ranges), `medium` (all but rounding) or `high`.
        off: Steps of `STEPS` to leave out.
        progress: Called with (step, parts done, parts).

    Raises:
        UsageError: Unknown effort or step.
        QuantizationRefused: ai-edge-quantizer does not support the model, so that no step can be tried.
        QuantizationError: The model cannot be calibrated.
    """
    if effort not in EFFORTS:
        raise UsageError(f"unknown effort '{effort}'", hint=f"efforts are: {', '.join(EFFORTS)}")
    if unknown := sorted(set(off) - set(STEPS)):
        raise UsageError(f"unknown step '{unknown[0]}'", hint=f"steps are: {', '.join(STEPS)}")
    steps = [step for step, (lowest, _) in STEPS.items() if EFFORTS.index(lowest) <= EFFORTS.index(effort)]
    search = _Search(unique_names(tflite), rule, samples, effort, progress or (lambda step, done, parts: None))
    for number, step in enumerate(steps):
        if step not in off:
            getattr(search, f"try_{step}")()
        following = steps[number + 1] if number + 1 < len(steps) else ""
        if not following or STEPS[following][0] != STEPS[step][0]:
            search.finish_effort(STEPS[step][0])
    model, ranges = search.builder_on(samples).build(search.settings)
    return Improved(model, ranges, tuple(search.steps), search.notes(ranges))


class _Search:
    """Tries one step after another and keeps those that help."""

    def __init__(
        self, tflite: bytes, rule: SchemeRule, samples: Sequence[Sample], effort: str, progress: Progress
    ) -> None:
        self._tflite, self._rule, self._effort, self._progress = tflite, rule, effort, progress
        few = len(samples) < _MIN_SAMPLES_TO_HOLD_BACK
        self._held_back = list(samples) if few else list(samples[::_HELD_BACK_EVERY])
        fitting = list(samples) if few else [s for i, s in enumerate(samples) if i % _HELD_BACK_EVERY]
        self._builder = self.builder_on(fitting)
        self._reference = logits(tflite, self._held_back)
        self.settings = Settings()
        self.steps: list[Step] = []
        self._score = self._measure(self.settings)
        self._best: tuple[float, Settings, str] | None = None
        self._low_score: float | None = None

    def finish_effort(self, effort: str) -> None:
        """Keep the better of this effort's settings and those of the efforts before it, so that more never loses.

        A step may be kept at a small loss, because its gain shows on other samples; a loss of all steps together is
        none that others make good.
        """
        if self._best is not None and self._score < self._best[0]:
            score, self.settings, lower = self._best
            undone = [step for step in self.steps if STEPS[step.id][0] == effort and step.kept]
            self.steps = [
                replace(step, kept=False, detail=f"undone: effort {lower} is better by {score - self._score:.1f} dB")
                if step in undone
                else step
                for step in self.steps
            ]
            self._score = score
        else:
            self._best = self._score, self.settings, effort
        if effort == "low":
            self._low_score = self._score

    def notes(self, ranges: Mapping[str, Range]) -> tuple[str, ...]:
        """Return why more effort than low gains next to nothing, and which op is the limit; empty where it helps."""
        if self._effort == "low" or self._low_score is None:
            return ()
        gain = self._score - self._low_score
        if gain >= _NOTABLE_GAIN or self._score >= _GOOD_SNR:
            return ()
        op, steps = coarsest_tensor(self._tflite, ranges, self._held_back)
        limit = f"the limit is {op}, whose values differ between samples by {steps:.2g} of its int8 steps"
        if reason := self._not_estimable:
            limit = f"{reason}, which the steps for channels and ranges need; {limit}"
        return (f"effort {self._effort} gains {max(gain, 0.0):.1f} dB over low on this model: {limit}",)

    def builder_on(self, samples: Sequence[Sample]) -> ModelBuilder:
        """Return a builder that uses these samples."""
        return ModelBuilder(self._tflite, self._rule, samples, self._progress)

    def try_ranges(self) -> None:
        """Try each range method for the whole model."""
        candidates = [(replace(self.settings, method=method), method) for method in METHODS]
        self._keep_best("ranges", candidates, least=_MIN_GAIN_OF_CLIPPING)

    def try_margin(self) -> None:
        """Try wider ranges for activations with one value per channel."""
        if self._builder.single_value_channels(self.settings):
            candidates = [(replace(self.settings, margin=True), f"{MARGIN:g} times")]
            self._keep_best("margin", candidates, least=-_ACCEPTED_LOSS_OF_MARGIN)

    def try_bounds(self) -> None:
        """Try ranges by estimated noise."""
        reason = self._not_estimable or ("deferred to effort medium: large activations" if self._is_slow() else "")
        if reason:
            self.steps.append(Step("bounds", False, self._score, 0.0, reason))
        else:
            self._keep_best("bounds", [(replace(self.settings, bounds=True), "")], least=-_ACCEPTED_LOSS_OF_BOUNDS)

    def try_balance(self) -> None:
        """Try channel scales and ranges by estimated noise; both sides are compared with biases corrected."""
        if self._rule.weights == "per-tensor":
            return
        if reason := self._not_estimable:
            self.steps.append(Step("balance", False, self._score, 0.0, reason))
            return
        score_without_correction = self._score
        self._score = self._measure(replace(self.settings, bias=True))
        candidates = [(replace(self.settings, balance=True, bias=True), "biases corrected")]
        self._keep_best("balance", candidates, least=-_ACCEPTED_LOSS)
        self.settings = replace(self.settings, bias=False)
        self._score = self._measure(self.settings) if self.settings.balance else score_without_correction

    def _is_slow(self) -> bool:
        """Return whether the estimate would take more than seconds at effort low, which is meant to take seconds."""
        graph = read_model(self._builder.tflite).main
        values = sum(graph.tensors[index].elements for index in float_activations(graph))
        return self._effort == "low" and values * len(self._builder.samples) > _FAST_VALUES

    @cached_property
    def _not_estimable(self) -> str:
        """Return why noise cannot be estimated for this model, empty when it can."""
        try:
            Network(self._builder.tflite)
        except NotDifferentiable as error:
            return error.message
        return ""

    def try_pools(self) -> None:
        """Try MEAN for global average pools."""
        if replace_global_pools(self._builder.tflite) != self._builder.tflite:
            self._keep_best("pools", [(replace(self.settings, pools=True), "MEAN")], least=-_ACCEPTED_LOSS)

    def try_center(self) -> None:
        """Try constants on linear activations."""
        if self._not_estimable:
            return
        if plan_offsets(read_model(unshare_biases(self._builder.tflite)).main) is not None:
            self._keep_best("center", [(replace(self.settings, center=True), "")], least=-_ACCEPTED_LOSS)

    def try_equalize(self) -> None:
        """Try shares of cross-layer equalization, each with several range methods."""
        graph = read_model(self._builder.tflite).main
        if self.settings.balance or not find_equalization_groups(graph, find_layers(graph)):
            return
        shares = _SHARES if self._rule.weights != "per-tensor" else (0.5,)
        methods = dict.fromkeys(("minmax", "percentile", self.settings.method))
        candidates = [
            (replace(self.settings, share=share, method=method, bounds=False), f"share {share:g}, {method} ranges")
            for share in shares
            for method in methods
        ]
        self._keep_best("equalize", candidates)

    def try_absorb(self) -> None:
        """Try high-bias absorption."""
        settings = replace(self.settings, absorb=True)
        if self._builder.equalized(settings) != self._builder.equalized(self.settings):
            self._keep_best("absorb", [(settings, "")])

    def try_bias(self) -> None:
        """Try bias correction."""
        self._keep_best("bias", [(replace(self.settings, bias=True), "")], least=-_ACCEPTED_LOSS)

    def try_rounding(self) -> None:
        """Try GPTQ rounding; biases are corrected again after it."""
        self._keep_best("rounding", [(replace(self.settings, rounding=True), "")], least=-_ACCEPTED_LOSS)

    def _keep_best(self, step: str, candidates: Sequence[tuple[Settings, str]], least: float = _MIN_GAIN) -> None:
        """Record the best candidate of a step, and keep its settings if it gains at least `least` dB."""
        scored: list[tuple[float, Settings, str]] = []
        failures: list[str] = []
        for done, (settings, detail) in enumerate(candidates):
            self._progress(step, done, len(candidates))
            try:
                measured = self._measure(settings)
                scored.append((-math.inf if math.isnan(measured) else measured, settings, detail))
            # The settings so far work: whatever a step fails with on an unusual model, it is one trial less.
            except Exception as error:
                reason = first_line(error, default=type(error).__name__)
                failures.append(f"{detail or step} failed: {reason}")
        if not scored:
            self.steps.append(Step(step, False, self._score, 0.0, "; ".join(failures)))
            return
        score, settings, detail = max(scored, key=lambda candidate: candidate[0])
        detail = "; ".join([*filter(None, [detail]), *failures])
        gain = 0.0 if score == self._score else score - self._score
        kept = gain >= least or settings == self.settings
        self.steps.append(Step(step, kept, score, gain, detail))
        if kept:
            self.settings, self._score = settings, score

    def _measure(self, settings: Settings) -> float:
        """Return the SNR of the logits on the held-back samples, dB."""
        quantized = self._builder.quantize(*self._builder.build(settings))
        return snr_db(self._reference, logits(quantized, self._held_back))
