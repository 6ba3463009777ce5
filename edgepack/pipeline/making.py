"""Choose the scheme of a target and make its file: quantized as it is, with more effort, or trained."""

from typing import Any

from edgepack.errors import QuantizationError
from edgepack.graph import read_model
from edgepack.pipeline.formats import scheme_of
from edgepack.pipeline.given import Given
from edgepack.pipeline.judging import AUTO_DROP, acceptable, loss, loss_text
from edgepack.pipeline.repairing import repair_kept
from edgepack.pipeline.results import TargetResult
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.quantize.select import Selection, select
from edgepack.runtime.metrics import Quality
from edgepack.schemes import Needs, get_scheme

#: How many random samples an explicit --random-calibration makes up.
RANDOM_SAMPLES = 100


def choose(given: Given, profile: TargetProfile, result: TargetResult) -> SchemeRule:
    """Choose the scheme and make its file."""
    if given.float_model.quantized:
        return _as_it_is(given, profile, result)
    available = {Needs.NOTHING}
    if given.samples is not None or given.options.random_calibration:
        available.add(Needs.SAMPLES)
    if given.training is not None:
        available.add(Needs.LABELS)
    selection = select(profile, available, given.options.scheme)
    tried: dict[str, tuple[SchemeRule, Quality]] = {}
    rule, reason = selection.rule, selection.reason
    if given.options.scheme == "auto" and (given.evaluation or given.samples) and len(selection.candidates) > 1:
        rule, reason = _least_loss(given, profile, selection, result, tried)
    result.scheme, result.reason = rule.scheme, reason
    make(given, profile, rule, result)
    return rule


def _least_loss(
    given: Given,
    profile: TargetProfile,
    selection: Selection,
    result: TargetResult,
    tried: dict[str, tuple[SchemeRule, Quality]],
) -> tuple[SchemeRule, str]:
    """Take the first candidate that loses little enough; when none does, the one that loses least."""
    limit = given.options.max_drop if given.options.max_drop is not None else AUTO_DROP
    for rule in selection.candidates:
        make(given, profile, rule, result)
        with result.stopwatch.step("measure"):
            given.measure(result)
        quality = result.quality
        if quality is None or (not tried and acceptable(quality, limit)):
            return rule, selection.reason
        if acceptable(quality, limit):
            first, lost = next(iter(tried.values()))
            return (
                rule,
                f"{rule.scheme}, because {first.scheme} loses {loss_text(lost)} and this {loss_text(quality)}",
            )
        tried[rule.scheme] = (rule, quality)
    rule, quality = min(tried.values(), key=lambda pair: loss(pair[1]))
    return rule, f"{rule.scheme} loses least of what the target and the data allow: {loss_text(quality)}"


def make(given: Given, profile: TargetProfile, rule: SchemeRule, result: TargetResult) -> None:
    """Quantize to a rule; everything behind it is cached, so making a file twice costs nothing."""
    if get_scheme(rule.scheme).needs is Needs.LABELS:
        _train(given, rule, result)
        return
    with result.stopwatch.step("check"):
        proven = repair_kept(
            given.session, given.float_model.tflite, profile, rule, given.options.target, samples=given.samples
        )
    tflite, result.repairs = proven.repaired.tflite, proven.repaired.rewrites
    result.improvements, result.warnings = None, [*proven.notes]
    if _improve(given, tflite, rule, result):
        return
    calibration = None
    if _needs_ranges(rule):
        with result.stopwatch.step("calibrate"):
            calibration = given.session.calibration(
                tflite, given.samples if given.samples is not None else RANDOM_SAMPLES
            )
    with result.stopwatch.step("quantize"):
        result.model, result.tool, notes = given.session.quantized(tflite, rule, calibration, given.options.method)
    result.warnings.extend(notes)
    if calibration is not None and given.samples is None:
        result.warnings.append("calibrated on random numbers: accuracy on real data is unknown")


def _improve(given: Given, tflite: bytes, rule: SchemeRule, result: TargetResult) -> bool:
    """Make an int8 file with more effort; False where that does not apply and the ordinary way is taken."""
    from edgepack.quantize.apply import QuantizationRefused

    if given.options.effort == "low" or rule.scheme != "int8" or given.samples is None:
        return False
    with result.stopwatch.step("quantize"):
        try:
            done = given.session.improved(tflite, rule, given.samples, given.options.effort)
        except QuantizationRefused as refused:
            result.warnings.append(f"quantized with effort low: {refused.message}")
            return False
    result.model, result.tool, notes, result.improvements = done
    result.warnings.extend(notes)
    return True


def _train(given: Given, rule: SchemeRule, result: TargetResult) -> None:
    """Make the file by quantization-aware training on the labelled samples."""
    from edgepack.pipeline.training import train_model
    from edgepack.train import TrainOptions

    assert given.training is not None
    options = TrainOptions(epochs=given.options.epochs, allow_code=given.options.model.allow_code)
    given.progress(f"training on {len(given.training)} labelled samples")
    with result.stopwatch.step("quantize"):
        trained = train_model(
            given.session, given.path, given.float_model.tflite, given.training, "qat", options, rule=rule
        )
    result.model, result.tool, result.repairs = trained.tflite, "tensorflow-model-optimization", ()
    result.warnings = list(trained.notes)
    if trained.left_float:
        listed = ", ".join(trained.left_float)
        result.warnings.append(f"layers that cannot be trained for int8 stay float: {listed}")


def _needs_ranges(rule: SchemeRule) -> bool:
    return rule.scheme in {"int8", "int16x8"}


def _as_it_is(given: Given, profile: TargetProfile, result: TargetResult) -> SchemeRule:
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
    result.model, result.tool = given.float_model.tflite, "as given"
    return rule


def calibration_facts(given: Given, result: TargetResult) -> dict[str, Any] | None:
    """Return what the bundle says about calibration, None for a file that needed none."""
    if given.float_model.quantized or result.scheme not in {"int8", "int16x8"}:
        return None
    random = given.samples is None
    return {
        "samples": RANDOM_SAMPLES if given.samples is None else len(given.samples),
        "source": "" if given.samples is None else given.samples.source,
        "random": random,
        "method": _method(given, result),
    }


def _method(given: Given, result: TargetResult) -> str:
    from edgepack.quantize.ranges import DEFAULT_METHOD

    if result.improvements is None:
        return given.options.method or DEFAULT_METHOD
    kept = [step["step"] for step in result.improvements["steps"] if step["kept"]]
    return f"effort {given.options.effort}: {', '.join(kept)}"
