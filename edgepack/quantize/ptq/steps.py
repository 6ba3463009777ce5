"""Find the int8 form of a model: try one step after another, and keep those whose gain is more than chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from edgepack.choices import Effort
from edgepack.errors import UsageError
from edgepack.graph.edit import pack, unique_names, unpack
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq.activations import Sample, coarsest_tensor
from edgepack.quantize.ptq.bias_correction import BIAS
from edgepack.quantize.ptq.channel_centering import CENTER
from edgepack.quantize.ptq.checkpoint import Checkpoint, part_name
from edgepack.quantize.ptq.cross_layer_equalization import EQUALIZE
from edgepack.quantize.ptq.folds import fold_positions, make_views
from edgepack.quantize.ptq.global_pooling import POOLS
from edgepack.quantize.ptq.gptq import ROUNDING
from edgepack.quantize.ptq.high_bias_absorption import ABSORB
from edgepack.quantize.ptq.last_layers import SCORES, reference_logits
from edgepack.quantize.ptq.layer_norm import LAYER_NORM
from edgepack.quantize.ptq.layers import Doubles, unshare_biases
from edgepack.quantize.ptq.model_ranges import MARGIN, RANGES
from edgepack.quantize.ptq.noise_minimization import BALANCE, BOUNDS
from edgepack.quantize.ptq.reconstruction import RECONSTRUCT
from edgepack.quantize.ptq.requantize import Requantizer
from edgepack.quantize.ptq.residual_scales import SUMS
from edgepack.quantize.ptq.saturation import SATURATION
from edgepack.quantize.ptq.scoring import Errors, Judge, Keep, Score
from edgepack.quantize.ptq.step import Change, Fit, Progress, QuantizeFile, Setting, Step, Subject, View
from edgepack.quantize.ptq.trial import Trial
from edgepack.quantize.ptq.tuning import (
    CHEAP_WORK,
    FEWEST_FITS,
    FEWEST_JUDGED_FOLDS,
    FEWEST_SHIFTED,
    FIT_BYTES,
    GOOD_SNR,
    LEAST_GAIN,
    NOTABLE_GAIN,
)
from edgepack.quantize.ranges import Range
from edgepack.text import first_line

EFFORTS: tuple[str, ...] = tuple(effort.value for effort in Effort)

#: Every step, in the order in which they are applied.
STEPS: tuple[Step, ...] = (
    LAYER_NORM,
    POOLS,
    CENTER,
    BALANCE,
    EQUALIZE,
    ABSORB,
    ROUNDING,
    RANGES,
    MARGIN,
    SATURATION,
    BOUNDS,
    SUMS,
    RECONSTRUCT,
    BIAS,
    SCORES,
)

#: Name of the trial of all steps at once.
_TOGETHER = "together"

#: Name of the trial of settings that were found with another granularity of weights.
_TAKEN = "settings"

#: Name of the trial of steps that were chosen by errors without their shift.
_WITHOUT_SHIFT = "without shift"

#: Settings of the steps that every trial needs: what TFLiteConverter does.
_BASE: dict[str, Setting] = {RANGES.id: "minmax"}


@dataclass(frozen=True)
class Improved:
    """A float model prepared for quantization.

    Attributes:
        tflite: The float model: scaled, with weights on their int8 grid and corrected biases.
        ranges: Range of each activation by `tensor_keys`, for `edgepack.quantize.quantizer.quantize`.
        steps: The steps that were tried, in order.
        notes: Sentences for people: what keeps the steps from helping.
        settings: The settings of the kept steps.
    """

    tflite: bytes
    ranges: dict[str, Range]
    steps: tuple[Trial, ...]
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report for the manifest."""
        notes = {"notes": list(self.notes)} if self.notes else {}
        kept = [step.id for step in STEPS if step.id in self.settings and self.settings[step.id] != _BASE.get(step.id)]
        return {"steps": [step.to_json() for step in self.steps], "kept": kept, **notes}


def improve(
    tflite: bytes,
    rule: SchemeRule,
    samples: Sequence[Sample],
    effort: str = "low",
    *,
    off: Sequence[str] = (),
    progress: Progress | None = None,
    quantize_file: QuantizeFile | None = None,
    checkpoint: Checkpoint | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> Improved:
    """Find the float model and ranges whose int8 file is closest to the original model, without labels.

    Every step is judged on samples that it was not fitted to: the samples are split into folds, each fold is judged
    with what was fitted to the others, and a step is kept when its gain is more than chance. At the end the kept steps
    run once more on all samples. The search starts from what TFLiteConverter does, so the result is never worse than
    that beyond chance, nor is more effort worse than less. Deterministic.

    Args:
        tflite: A float .tflite.
        rule: The int8 rule of the target.
        samples: Real values by `Model.input_names()`, with the batch dimension; 100 to 500 are typical.
        effort: `low`, `medium` or `high`.
        off: Steps of `STEPS` to leave out.
        progress: Called with (step, parts done, parts).
        quantize_file: Quantizes a float model with ranges; ai-edge-quantizer where it is not given.
        checkpoint: Parts of an earlier call with the same arguments, and what keeps further ones. Efforts above low use
            it; the result is the same with and without.
        settings: `Improved.settings` of the same call for a rule that differs in the granularity of dense layers only:
            the search ends with them where they gain more than chance, and starts anew where they do not.

    Raises:
        UsageError: Unknown effort or step.
        QuantizationRefused: ai-edge-quantizer does not support the model, so that no step can be tried.
        QuantizationError: The model cannot be calibrated.
    """
    if effort not in EFFORTS:
        raise UsageError(f"unknown effort '{effort}'", hint=f"efforts are: {', '.join(EFFORTS)}")
    known = [step.id for step in STEPS]
    if unknown := sorted(set(off) - set(known)):
        raise UsageError(f"unknown step '{unknown[0]}'", hint=f"steps are: {', '.join(known)}")
    # Packed as every edited variant is, so that they differ in their constants only.
    model = pack(unpack(unshare_biases(unique_names(tflite))))
    report = progress or (lambda step, done, parts: None)
    kept = None if effort == Effort.LOW else checkpoint
    subject = Subject(model, rule, effort, samples, quantize_file or Requantizer(), report, kept)
    search = _Search(subject, off)
    if not (settings and search.take(settings)):
        for level in EFFORTS[: EFFORTS.index(effort) + 1]:
            search.run_effort(Effort(level))
    fit = search.result()
    return Improved(fit.tflite, dict(fit.ranges), search.final_trials(), search.notes(fit), dict(search.kept))


class _Search:
    """Tries one step after another and keeps those that help."""

    def __init__(self, subject: Subject, off: Sequence[str]) -> None:
        self._subject, self._off = subject, frozenset(off)
        positions = fold_positions(subject)
        self._folds = [subject.fold(part) for part in positions]
        self._views, self._more_views = make_views(subject, positions, self._folds)
        subject.passes = len(self._views) + 1
        self._judge = Judge(subject.tflite, subject.samples, reference_logits(subject))
        self._fits: dict[Any, Fit] = {}
        self._known: dict[str, Errors] = {}
        self._shift_counts = True
        self.kept: dict[str, Setting] = dict(_BASE)
        self.trials: list[Trial] = []
        self.score = self._measure(self.kept)
        self._scores: dict[str, Score] = {}
        self._taken = False

    def run_effort(self, effort: Effort) -> None:
        """Try the steps of an effort; with medium all together first, and in the end those not kept once more.

        What gains nothing by itself may do so on top of others: channels that are centered need other scales.
        """
        allowed = [step for step in _as_tried(STEPS) if step.id not in self._off]
        if effort == Effort.MEDIUM:
            self._run_together([step for step in allowed if step.effort in {Effort.LOW, effort}])
        own = [step for step in allowed if step.effort == effort]
        for step in own:
            self.run(step)
        if effort == Effort.LOW:
            if MARGIN in allowed and MARGIN.id not in self.kept and self.kept != _BASE:
                self.run(MARGIN)
            if SCORES in allowed and SCORES.configurations(self._subject, self.kept):
                self._run_without_shift([step for step in own if step is not SCORES])
        if effort == Effort.MEDIUM:
            self._retry([step for step in allowed if step.effort in {Effort.LOW, effort}])
        self._scores[effort] = self.score

    def _retry(self, steps: Sequence[Step]) -> None:
        """Try steps once more that were not kept: they may gain on top of others."""
        for step in steps:
            if step.id not in self.kept:
                self.run(step)

    def take(self, settings: Mapping[str, Setting]) -> bool:
        """Try settings that another search found, and return whether their gain is more than chance."""
        self._try(_TAKEN, [settings], "found with a scale per channel of dense layers")
        self._taken = bool(self.trials) and self.trials[-1].kept
        return self._taken

    def _run_together(self, steps: Sequence[Step]) -> None:
        """Try all steps together, then without each of those that were kept this way."""
        alternatives: dict[str, list[Change]] = {}
        for step in steps:
            changes = step.combinations(self._subject)
            if not step.purpose and step.id in self.kept and changes:
                # Less effort has compared the settings of this step.
                changes = [{step.id: self.kept[step.id]}]
            alternatives.setdefault(step.purpose or step.id, []).extend(changes)
        every = [changes for changes in alternatives.values() if changes]
        tried = [dict(item for change in chosen for item in change.items()) for chosen in product(*every)]
        before = self.kept
        self._try(_TOGETHER, tried, "all steps in one trial")
        for step in steps:
            if step.id in self.kept and step.id not in before:
                self._try(step.id, [{step.id: None}], step.source)

    def _run_without_shift(self, steps: Sequence[Step]) -> None:
        """Choose steps once more by errors without their shift, and take them where all together gain more than chance.

        A shift of the scores that the errors of many layers cause together hides what a step gains, until `scores`
        takes it away; trials with `scores` in each of them take twice the time.
        """
        if min(len(view.held_out) for view in self._views) < FEWEST_SHIFTED:
            return
        state = self.kept, self.score, self.trials
        self._shift_counts, self.kept, self.trials = False, dict(_BASE), []
        self.score = self._measure(self.kept)
        for step in steps:
            self.run(step)
        if self._subject.work <= CHEAP_WORK:
            self._retry(steps)
        self._shift_counts = True
        self.score = self._measure(self.kept)
        self.run(SCORES)
        found = self.kept
        self.kept, self.score, self.trials = state
        changes = {step.id: found.get(step.id) for step in STEPS if found.get(step.id) != self.kept.get(step.id)}
        self._try(_WITHOUT_SHIFT, [changes], "steps chosen by errors without their mean")

    def run(self, step: Step) -> None:
        """Try the configurations of a step and keep the best one if its gain is more than chance."""
        self._try(step.id, step.configurations(self._subject, self.kept), step.source, step.keep)

    def _try(self, name: str, changes: Sequence[Change], source: str, keep: Keep = Keep.GAIN) -> None:
        """Try changes of the settings kept so far, and keep the best one if its gain is more than chance."""
        allowed = [{step: new for step, new in change.items() if step not in self._off} for change in changes]
        tried = [{**self.kept, **change} for change in allowed]
        trials = [settings for settings in map(_without_none, tried) if settings != self.kept]
        best: tuple[Score, dict[str, Setting]] | None = None
        hopeless: tuple[Score, dict[str, Setting]] | None = None
        failures: list[str] = []
        for done, settings in enumerate(trials):
            self._subject.progress(name, done, len(trials))
            try:
                # Insurance may lose on most samples: the sum of the errors of all of them decides.
                rival = self.score if best is None else best[0]
                score = self._measure(settings, rival=None if keep is Keep.NO_LOSS else rival)
            # The settings so far work: whatever a step fails with on an unusual model, it is one trial less.
            except Exception as error:
                reason = first_line(error, default=type(error).__name__)
                failures.append(f"{self._describe(settings)} failed: {reason}")
                continue
            if len(score.errors) < len(self.score.errors):
                hopeless = hopeless or (score, settings)
            elif best is None or score.gain_db(best[0]) > 0.0:
                best = score, settings
        chosen = best or hopeless
        if chosen is None:
            if failures:
                self.trials.append(Trial(name, False, self.score.snr_db, 0.0, "; ".join(failures), source))
            return
        score, settings = chosen
        before = self.score.first(len(score.errors))
        kept, gain = score.beats(before, keep), score.gain_db(before)
        if not kept and self._more_views and gain >= LEAST_GAIN:
            # Chance may have hidden the gain on the few samples that judge a larger network.
            views = [*self._views, *self._more_views]
            kept = self._measure(settings, views).beats(self._measure(self.kept, views), keep)
        detail = "; ".join([self._describe(settings), *failures])
        self.trials.append(Trial(name, kept, score.snr_db, gain, detail, source))
        if kept:
            self.kept, self.score = settings, score

    def _describe(self, settings: Mapping[str, Setting]) -> str:
        """Return how settings differ from those kept so far."""
        changed = [step for step in STEPS if settings.get(step.id) != self.kept.get(step.id)]
        return ", ".join(
            step.describe(settings[step.id]) if step.id in settings else f"without {step.id}" for step in changed
        )

    def result(self) -> Fit:
        """Return the kept steps, fitted to all samples."""
        # One view judged all settings: its moments serve the result as well.
        part = self._views[0] if len(self._views) == 1 else None
        everything = range(len(self._subject.samples))
        view = self._subject.view(everything, part=part, number=len(self._views), folds=self._folds)
        return self._fit(self.kept, view, "all")

    def final_trials(self) -> tuple[Trial, ...]:
        """Return the trials; a step that a later one took the place of counts as not kept."""
        return tuple(
            replace(trial, kept=False, detail=f"{trial.detail}; replaced by a later step")
            if trial.kept and trial.id not in {_TOGETHER, _TAKEN, _WITHOUT_SHIFT} and trial.id not in self.kept
            else trial
            for trial in self.trials
        )

    def notes(self, fit: Fit) -> tuple[str, ...]:
        """Return which op is the limit where effort gains next to nothing; empty where it helps or there is no loss."""
        effort = self._subject.effort
        if effort == Effort.LOW or self._taken or self.score.snr_db >= GOOD_SNR:
            return ()
        gain = self.score.gain_db(self._scores[Effort.LOW])
        if gain >= NOTABLE_GAIN:
            return ()
        op, steps = coarsest_tensor(fit.reference, fit.ranges, self._subject.samples)
        return (
            f"effort {effort} gains {max(gain, 0.0):.1f} dB over low on this model: the limit is {op}, whose values "
            f"differ between samples by {steps:.2g} of its int8 steps",
        )

    def _measure(
        self, settings: Mapping[str, Setting], views: Sequence[View] = (), *, rival: Score | None = None
    ) -> Score:
        """Return the errors of some settings, each sample judged by a fit that it was not part of.

        Those of the first samples only where the settings lose to a rival beyond doubt.
        """
        errors: list[Doubles] = []
        for view in views or self._views:
            if rival is not None and len(errors) >= FEWEST_JUDGED_FOLDS:
                score = self._score(errors)
                if score.is_hopeless(rival.first(len(score.errors))):
                    return score
            errors.append(self._errors(settings, view))
        return self._score(errors)

    def _score(self, errors: Sequence[Doubles]) -> Score:
        together = np.concatenate(errors)
        return Score(np.where(np.isfinite(together), together, math.inf), self._judge.signal)

    def _errors(self, settings: Mapping[str, Setting], view: View) -> Doubles:
        """Return the errors on the samples that a view is judged on; those of an earlier trial or run are known."""
        name = part_name("errors", dict(settings), view.number)
        if name not in self._known:
            stored = self._subject.checkpoint.get(name)
            if stored is None:
                file = self._subject.file(self._fit(settings, view, view.number))
                errors = self._judge.errors(file, view.held_out)
                self._subject.checkpoint.put(name, vars(errors))
            else:
                errors = Errors(**stored)
            self._known[name] = errors
        return self._known[name].squared if self._shift_counts else self._known[name].without_shift

    def _fit(self, settings: Mapping[str, Setting], view: View, name: Any) -> Fit:
        """Return the fit of some settings; what steps before a change did is remembered."""
        fit = Fit(self._subject.tflite, self._subject.tflite)
        key: tuple[Any, ...] = (name,)
        for step in STEPS:
            if step.id not in settings:
                continue
            key = (*key, step.id, settings[step.id])
            known = self._fits.pop(key, None)
            fit = step.apply(fit, settings[step.id], view, self._subject) if known is None else known
            self._fits[key] = fit
        # Those that were not needed for longest are forgotten: a large model has room for few.
        most = max(FEWEST_FITS, FIT_BYTES // (2 * len(self._subject.tflite)))
        while len(self._fits) > most:
            del self._fits[next(iter(self._fits))]
        return fit


def _as_tried(steps: Sequence[Step]) -> list[Step]:
    """Return steps in the order in which they are tried: room for scores before the methods that would clip them."""
    early = [step for step in steps if step is MARGIN]
    place = next((place for place, step in enumerate(steps) if step is RANGES), len(steps))
    return [*steps[:place], *early, *(step for step in steps[place:] if step is not MARGIN)]


def _without_none(settings: Mapping[str, Setting | None]) -> dict[str, Setting]:
    return {step: setting for step, setting in settings.items() if setting is not None}
