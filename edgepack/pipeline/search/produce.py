"""Make the file of a scheme: quantized as it is, with more effort, or trained."""

from dataclasses import dataclass, field
from typing import Any

from edgepack.errors import AccuracyError, QuantizationError
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.results import Stopwatch, TargetResult
from edgepack.pipeline.rewrite import repair_kept
from edgepack.pipeline.search.candidates import Candidate
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.repair import Rewrite
from edgepack.runtime.postprocessing import PostprocessStep
from edgepack.schemes import plain_type

#: How many random samples an explicit --random-calibration makes up.
RANDOM_SAMPLES = 100


@dataclass
class Made:
    """A file and how it came about.

    Attributes:
        model: The .tflite.
        tool: What wrote it.
        repairs: Rewrites of refused ops.
        tail: Last steps that are left to the loader.
        improvements: What effort medium or high tried and kept, None without.
        warnings: What the user should know.
    """

    model: bytes
    tool: str
    repairs: tuple[Rewrite, ...] = ()
    tail: tuple[PostprocessStep, ...] = ()
    improvements: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)

    def into(self, result: TargetResult) -> None:
        """Make it the file of a target's result."""
        result.model, result.tool, result.repairs = self.model, self.tool, self.repairs
        result.tail, result.improvements, result.warnings = self.tail, self.improvements, [*self.warnings]


def make(given: BuildContext, profile: TargetProfile, rung: Candidate, watch: Stopwatch) -> Made:
    """Make the file of a rung; everything behind it is cached, so making it twice costs nothing.

    Raises:
        EdgepackError: The model cannot be quantized or trained so.
    """
    if rung.recipe:
        return without_tail(given, profile, rung.rule, _train(given, rung, watch))
    rule = rung.rule
    with watch.step("check"):
        proven = repair_kept(
            given.session, given.float_model.tflite, profile, rule, given.options.target, samples=given.samples
        )
    tflite = proven.repaired.tflite
    warnings = [*proven.notes]
    made = None
    # A method that was asked for is what the user wants to see at effort low, whatever it loses.
    plain = rung.effort == "low" and rung.mixed is None and given.options.method
    if rule.scheme == "int8" and given.samples is not None and not plain:
        made = _improve(given, tflite, rung, watch, warnings)
    made = made or _quantize(given, tflite, rule, watch)
    made.repairs, made.warnings = proven.repaired.rewrites, [*warnings, *made.warnings]
    made.tail = proven.repaired.tail
    return made


def without_tail(given: BuildContext, profile: TargetProfile, rule: SchemeRule, made: Made) -> Made:
    """Take the last steps that the target refuses off a quantized file, when that was asked for."""
    if given.options.target.cut_tail:
        proven = repair_kept(given.session, made.model, profile, rule, given.options.target, samples=given.samples)
        made.model, made.tail = proven.repaired.tflite, proven.repaired.tail
        made.warnings.extend(proven.notes)
    return made


def _quantize(given: BuildContext, tflite: bytes, rule: SchemeRule, watch: Stopwatch) -> Made:
    calibration = None
    if _needs_ranges(rule.scheme):
        with watch.step("calibrate"):
            calibration = given.session.calibration(
                tflite, given.samples if given.samples is not None else RANDOM_SAMPLES
            )
    with watch.step("quantize"):
        model, tool, notes = given.session.quantized(tflite, rule, calibration, given.options.method or "")
    made = Made(model, tool, warnings=[*notes])
    if calibration is not None and given.samples is None:
        made.warnings.append("calibrated on random numbers: accuracy on real data is unknown")
    return made


def _improve(given: BuildContext, tflite: bytes, rung: Candidate, watch: Stopwatch, warnings: list[str]) -> Made | None:
    """Make an int8 file with ranges, and weights, chosen by what they lose; None where that quantizer refuses it."""
    from edgepack.quantize.quantizer import QuantizationRefused

    assert given.samples is not None
    with watch.step("quantize"):
        try:
            model, tool, notes, report = given.session.improved(
                tflite,
                rung.rule,
                given.samples,
                rung.effort,
                judged=given.samples if given.evaluation is None else given.evaluation,
                limit=rung.mixed,
                kept_as=rung.mixed_as,
            )
        except AccuracyError as error:
            raise QuantizationError(error.message, hint=error.hint) from error
        except QuantizationRefused as refused:
            if rung.effort != "low":
                warnings.append(f"quantized with effort low: {refused.message}")
            return None
    return Made(model, tool, improvements=report, warnings=[*notes])


def _train(given: BuildContext, rung: Candidate, watch: Stopwatch) -> Made:
    """Make the file by training on the labelled samples."""
    from edgepack.pipeline.train import event_text, train_model
    from edgepack.train import TrainOptions

    assert given.training is not None
    wish = TrainOptions(epochs=given.options.epochs, allow_code=given.options.model.allow_code)
    options = TrainOptions(
        epochs=wish.epochs,
        sparsity=rung.sparsity or wish.sparsity,
        clusters=rung.clusters or wish.clusters,
        allow_code=wish.allow_code,
    )
    given.progress(f"training {rung.recipe} on {len(given.training)} labelled samples")
    with watch.step("quantize"):
        trained = train_model(
            given.session,
            given.path,
            given.float_model.tflite,
            given.training,
            rung.recipe,
            options,
            rule=rung.rule,
            on_event=lambda event: given.progress(event_text(event)),
        )
    made = Made(trained.tflite, "tensorflow-model-optimization", warnings=list(trained.notes))
    if trained.left_float:
        listed = ", ".join(trained.left_float)
        made.warnings.append(f"layers that cannot be trained for int8 stay float: {listed}")
    return made


def _needs_ranges(scheme: str) -> bool:
    return scheme in {"int8", "int16x8"}


def calibration_facts(given: BuildContext, result: TargetResult) -> dict[str, Any] | None:
    """Return what the bundle says about calibration, None for a file that needed none."""
    if given.float_model.quantized or not _needs_ranges(result.scheme):
        return None
    random = given.samples is None
    return {
        "samples": RANDOM_SAMPLES if given.samples is None else len(given.samples),
        "source": "" if given.samples is None else given.samples.source,
        "random": random,
        "method": _method(given, result),
    }


def _method(given: BuildContext, result: TargetResult) -> str:
    from edgepack.quantize.ranges import DEFAULT_METHOD

    if result.improvements is None:
        return given.options.method or DEFAULT_METHOD
    kept = [step["step"] for step in result.improvements["steps"] if step["kept"]]
    mixed = result.improvements.get("mixed")
    if mixed is not None:
        kept.append(f"{len(mixed['kept'])} of {mixed['ops']} ops in {plain_type(mixed['kept_as'])}")
    return f"effort {result.improvements['effort']}: {', '.join(kept)}"
