"""Choose how a target's file is made: what was asked for, the first scheme that loses little, or up the ladder."""

from collections.abc import Sequence
from dataclasses import replace

from edgepack.errors import AccuracyError, EdgepackError, QuantizationError, TransformError, UnfitModelError
from edgepack.findings import Report
from edgepack.graph import read_model
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.options import Limits
from edgepack.pipeline.results import TargetResult
from edgepack.pipeline.search.acceptance import AUTO_DROP, acceptable, loss, loss_text, require, unmeasured
from edgepack.pipeline.search.candidates import Candidate, Step, best, chosen, judge, pointless, rungs
from edgepack.pipeline.search.produce import Made, make, without_tail
from edgepack.pipeline.train import require_trainable
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.variants import choose_variant
from edgepack.quantize.select import Selection, scheme_of, select
from edgepack.runtime.metrics import Quality
from edgepack.schemes import Needs, get_scheme
from edgepack.train.report import gzip_size


def choose(given: BuildContext, profile: TargetProfile, result: TargetResult) -> SchemeRule:
    """Choose the scheme of a target and make its file.

    Raises:
        AccuracyError: No rung of the ladder holds the limits.
        EdgepackError: No scheme fits what was given, or its file cannot be made.
    """
    if given.float_model.quantized:
        return _as_it_is(given, profile, result)
    available = {Needs.NOTHING}
    if given.samples is not None or given.options.random_calibration:
        available.add(Needs.SAMPLES)
    if given.training is not None:
        available.add(Needs.LABELS)
    selection = select(profile, available, given.options.scheme)
    limits = given.options.limits
    if limits:
        return _climb(given, profile, available, limits, result)
    if given.options.scheme == "auto" and (given.evaluation or given.samples) and len(selection.candidates) > 1:
        return _least_loss(given, profile, selection, result)
    result.scheme, result.reason = selection.rule.scheme, selection.reason
    make(given, profile, _rung(given, selection.rule), result.stopwatch).into(result)
    return selection.rule


def per_tensor(schemes: Sequence[SchemeRule]) -> tuple[SchemeRule, ...]:
    """Return the rules with one scale for each weight tensor; training cannot make these and is left out."""
    return tuple(
        replace(rule, weights="per-tensor", fully_connected="per-tensor")
        for rule in schemes
        if get_scheme(rule.scheme).needs is not Needs.LABELS
    )


def check_placement(given: BuildContext, profile: TargetProfile, model: bytes) -> Report:
    """Return where a target runs each op of a file."""
    from edgepack.compat import check

    wish = given.options.target
    variant = choose_variant(profile, variant=wish.variant, soc=wish.soc)
    return check(
        read_model(model), profile, variant=variant.id, soc=wish.soc, runtime_version=wish.runtime_version
    )  # fmt: skip


def _rung(given: BuildContext, rule: SchemeRule) -> Candidate:
    recipe = "qat" if get_scheme(rule.scheme).needs is Needs.LABELS else ""
    return Candidate(rule, given.options.effort, recipe=recipe)


def _least_loss(given: BuildContext, profile: TargetProfile, selection: Selection, result: TargetResult) -> SchemeRule:
    """Take the first candidate that loses little enough; when none does, the one that loses least."""
    tried: list[tuple[SchemeRule, Made, Quality]] = []
    for rule in selection.candidates:
        made = make(given, profile, _rung(given, rule), result.stopwatch)
        made.into(result)
        result.scheme, result.reason = rule.scheme, selection.reason
        with result.stopwatch.step("measure"):
            given.measure(result)
        quality = result.quality
        if quality is None:
            return rule
        if acceptable(quality, AUTO_DROP):
            if tried:
                first, _, lost = tried[0]
                result.reason = (
                    f"{rule.scheme}, because {first.scheme} loses {loss_text(lost)} and this {loss_text(quality)}"
                )
            return rule
        tried.append((rule, made, quality))
    rule, made, quality = min(tried, key=lambda one: loss(one[2]))
    made.into(result)
    result.scheme, result.quality = rule.scheme, quality
    result.reason = f"{rule.scheme} loses least of what the target and the data allow: {loss_text(quality)}"
    return rule


# -- the ladder ------------------------------------------------------------------------------------------------------


def _climb(
    given: BuildContext, profile: TargetProfile, available: set[Needs], limits: Limits, result: TargetResult
) -> SchemeRule:
    """Try rung after rung until the limits hold."""
    options = given.options
    ladder = rungs(
        profile.schemes,
        available,
        asked=options.scheme,
        effort=options.effort,
        improvable=given.samples is not None,
        drop=AUTO_DROP if limits.drop is None else limits.drop,
        untrainable=_untrainable(given),
    )
    steps: list[Step] = []
    told: list[Step] = []
    files: dict[str, Made] = {}
    failures: list[EdgepackError] = []
    for rung in ladder:
        why = rung.missing or pointless(rung, steps, limits)
        if why:
            step = Step(rung, why=f"not tried: {why}")
        else:
            try:
                step, files[rung.name] = _try(given, profile, rung, limits, result)
            except (TransformError, UnfitModelError) as error:
                failures.append(error)
                step = Step(rung, why=f"cannot be made: {error.message.replace(str(given.path), given.path.name)}")
        steps.append(step)
        result.ladder.append(step.to_json())
        if told and (step.made or step.why != told[-1].why):
            _tell(given, profile, told)
            told.clear()
        told.append(step)
        if step.made:
            _tell(given, profile, told)
            told.clear()
            if not step.misses:
                break
    _tell(given, profile, told)
    if not files:
        # Nothing failed, so all was left out: only training was asked for, and the model cannot be trained.
        raise failures[0] if failures else TransformError(_untrainable(given), hint="give the file it was saved as")
    found = chosen(steps, limits)
    # What is nearest to the limits is also what the result of a refused build shows.
    shown = found or best(steps, limits)
    files[shown.rung.name].into(result)
    result.scheme, result.quality = shown.rung.rule.scheme, shown.quality
    if found is None:
        raise _refusal(given, profile, steps, limits)
    result.reason = f"{found.rung.name} is the first rung of the ladder that holds {limits}"
    if found.misses and found.quality is not None:
        result.reason = f"{found.rung.name} loses least of what holds {limits}: {loss_text(found.quality)}"
    return found.rung.rule


def _tell(given: BuildContext, profile: TargetProfile, steps: Sequence[Step]) -> None:
    """Say what became of one rung, or of several that have the same reason."""
    if steps:
        before = "; ".join(step.rung.name for step in steps[:-1])
        given.tell(f"{profile.id}: {f'{before}; ' if before else ''}{steps[-1]}")


def _untrainable(given: BuildContext) -> str:
    try:
        require_trainable(given.path)
    except TransformError:
        return "only a .keras or .h5 model can be trained"
    return ""


def _try(
    given: BuildContext, profile: TargetProfile, rung: Candidate, limits: Limits, result: TargetResult
) -> tuple[Step, Made]:
    """Make a rung's file and hold it against the limits."""
    made = make(given, profile, rung, result.stopwatch)
    trial = TargetResult(result.target, scheme=rung.rule.scheme, stopwatch=result.stopwatch)
    made.into(trial)
    with trial.stopwatch.step("measure"):
        given.measure(trial)
    if limits.drop is not None and (trial.quality is None or trial.quality.drop is None):
        raise unmeasured(limits.drop)
    made.warnings = trial.warnings
    refused = ""
    with trial.stopwatch.step("check"):
        try:
            require(check_placement(given, profile, made.model), profile, full=given.options.target.require_full)
        except UnfitModelError as error:
            refused = error.message
    # The bundle's file also carries what is known of the model.
    shipped = given.with_metadata(made.model)
    return judge(rung, len(shipped), gzip_size(shipped), trial.quality, limits, refused), made


def _refusal(given: BuildContext, profile: TargetProfile, steps: list[Step], limits: Limits) -> EdgepackError:
    """Return the error of a ladder that ends below the limits."""
    if all("target" in step.misses for step in steps if step.made):
        first = next(step for step in steps if step.made)
        return UnfitModelError(first.why, hint=f"run `edgepack check` with -t {profile.id} for every op")
    nearest = best(steps, limits)
    looser = Limits(
        drop=limits.drop if nearest.quality is None or limits.drop is None else max(limits.drop, _up(nearest.quality)),
        size=None if limits.size is None else max(limits.size, nearest.bytes),
        download=None if limits.download is None else max(limits.download, nearest.gzip_bytes),
    )
    hints = [f"{looser} lets it pass, and takes what is made already"]
    if any(step.rung.missing == "it needs --train" for step in steps):
        hints.append("--train with labelled samples adds quantization-aware training")
    if "size" in nearest.misses and limits.download is None:
        hints.append("zeros and few different weights (--train) only make the compressed file smaller: --max-download")
    return AccuracyError(
        f"no way to make the file for {profile.id} holds {limits}; the nearest is {nearest}",
        hint="; ".join(hints),
        details={"best": nearest.to_json()},
    )


def _up(quality: Quality) -> float:
    """Return the drop rounded up to what a user would type."""
    return -(-(quality.drop or 0.0) * 100 // 1) / 100


def _as_it_is(given: BuildContext, profile: TargetProfile, result: TargetResult) -> SchemeRule:
    """Use a file that is quantized already, when the target takes what it is."""
    model = read_model(given.float_model.tflite)
    have = scheme_of(model)
    asked = given.options.scheme
    if asked not in {"auto", have} or profile.scheme_rule(have) is None:
        wanted = asked if asked not in {"auto", have} else " or ".join(rule.scheme for rule in profile.schemes)
        raise QuantizationError(
            f"the model is already quantized ({have}); {profile.id} with {wanted} would need the float model",
            hint="give the .keras, SavedModel or float .tflite it was made from",
        )
    rule = profile.scheme_rule(have)
    assert rule is not None
    result.scheme, result.reason = have, "the file is already quantized and is used as it is"
    without_tail(given, profile, rule, Made(given.float_model.tflite, "as given")).into(result)
    return rule
