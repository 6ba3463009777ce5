"""What a build lets pass: does the model fit, and is the loss small enough?"""

from edgepack.errors import AccuracyError, UnfitModelError
from edgepack.findings import Placement, Report
from edgepack.pipeline.options import Limits
from edgepack.profiles.model import TargetProfile
from edgepack.runtime.metrics import Quality
from edgepack.train.report import gzip_size

#: Without --max-drop, auto leaves its first choice when that loses more than so many percentage points.
AUTO_DROP = 1.0
#: Below this signal-to-noise ratio (dB) outputs without classes count as lost.
AUTO_SNR = 10.0


def unmeasured(limit: float) -> AccuracyError:
    """Return the error of a --max-drop for which there is nothing to measure on."""
    return AccuracyError(
        f"--max-drop {limit:g} cannot be held: no accuracy was measured",
        hint="give labelled samples with --eval (arrays x and y)",
    )


def hold(quality: Quality | None, model: bytes, limits: Limits, scheme: str, target: str) -> None:
    """Hold a finished file against the limits.

    Raises:
        AccuracyError: More was lost than --max-drop, nothing could be measured, or the file is too large.
    """
    if limits.drop is not None:
        drop = None if quality is None else quality.drop
        if quality is None or drop is None:
            raise unmeasured(limits.drop)
        if drop > limits.drop:
            raise AccuracyError(
                f"{scheme} on {target} loses {loss_text(quality)}, more than --max-drop {limits.drop:g}",
                hint="try another scheme (float16 or int16x8 where the target takes it), or more and truer samples",
                details={"quality": quality.to_json()},
            )
    for option, limit, how, measure in (
        ("--max-size", limits.size, "", len),
        ("--max-download", limits.download, " compressed", gzip_size),
    ):
        # Compressing takes longer than all else that is done here: only for a limit that was given.
        size = 0 if limit is None else measure(model)
        if limit is not None and size > limit:
            raise AccuracyError(
                f"the {scheme} file for {target} has {size} bytes{how}, more than {option} {limit}",
                hint="give the float model: edgepack then looks for a smaller form of it",
            )


def require(report: Report, profile: TargetProfile, *, full: bool) -> None:
    """Refuse a model that does not fit.

    Raises:
        UnfitModelError: The target cannot run the model, or `full` and an op stays on the host.
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


def acceptable(quality: Quality, limit: float) -> bool:
    """Return whether auto may keep a scheme that lost this much."""
    if quality.collapsed:
        return False
    if quality.drop is not None:
        return quality.drop <= limit
    return quality.snr_db is None or quality.snr_db >= AUTO_SNR


def loss(quality: Quality) -> float:
    """Return a number that grows with the loss, for comparing candidates of one model."""
    if quality.drop is not None:
        return quality.drop
    return 0.0 if quality.snr_db is None else -quality.snr_db


def loss_text(quality: Quality) -> str:
    """Return the loss in words."""
    if quality.top1 is not None and quality.top1_float is not None:
        lost = quality.top1_float - quality.top1
        points = "nothing" if lost <= 0 else f"{lost:.2f} points"
        return f"{points} of top-1 ({quality.top1_float:.2f} to {quality.top1:.2f})"
    if quality.agreement is not None:
        return f"{100 - quality.agreement:.2f} points of agreement with the float model"
    return "nothing" if quality.snr_db is None else f"signal down to {quality.snr_db:.1f} dB above the error"
