"""The order of the steps of a build, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgepack.bundle.names import file_stem
from edgepack.bundle.spec import ModelFile
from edgepack.cache import sha256
from edgepack.errors import EdgepackError
from edgepack.graph import Model, read_model
from edgepack.pipeline.assemble import bundle_files
from edgepack.pipeline.choosing import check_placement, choose, per_tensor
from edgepack.pipeline.compile import compile_model
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.option_validation import require_wishes
from edgepack.pipeline.options import BuildOptions, Progress, silent
from edgepack.pipeline.results import BuildResult, TargetResult
from edgepack.pipeline.search.acceptance import hold, require
from edgepack.pipeline.search.produce import calibration_facts
from edgepack.pipeline.session import Session
from edgepack.profiles.model import TargetProfile
from edgepack.profiles.registry import resolve_targets
from edgepack.profiles.variants import choose_variant


def build(
    model: Path,
    targets: Sequence[str],
    options: BuildOptions | None = None,
    progress: Progress = silent,
    tell: Progress = silent,
) -> BuildResult:
    """Build a bundle of `model` for each target.

    Every target is tried; a target's failure stands in its result.

    Args:
        model: .keras, .h5, a SavedModel folder or .tflite.
        targets: Target ids, or `all`.
        options: What the user asked for.
        progress: Told what is being done.
        tell: Told each rung of the ladder with its figures.

    Raises:
        EdgepackError: Something that concerns every target: an unknown target, a model that cannot be read, samples
            that do not match.
    """
    options = options or BuildOptions()
    profiles = resolve_targets(targets)
    notes = require_wishes(profiles, options)
    with Session(options.model, progress) as session:
        given = BuildContext.prepare(model, options, session, progress, tell)
        results = [_target(given, profile) for profile in profiles]
        return BuildResult(results, [*given.notes, *notes], given.source)


def _target(given: BuildContext, profile: TargetProfile) -> TargetResult:
    """Build one target; its failure becomes part of the result."""
    result = TargetResult(profile.id)
    result.stopwatch.seconds["convert"] = given.convert_seconds
    try:
        _steps(given, profile, result)
    except EdgepackError as error:
        result.error = error
    return result


def _steps(given: BuildContext, profile: TargetProfile, result: TargetResult) -> None:
    watch = result.stopwatch
    result.float_bytes = len(given.float_model.tflite)
    wish = given.options.target
    variant = choose_variant(profile, variant=wish.variant, soc=wish.soc)
    profile = replace(profile, schemes=variant.schemes or profile.schemes, partition=variant.partition, ops=variant.ops)
    if given.options.per_tensor:
        profile = replace(profile, schemes=per_tensor(profile.schemes))
    rule = choose(given, profile, result)
    assert result.model is not None
    result.model_name = f"{file_stem(given.name)}.tflite"
    model = read_model(result.model)
    with watch.step("check"):
        result.report = check_placement(given, profile, result.model)
    require(result.report, profile, full=wish.require_full)
    with watch.step("compile"):
        compiled = compile_model(given, profile, rule, result)
    result.model = given.with_metadata(result.model)
    result.model_sha256 = sha256(result.model)
    with watch.step("measure"):
        given.measure(result)
    hold(result.quality, result.model, given.options.limits, result.scheme, profile.id)
    with watch.step("bundle"):
        _bundle(given, profile, model, compiled, result)


def _bundle(
    given: BuildContext, profile: TargetProfile, model: Model, compiled: tuple[ModelFile, ...], result: TargetResult
) -> None:
    """Render the bundle and move it into place."""
    from edgepack.bundle.write import write

    files = bundle_files(
        session=given.session,
        options=given.options,
        profile=profile,
        name=given.name,
        source=given.source,
        model=model,
        compiled=compiled,
        result=result,
        samples=given.evaluation or given.samples,
        calibration=calibration_facts(given, result),
        info=given.info,
        notes=given.notes,
    )
    if given.options.dry_run:
        return
    destination = given.options.out / f"{file_stem(given.name)}-{profile.id}"
    write(files, destination, force=given.options.force)
    result.bundle = destination
