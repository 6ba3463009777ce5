"""The stage that looks for values that an accelerator's half precision cannot represent."""

from edgepack.errors import EdgepackError
from edgepack.graph import read_model
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.search.post_training import calibrate
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.quantize.calibrate import Calibration
from edgepack.quantize.half_precision import HalfFinding, half_findings

#: Samples that the float model runs on: an overflow that matters shows in almost every sample.
_SAMPLES = 32

#: Findings that a warning names.
_SHOWN = 3


def find_half_precision(context: BuildContext, rule: SchemeRule) -> tuple[HalfFinding, ...]:
    """Return what a scheme's file loses because its target computes in half precision; nothing for other targets.

    Args:
        context: The build.
        rule: The scheme; its `compute` tells how the target computes.
    """
    samples = context.measured_on
    if rule.compute != "float16" or samples is None or context.float_model.quantized:
        return ()
    tflite = context.float_model.tflite
    try:
        calibration = calibrate(context.session, tflite, samples.limited(_SAMPLES))
    except EdgepackError:
        if context.session.workers.expired:
            raise
        # The float model does not run here: what measures the file says so.
        return ()
    return tuple(half_findings(read_model(tflite), Calibration.from_bytes(calibration)))


def half_precision_warnings(findings: tuple[HalfFinding, ...], profile: TargetProfile) -> tuple[str, ...]:
    """Return one warning that names the first tensors, none without findings.

    Args:
        findings: Result of `find_half_precision`.
        profile: The target.
    """
    if not findings:
        return ()
    more = f", and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    listed = "; ".join(str(finding) for finding in findings[:_SHOWN])
    if asks_for_single_precision(findings, profile):
        advice = (
            "the loader therefore asks the delegate for single precision (setPrecisionLossAllowed), which is slower;"
            " to stay fast, scale these values in the model"
        )
    else:
        advice = "scale these values in the model, or take another scheme or target"
    return (f"the target computes in half precision, which cannot represent every value: {listed}{more}; {advice}",)


def asks_for_single_precision(findings: tuple[HalfFinding, ...], profile: TargetProfile) -> bool:
    """Return whether the bundle's loader turns half precision off: the GPU delegate has an option for that."""
    return bool(findings) and profile.bundle.delegate == "gpu"
