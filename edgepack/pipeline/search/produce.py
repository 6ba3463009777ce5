"""The stages that produce the file of a candidate: rewriting, then post-training quantization or training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgepack.errors import AccuracyError, QuantizationError, SamplesError, UnfitModelError
from edgepack.graph.fake_quant import learned_ranges
from edgepack.pipeline.balance import balance_proven
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.rewrite import RewrittenModel, compares_names, rewrite_proven
from edgepack.pipeline.search.candidates import Candidate, needs_samples
from edgepack.pipeline.search.post_training import calibrate, quantize_calibrated, quantize_with_ptq
from edgepack.pipeline.stopwatch import Stopwatch
from edgepack.pipeline.training import event_text, train_model
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.quantize.quantizer import QuantizationRefused
from edgepack.repair import Rewrite
from edgepack.runtime.postprocessing import PostprocessStep
from edgepack.samples import SampleSet
from edgepack.schemes import plain_type
from edgepack.training import TrainOptions

#: Random samples of --random-calibration.
RANDOM_SAMPLES = 100


@dataclass(frozen=True)
class QuantizedModel:
    """A file and how it was produced.

    Attributes:
        tflite: The file.
        tool: What wrote it, with its version.
        rewrites: Rewrites of ops that the target refuses.
        postprocessing: Last steps that are left to the loader.
        report: PTQ steps with their figures, None where none ran.
        warnings: What the user should know.
    """

    tflite: bytes
    tool: str
    rewrites: tuple[Rewrite, ...] = ()
    postprocessing: tuple[PostprocessStep, ...] = ()
    report: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()


def rewrite(context: BuildContext, profile: TargetProfile, candidate: Candidate) -> RewrittenModel:
    """Rewrite the float model for one candidate; of a quantized one only names and last steps change.

    A trained candidate starts from the Keras model: its file is only made later, and so is its cut.

    Raises:
        EdgepackError: The runtime failed on the model.
    """
    tflite = context.float_model.tflite
    options = context.options.target
    if candidate.recipe or (candidate.as_is and not options.cut_tail and not compares_names(profile, options)):
        return RewrittenModel(tflite)
    rewritten = rewrite_proven(
        context.session, tflite, profile, candidate.rule, context.options.target, samples=context.samples
    )
    if candidate.rule.scheme != "int8" or context.samples is None or candidate.as_is:
        # 16-bit activations bear ranges that differ by orders.
        return rewritten
    return balance_proven(context.session, rewritten, profile, candidate.rule, context.options.target, context.samples)


def cut_postprocessing(
    context: BuildContext, profile: TargetProfile, rule: SchemeRule, tflite: bytes
) -> RewrittenModel:
    """Cut the last steps that the target refuses off a quantized file, where --cut-tail asks for it."""
    target_options = context.options.target
    if not target_options.cut_tail:
        return RewrittenModel(tflite)
    return rewrite_proven(context.session, tflite, profile, rule, target_options, samples=context.samples)


def quantize(
    context: BuildContext,
    profile: TargetProfile,
    candidate: Candidate,
    rewritten: RewrittenModel,
    watch: Stopwatch,
) -> QuantizedModel:
    """Produce the file of a candidate; every expensive part is cached, so that doing it twice costs nothing.

    Args:
        context: The build.
        profile: The target, with the variant resolved.
        candidate: How to produce the file.
        rewritten: The model that it starts from.
        watch: Gets the seconds of calibration and quantization.

    Raises:
        EdgepackError: The model cannot be quantized or trained in this way.
    """
    if candidate.recipe:
        trained = _train(context, candidate, watch)
        cut = cut_postprocessing(context, profile, candidate.rule, trained.tflite)
        return replace(
            trained,
            tflite=cut.tflite,
            postprocessing=cut.postprocessing,
            warnings=(*trained.warnings, *cut.notes),
        )
    if candidate.as_is:
        quantized = QuantizedModel(rewritten.tflite, "as given")
    else:
        quantized = _post_training(context, candidate, rewritten.tflite, watch)
    return replace(
        quantized,
        rewrites=rewritten.rewrites,
        postprocessing=rewritten.postprocessing,
        warnings=(*rewritten.notes, *quantized.warnings),
    )


def needs_ranges(scheme: str) -> bool:
    """Return whether a scheme quantizes activations, whose ranges come from calibration."""
    return scheme in {"int8", "int16x8"}


def _post_training(context: BuildContext, candidate: Candidate, tflite: bytes, watch: Stopwatch) -> QuantizedModel:
    samples = context.samples
    # At effort low a requested range method is used for every tensor, whatever it loses.
    plain = candidate.effort == "low" and candidate.mixed is None and context.options.method
    if candidate.rule.scheme == "int8" and learned_ranges(tflite):
        # The steps of an effort look for ranges and weights, but training has chosen these.
        return _calibrated(context, candidate, tflite, watch)
    if candidate.rule.scheme == "int8" and samples is not None and not plain:
        try:
            return _ptq(context, candidate, tflite, samples, watch)
        except QuantizationRefused as refused:
            if candidate.mixed is not None:
                raise
            quantized = _calibrated(context, candidate, tflite, watch)
            note = f"quantized without the steps of effort {candidate.effort}: {refused.message}"
            return replace(quantized, warnings=(note, *quantized.warnings))
    return _calibrated(context, candidate, tflite, watch)


def _ptq(
    context: BuildContext, candidate: Candidate, tflite: bytes, samples: SampleSet, watch: Stopwatch
) -> QuantizedModel:
    """Quantize to int8 with the PTQ steps; more effort gives way to less where the evaluation samples say so.

    The steps compare efforts on held-back calibration samples, which may be unlike the evaluation samples.
    """
    if candidate.effort == "low" or context.evaluation is None:
        return _ptq_of_effort(context, candidate, tflite, samples, watch)
    # Single ops are kept on top of the effort that is better without them.
    plain = replace(candidate, mixed=None)
    quantized = _ptq_of_effort(context, plain, tflite, samples, watch)
    low = _ptq_of_effort(context, replace(plain, effort="low"), tflite, samples, watch)
    gain = _gain(context, tflite, low.tflite, quantized.tflite)
    if gain is None or gain >= 0.0:
        return quantized if candidate.mixed is None else _ptq_of_effort(context, candidate, tflite, samples, watch)
    if candidate.mixed is not None:
        low = _ptq_of_effort(context, replace(candidate, effort="low"), tflite, samples, watch)
    note = f"quantized with effort low: effort {candidate.effort} is {-gain:.1f} dB worse on the evaluation samples"
    return replace(low, warnings=(note, *low.warnings))


def _gain(context: BuildContext, tflite: bytes, before: bytes, after: bytes) -> float | None:
    """Return the gain in SNR on the evaluation samples in dB, None where it cannot be measured."""
    from edgepack.pipeline.measure import measure_quality

    if context.evaluation is None:
        return None
    try:
        one, other = (
            measure_quality(context.session, tflite, file, context.evaluation).snr_db for file in (before, after)
        )
    except UnfitModelError:
        return None
    return None if one is None or other is None else other - one


def _ptq_of_effort(
    context: BuildContext, candidate: Candidate, tflite: bytes, samples: SampleSet, watch: Stopwatch
) -> QuantizedModel:
    """Quantize to int8 with ranges, and with more effort weights, chosen by the error that they cause."""
    with watch.stage("quantize"):
        try:
            quantized, report = quantize_with_ptq(
                context.session,
                tflite,
                candidate.rule,
                samples,
                candidate.effort,
                judged=samples if context.evaluation is None else context.evaluation,
                limit=candidate.mixed,
                kept_as=candidate.mixed_as,
            )
        except AccuracyError as error:
            raise QuantizationError(error.message, hint=error.hint) from error
    warnings = (*quantized.notes, *report.get("notes", ()))
    return QuantizedModel(quantized.tflite, quantized.tool, report=report, warnings=warnings)


def _calibrated(context: BuildContext, candidate: Candidate, tflite: bytes, watch: Stopwatch) -> QuantizedModel:
    """Quantize with one range method for all activations, or without activations."""
    calibration = None
    samples = RANDOM_SAMPLES if context.samples is None else context.samples
    if needs_ranges(candidate.rule.scheme):
        with watch.stage("calibrate"):
            calibration = calibrate(context.session, tflite, samples)
    with watch.stage("quantize"):
        quantized = quantize_calibrated(
            context.session, tflite, candidate.rule, calibration, context.options.method or "", samples
        )
    warnings = quantized.notes
    if calibration is not None and context.samples is None and needs_samples(tflite):
        warnings = (*warnings, "calibrated on random numbers: accuracy on real data is unknown")
    return QuantizedModel(quantized.tflite, quantized.tool, warnings=warnings)


def _train(context: BuildContext, candidate: Candidate, watch: Stopwatch) -> QuantizedModel:
    data = context.training
    if data is None:
        raise SamplesError(f"{candidate.name} needs labelled samples", hint="give them with --train")
    options = TrainOptions(epochs=context.options.epochs, allow_code=context.options.model.allow_code)
    options = replace(
        options,
        sparsity=candidate.sparsity or options.sparsity,
        clusters=candidate.clusters or options.clusters,
    )
    context.session.progress(f"training {candidate.recipe} on {len(data)} labelled samples")
    with watch.stage("quantize"):
        trained = train_model(
            context.session,
            context.path,
            context.float_model.tflite,
            data,
            candidate.recipe,
            options,
            rule=candidate.rule,
            on_event=lambda event: context.session.progress(event_text(event)),
        )
    warnings = trained.notes
    if trained.left_float:
        names = ", ".join(trained.left_float)
        warnings = (*warnings, f"layers that cannot be trained for int8 stay float: {names}")
    return QuantizedModel(trained.tflite, "tensorflow-model-optimization", warnings=warnings)


@dataclass(frozen=True)
class CalibrationFacts:
    """How a file was calibrated.

    Attributes:
        samples: Number of samples.
        random: True when they are random numbers.
        method: Range method, or the PTQ steps that were kept.
    """

    samples: int
    random: bool
    method: str


def calibration_facts(
    context: BuildContext, candidate: Candidate, quantized: QuantizedModel
) -> CalibrationFacts | None:
    """Return how a file was calibrated, None for one that needs no calibration."""
    if candidate.as_is or not needs_ranges(candidate.rule.scheme):
        return None
    count = RANDOM_SAMPLES if context.samples is None else len(context.samples)
    return CalibrationFacts(count, context.samples is None, _method(context, quantized))


def _method(context: BuildContext, quantized: QuantizedModel) -> str:
    from edgepack.quantize.ranges import DEFAULT_METHOD

    report = quantized.report
    if report is None:
        return str(context.options.method or DEFAULT_METHOD)
    steps = list(report["kept"])
    mixed = report.get("mixed")
    if mixed is not None:
        steps.append(f"{len(mixed['kept'])} of {mixed['ops']} ops in {plain_type(mixed['kept_as'])}")
    return f"effort {report['effort']}: {', '.join(steps) or 'no step gains on min/max'}"
