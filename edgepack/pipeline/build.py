"""A build, stage by stage: from a model and target ids to bundles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from edgepack.bundle.manifest import SIGNATURE_FILE
from edgepack.bundle.names import file_stem
from edgepack.bundle.signature import sign
from edgepack.bundle.write import write
from edgepack.digests import sha256
from edgepack.errors import EdgepackError, UnfitModelError
from edgepack.graph import read_model
from edgepack.pipeline.advice import explain_loss
from edgepack.pipeline.assemble import assemble
from edgepack.pipeline.compile import compile_model, with_latency
from edgepack.pipeline.compressed_size import compressed_size
from edgepack.pipeline.context import BuildContext, prepare
from edgepack.pipeline.half_precision import find_half_precision, half_precision_warnings
from edgepack.pipeline.measure import measure
from edgepack.pipeline.option_validation import bundle_path, validate_build
from edgepack.pipeline.options import BuildOptions, Limits, Progress, silent
from edgepack.pipeline.placement import check_placement
from edgepack.pipeline.rendering import prepare_rendering
from edgepack.pipeline.results import BuildResult, TargetResult
from edgepack.pipeline.search.acceptance import (
    accept,
    choose,
    nearest,
    produced_trials,
    refused,
    require_placement,
    require_sound,
)
from edgepack.pipeline.search.candidates import Candidate, CandidatePlan, plan_candidates, resolve_profile
from edgepack.pipeline.search.produce import quantize, rewrite
from edgepack.pipeline.search.trials import ProducedTrial, Trial, TrialReporter, failed, reason_to_skip, skipped
from edgepack.pipeline.session import Session
from edgepack.pipeline.simulation.stage import simulate_compiled
from edgepack.pipeline.stopwatch import Stopwatch
from edgepack.profiles.model import TargetProfile
from edgepack.profiles.registry import resolve_targets

#: Receives a complete bundle, the files by path and the folder that it is meant for, and returns where it is now.
Deliver = Callable[[Mapping[str, bytes], Path], Path | None]


def build(
    model: Path | str,
    targets: Sequence[str],
    options: BuildOptions | None = None,
    progress: Progress = silent,
    report: Progress = silent,
) -> BuildResult:
    """Build a bundle of a model for each target.

    Every target is tried; a target's failure is in its result.

    Args:
        model: .keras, .h5, a SavedModel folder or .tflite.
        targets: Target ids, or `all`.
        options: The user's options.
        progress: Called with a sentence about each step that takes time.
        report: Called with a line for each trial of a search.

    Raises:
        EdgepackError: What concerns every target: an unknown target, a model that cannot be read, samples that do not
            match.
    """
    options = options or BuildOptions()
    profiles = resolve_targets(targets)
    notes = validate_build(profiles, options, Path(model))
    language = str(options.language)
    with Session(options.model, progress, lambda: prepare_rendering(profiles, language)) as session:
        context = prepare(Path(model), options, session, report)
        results = tuple(build_target(context, profile) for profile in profiles)
        return BuildResult(results, (*context.notes, *notes), asdict(context.source))


def build_target(context: BuildContext, profile: TargetProfile, deliver: Deliver | None = None) -> TargetResult:
    """Build the bundle of one target; a failure becomes part of its result.

    The candidates are tried in order until one is accepted. Its file is compiled, assembled into a bundle and written.

    Args:
        context: What all targets of the build share.
        profile: The target.
        deliver: Receives the bundle, unsigned; None to sign it as the options say and to write it.
    """
    options, limits = context.options, context.options.limits
    context.session.workers.start_clock()
    watch = Stopwatch()
    watch.seconds["convert"] = context.convert_seconds
    trials: list[Trial] = []
    result = TargetResult(profile.id, float_bytes=len(context.float_model.tflite))
    try:
        profile = resolve_profile(profile, options)
        plan = plan_candidates(context, profile)
        result = replace(result, scheme=plan.candidates[0].rule.scheme, reason=plan.reason)
        reporter = TrialReporter(context.report if limits else silent, profile.id)
        for candidate in plan.candidates:
            reason = reason_to_skip(candidate, trials, limits)
            trial = skipped(candidate, reason) if reason else try_candidate(context, profile, candidate, plan, watch)
            trials.append(trial)
            reporter.add(trial)
            if trial.accepted:
                break
        reporter.flush()
        result = _with_trials(result, trials, context)
        choice = choose(trials, plan, limits, profile)
        result = _with_file(result, choice.trial, context)
        with watch.stage("measure"):
            advice = explain_loss(context, profile, choice, trials)
        result = replace(result, reason=choice.reason, warnings=(*_failures(trials, limits), *result.warnings, *advice))
        if options.strict:
            require_sound(choice.trial, profile, advice)

        with watch.stage("compile"):
            compiled = with_latency(compile_model(context, profile, choice), context, choice)
        result = replace(
            result,
            model_sha256=sha256(choice.trial.shipped),
            compile=compiled.report,
            latency=compiled.latency,
            warnings=(*result.warnings, *compiled.warnings),
        )

        if options.simulate:
            with watch.stage("simulate"):
                simulated = simulate_compiled(context, profile, choice, compiled)
            result = replace(
                result,
                simulation=simulated.simulations,
                warnings=(*result.warnings, *simulated.warnings),
            )

        with watch.stage("bundle"):
            bundle = assemble(
                context,
                profile,
                choice,
                compiled,
                simulations=result.simulation,
                ladder=result.ladder,
                warnings=result.warnings,
            )
            result = replace(result, model_name=bundle.model_path, warnings=bundle.warnings)
            if not options.dry_run:
                destination = bundle_path(context.path, profile, options)
                place = (deliver or partial(write_signed, options=options))(bundle.files, destination)
                result = replace(result, bundle=place)
    except EdgepackError as error:
        result = replace(result, error=error)
    return replace(result, seconds=watch.seconds)


def write_signed(files: Mapping[str, bytes], destination: Path, options: BuildOptions) -> Path:
    """Sign a bundle where the options ask for it, and write it.

    Returns:
        The bundle's folder.

    Raises:
        BundleError: The destination may not be replaced, or writing or signing fails.
    """
    complete = dict(files)
    if options.signer is not None:
        complete[SIGNATURE_FILE] = sign(complete, destination.name, options.signer)
    write(complete, destination, force=options.force)
    return destination


def try_candidate(
    context: BuildContext, profile: TargetProfile, candidate: Candidate, plan: CandidatePlan, watch: Stopwatch
) -> Trial:
    """Take one candidate through the stages up to its verdict; one whose file cannot be produced is a failed trial.

    Raises:
        AccuracyError: There is a limit on the loss, and nothing that could be measured.
    """
    options = context.options
    try:
        with watch.stage("check"):
            rewritten = rewrite(context, profile, candidate)
        quantized = quantize(context, profile, candidate, rewritten, watch)
        shipped = context.shipped(quantized.tflite)
        with watch.stage("check"):
            placement = check_placement(read_model(quantized.tflite), profile, options.target)
            try:
                require_placement(placement, profile, full=options.target.require_full)
            except UnfitModelError as error:
                return refused(candidate, quantized, shipped, placement, error)
        compressed = compressed_size(context.session, shipped) if options.limits else None
        with watch.stage("measure"):
            measurement = measure(context, quantized)
            half = half_precision_warnings(find_half_precision(context, candidate.rule), profile)
            measurement = replace(measurement, warnings=(*half, *measurement.warnings))
    except EdgepackError as error:
        if context.session.workers.expired:
            raise
        return failed(candidate, error, context.path)
    return accept(
        candidate,
        quantized,
        shipped,
        placement,
        measurement,
        options.limits,
        competing=plan.competing,
        compressed=compressed() if compressed else None,
    )


def _with_trials(result: TargetResult, trials: Sequence[Trial], context: BuildContext) -> TargetResult:
    """Return the result with its trials, and with the file nearest to the limits in case none is accepted."""
    limits = context.options.limits
    searched = bool(limits) or len(trials) > 1
    result = replace(result, ladder=tuple(trial.to_json() for trial in trials) if searched else ())
    shown = nearest(produced_trials(trials), limits)
    return result if shown is None else _with_file(result, shown, context)


def _with_file(result: TargetResult, trial: ProducedTrial, context: BuildContext) -> TargetResult:
    """Return the result with the file of a trial."""
    quantized = trial.quantized
    return replace(
        result,
        scheme=trial.candidate.rule.scheme,
        tool=quantized.tool,
        model=trial.shipped,
        model_name=f"{file_stem(context.name)}.tflite",
        improvements=quantized.report,
        repairs=quantized.rewrites,
        postprocessing=quantized.postprocessing,
        report=trial.placement,
        quality=trial.quality,
        warnings=tuple(dict.fromkeys((*context.warnings, *quantized.warnings, *trial.warnings))),
    )


def _failures(trials: Sequence[Trial], limits: Limits) -> tuple[str, ...]:
    """Return a warning for each scheme that failed before another one was taken; with limits the trials say it."""
    failures = [trial for trial in trials if trial.error is not None and not limits]
    return tuple(f"{trial.candidate.name}: {trial.why}" for trial in failures)
