"""Improve and quantize in native steps, as functions that a child process runs: bytes in, bytes out."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgepack.child import emit
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ranges import Range
from edgepack.samples import SampleSet

#: Most samples that the steps are fitted to and chosen by; they are held in memory together.
MOST_SAMPLES = 200


def improve_float(
    tflite: bytes, rule: SchemeRule, samples: SampleSet, effort: str, off: Sequence[str] = ()
) -> tuple[bytes, dict[str, Range], dict[str, Any]]:
    """Return (float model, range of each activation, report of the steps with their figures).

    In a child, progress is emitted as `(step, part done, parts)`.

    Args:
        tflite: A float model.
        rule: An int8 rule.
        samples: Calibration samples; of more than `MOST_SAMPLES`, so many evenly spaced ones are used.
        effort: `low`, `medium` or `high`.
        off: Steps to leave out (`edgepack.quantize.ptq.steps.STEPS`).

    Raises:
        QuantizationRefused: ai-edge-quantizer cannot take the model.
        QuantizationError: The model cannot be calibrated.
    """
    from edgepack.quantize.ptq.steps import improve

    used = samples.limited(MOST_SAMPLES)
    arrays = [used.sample(i) for i in range(len(used))]
    done = improve(tflite, rule, arrays, effort, off=off, progress=lambda step, part, parts: emit((step, part, parts)))
    return done.tflite, done.ranges, {"effort": effort, "samples": len(arrays), **done.to_json()}


def with_ranges(
    tflite: bytes, rule: SchemeRule, ranges: Mapping[str, Sequence[float]]
) -> tuple[bytes, str, tuple[str, ...]]:
    """Return (int8 model, tool that wrote it, notes).

    Args:
        tflite: The float model of `improve_float`.
        rule: An int8 rule.
        ranges: Its ranges, as they are or from JSON.

    Raises:
        QuantizationRefused: ai-edge-quantizer cannot take the model in this form.
    """
    from edgepack.quantize.quantizer import apply

    made = apply(tflite, rule, {key: (low, high) for key, (low, high) in ranges.items()})
    return made.tflite, made.tool, tuple(made.notes)


def mix_ops(
    tflite: bytes,
    rule: SchemeRule,
    ranges: Mapping[str, Sequence[float]],
    samples: SampleSet,
    reference: bytes,
    judged: SampleSet,
    limit: float,
    kept_as: str = "float32",
) -> tuple[bytes, str, tuple[str, ...], dict[str, Any]]:
    """Return (int8 model, tool, notes, report): as few ops kept as hold a limit.

    In a child, progress is emitted as `("mixed", files tried, one more)`: how many there will be is not known.

    Args:
        tflite: The float model of `improve_float`.
        rule: An int8 rule whose `mixed` allows `kept_as`.
        ranges: Its ranges, as they are or from JSON.
        samples: Calibration samples, as for `improve_float`.
        reference: The float model that losses are measured against.
        judged: Samples that the limit is held on: top-1 counts with labels, agreement with the float model without.
        limit: Most percentage points that may be lost.
        kept_as: What single ops are kept in: `float32` or `int16`.

    Raises:
        UnfitModelError: The target does not mix int8 with that.
        AccuracyError: Mixed precision does not hold the limit.
        QuantizationRefused: ai-edge-quantizer cannot take the model.
    """
    from edgepack.quantize.ptq.mixed import mixed
    from edgepack.runtime.evaluate import evaluate

    used = samples.limited(MOST_SAMPLES)
    found = mixed(
        tflite, rule, {key: (low, high) for key, (low, high) in ranges.items()},
        [used.sample(i) for i in range(len(used))],
        lambda made: evaluate(reference, {"": made}, judged)[""], limit,
        kept_as=kept_as, progress=lambda tries: emit(("mixed", tries, tries + 1)),
    )  # fmt: skip
    return found.made.tflite, found.made.tool, tuple(found.made.notes), found.to_json()
