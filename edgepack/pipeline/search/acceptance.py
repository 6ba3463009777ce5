"""Acceptance: whether a candidate's file is good enough, which trial a build takes, and the error when none is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from edgepack.errors import AccuracyError, EdgepackError, TransformError, UnfitModelError
from edgepack.findings import Placement, Report
from edgepack.pipeline.measure import Measurement
from edgepack.pipeline.options import Limits
from edgepack.pipeline.search.candidates import Candidate, CandidatePlan
from edgepack.pipeline.search.loss import AUTO_DROP, acceptable, judge, loss, loss_text, to_json
from edgepack.pipeline.search.produce import QuantizedModel
from edgepack.pipeline.search.trials import ProducedTrial, Trial
from edgepack.profiles.model import TargetProfile
from edgepack.runtime.metrics import Quality
from edgepack.schemes import get_scheme

T = TypeVar("T", bound=Trial)


@dataclass(frozen=True)
class Choice:
    """The trial that a build takes.

    Attributes:
        trial: The trial.
        reason: Why this one, one sentence.
    """

    trial: ProducedTrial
    reason: str


def require_placement(report: Report, profile: TargetProfile, *, full: bool) -> None:
    """Refuse a file that the target does not run.

    Args:
        report: Where the target runs each op.
        profile: The target.
        full: Refuse a file with an op on the host as well.

    Raises:
        UnfitModelError: The target cannot run the file, or `full` and an op stays on the host.
    """
    refused = [f for f in report.ops if f.placement is Placement.UNSUPPORTED]
    if not report.compatible:
        first = next(iter([r for f in refused for r in f.reasons] + list(report.model_reasons)), None)
        what = f": {first.message}" if first else ""
        raise UnfitModelError(
            f"the model does not fit {profile.id}{what}",
            hint=first.fix if first else f"run `edgepack check` with -t {profile.id} for every op",
        )
    host = [f for f in report.ops if f.placement is not Placement.ACCELERATOR]
    if full and host:
        cause = next((f for f in host if f.reasons and f.reasons[0].code != "outside-partition"), host[0])
        reason = cause.reasons[0].message if cause.reasons else "no reason recorded"
        raise UnfitModelError(
            f"--require-full: {len(host)} of {len(report.ops)} ops stay on the host of {profile.id}; "
            f"the first cause is {cause.op} (op {cause.index}): {reason}",
            hint=cause.reasons[0].fix if cause.reasons else "",
        )


def refused(
    candidate: Candidate, quantized: QuantizedModel, shipped: bytes, placement: Report, error: UnfitModelError
) -> ProducedTrial:
    """Return the trial of a file that the target refuses; nothing is measured then."""
    return ProducedTrial(
        candidate,
        len(shipped),
        misses=frozenset({"target"}),
        why=error.message,
        quantized=quantized,
        shipped=shipped,
        placement=placement,
        error=error,
    )


def accept(
    candidate: Candidate,
    quantized: QuantizedModel,
    shipped: bytes,
    placement: Report,
    measurement: Measurement,
    limits: Limits,
    *,
    competing: bool,
    compressed: int | None = None,
) -> ProducedTrial:
    """Compare a file with the limits.

    Args:
        candidate: How it was produced.
        quantized: The file.
        shipped: The file as it goes into the bundle, with metadata.
        placement: Where the target runs each op.
        measurement: What was measured.
        limits: The user's limits.
        competing: True when a file that loses much gives way to the next candidate.
        compressed: Bytes of `shipped` compressed with gzip, None where there are no limits.

    Raises:
        AccuracyError: There is a limit on the loss, and nothing that could be measured.
    """
    quality = measurement.quality
    if quality is not None and candidate.recipe:
        quality = replace(quality, trained=True)
    if limits.drop is not None and (quality is None or quality.drop is None):
        raise AccuracyError(
            f"--max-drop {limits.drop:g} cannot be checked: no accuracy was measured",
            hint="give labelled samples with --eval (arrays x and y), or class names with --labels",
        )
    misses, reasons = missed_limits(len(shipped), compressed, quality, limits, competing=competing)
    return ProducedTrial(
        candidate,
        len(shipped),
        compressed,
        quality,
        misses,
        " and ".join(reasons),
        quantized=quantized,
        shipped=shipped,
        placement=placement,
        warnings=(*measurement.warnings, *(str(f) for f in (() if quality is None else judge(quality)))),
    )


def missed_limits(
    size: int, gzip_bytes: int | None, quality: Quality | None, limits: Limits, *, competing: bool = True
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return which limits a file misses, and a reason for each.

    Args:
        size: Bytes of the file.
        gzip_bytes: Bytes of the file compressed with gzip, None where no limit needs it.
        quality: What it lost, None when nothing could be measured.
        limits: The user's limits.
        competing: Without a limit on the drop, True applies the default thresholds and False accepts any loss.
    """
    misses, reasons = set(), []
    judged = competing or limits.drop is not None
    if quality is not None and judged and not acceptable(quality, limits.drop):
        misses.add("drop")
        reasons.append(_loss_reason(quality, limits))
    if limits.size is not None and size > limits.size:
        misses.add("size")
        reasons.append(f"its file is larger than {limits.size} bytes")
    if limits.download is not None and gzip_bytes is not None and gzip_bytes > limits.download:
        misses.add("download")
        reasons.append(f"its compressed file is larger than {limits.download} bytes")
    return frozenset(misses), tuple(reasons)


def _loss_reason(quality: Quality, limits: Limits) -> str:
    """Return why a file loses too much."""
    drop = AUTO_DROP if limits.drop is None else limits.drop
    if quality.drop is not None and quality.drop > drop:
        return f"more than {drop:g} points are lost"
    return next((finding.message for finding in judge(quality)), "")


def choose(trials: Sequence[Trial], plan: CandidatePlan, limits: Limits, profile: TargetProfile) -> Choice:
    """Return the trial that a build takes.

    Args:
        trials: All trials, in order; at least one.
        plan: What they were taken from.
        limits: The user's limits.
        profile: The target.

    Raises:
        AccuracyError: No file meets the limits.
        EdgepackError: No file was produced, or the target refuses every one: the first failure.
    """
    trial = select_trial(produced_trials(trials), limits)
    if trial is None:
        raise no_choice(trials, limits, profile)
    return Choice(trial, _reason(trial, trials, plan, limits))


def require_sound(trial: ProducedTrial, profile: TargetProfile, advice: Sequence[str] = ()) -> None:
    """Refuse a file that loses accuracy, for --strict.

    Args:
        trial: The trial that a build takes.
        profile: The target.
        advice: Where the loss comes from, and what would help.

    Raises:
        AccuracyError: The file loses accuracy or is likely unusable, or nothing was measured.
    """
    scheme, quality = trial.candidate.rule.scheme, trial.quality
    if quality is None:
        if get_scheme(scheme).weights == "FLOAT32":
            return
        raise AccuracyError(
            f"--strict: the loss of {scheme} on {profile.id} is unknown, because nothing was measured",
            hint="give samples with --samples or --eval",
        )
    findings = judge(quality)
    if findings:
        raise AccuracyError(
            f"--strict: {scheme} on {profile.id}: {findings[0]}",
            hint="; ".join(advice),
            details={"quality": to_json(quality)},
        )


def produced_trials(trials: Sequence[Trial]) -> list[ProducedTrial]:
    """Return the trials that have a file."""
    return [trial for trial in trials if isinstance(trial, ProducedTrial)]


def select_trial(trials: Sequence[T], limits: Limits) -> T | None:
    """Return the first accepted trial, None when there is none.

    Without a limit on the drop, of the files that meet the other limits and lose much, the one that loses least is
    taken.
    """
    accepted = [trial for trial in trials if trial.accepted]
    if accepted or limits.drop is not None:
        return accepted[0] if accepted else None
    lossy = [trial for trial in trials if trial.misses == {"drop"} and trial.quality is not None]
    return min(lossy, key=lambda trial: loss(trial.quality) if trial.quality else 0.0) if lossy else None


def nearest(trials: Sequence[T], limits: Limits) -> T | None:
    """Return the trial nearest to the limits, None when no file was produced.

    Fewest missed limits first, then the least distance from them, then the earliest.
    """

    def distance(trial: T) -> tuple[int, float]:
        over = 0.0
        if trial.quality is not None and "drop" in trial.misses:
            # Points count in full: relative to a limit of 0, any loss would be infinitely far.
            over += loss(trial.quality) - (AUTO_DROP if limits.drop is None else limits.drop)
        if limits.size is not None:
            over += max(0.0, trial.bytes / limits.size - 1.0)
        if limits.download is not None and trial.gzip_bytes is not None:
            over += max(0.0, trial.gzip_bytes / limits.download - 1.0)
        return len(trial.misses) + 9 * ("target" in trial.misses), over

    return min((trial for trial in trials if trial.produced), key=distance, default=None)


def no_choice(trials: Sequence[Trial], limits: Limits, profile: TargetProfile) -> EdgepackError:
    """Return the error of a search in which no file was accepted."""
    best = nearest(trials, limits)
    if best is None:
        errors = [trial.error for trial in trials if trial.error is not None]
        # Without an error nothing was tried: only training was requested, and the model cannot be trained.
        return (
            errors[0] if errors else TransformError(trials[0].candidate.missing, hint="give the file it was saved as")
        )
    if "target" in best.misses:
        return next(trial.error for trial in trials if trial.produced and trial.error is not None)
    if best.candidate.as_is:
        return _too_lossy_or_large(best, limits, profile)
    looser = Limits(
        drop=limits.drop
        if best.quality is None or limits.drop is None
        else max(limits.drop, _rounded_up(best.quality)),
        size=None if limits.size is None else max(limits.size, best.bytes),
        download=None if limits.download is None else max(limits.download, best.gzip_bytes or 0),
    )
    usable = "drop" not in best.misses or best.quality is None or acceptable(best.quality, looser.drop)
    hints = [f"{looser} would accept the cached file"] if usable else []
    if any(trial.candidate.missing == "it needs --train" for trial in trials):
        hints.append("--train with labelled samples adds quantization-aware training")
    if "size" in best.misses and limits.download is None:
        hints.append("sparsity and clustering (--train) only make the compressed file smaller: --max-download")
    return AccuracyError(
        f"no candidate for {profile.id} meets {limits}; the nearest is {best}",
        hint="; ".join(hints),
        details={"best": best.to_json()},
    )


def _too_lossy_or_large(trial: Trial, limits: Limits, profile: TargetProfile) -> AccuracyError:
    """Return the error of a file that came quantized: there is nothing else to try."""
    scheme, quality = trial.candidate.rule.scheme, trial.quality
    if "drop" in trial.misses and quality is not None and limits.drop is not None:
        return AccuracyError(
            f"{scheme} on {profile.id} loses {loss_text(quality)}, more than --max-drop {limits.drop:g}",
            hint="try another scheme (float16 or int16x8 where the target supports it), or more representative samples",
            details={"quality": to_json(quality)},
        )
    size, option = (
        (f"{trial.bytes} bytes", f"--max-size {limits.size}")
        if "size" in trial.misses
        else (f"{trial.gzip_bytes} bytes compressed", f"--max-download {limits.download}")
    )
    return AccuracyError(
        f"the {scheme} file for {profile.id} has {size}, more than {option}",
        hint="give the float model: edgepack then searches for a smaller form of it",
    )


def _rounded_up(quality: Quality) -> float:
    """Return the drop rounded up to two decimals, as a user would type it."""
    return -(-(quality.drop or 0.0) * 100 // 1) / 100


def _reason(trial: Trial, trials: Sequence[Trial], plan: CandidatePlan, limits: Limits) -> str:
    """Return why a trial was chosen, in one sentence."""
    candidate, quality = trial.candidate, trial.quality
    if limits:
        if trial.misses and quality is not None:
            return f"{candidate.name} loses least of the candidates that meet {limits}: {loss_text(quality)}"
        return f"{candidate.name} is the first candidate that meets {limits}"
    scheme = candidate.rule.scheme
    if trial.misses and quality is not None:
        return f"{scheme} loses least of what the target and the data allow: {loss_text(quality)}"
    first = trials[0]
    if first is trial:
        return plan.reason
    if "drop" in first.misses and first.quality is not None and quality is not None:
        lost = loss_text(first.quality)
        return f"{scheme}, because {first.candidate.rule.scheme} loses {lost} and this {loss_text(quality)}"
    return f"{scheme}, because {first.candidate.rule.scheme} {first.why}"
