"""Every job that a command runs in a child process: what runs, and which error its failure becomes.

The runtime and the quantizer are native code that can abort on a model they do not expect; in a child process that is
an error with an exit code instead of the end of the command. One kind of work has one error class, whichever command
and whichever way leads to it: quantization fails with `QuantizationError` (exit code 4), and a file that does not load
or run with `UnfitModelError` (exit code 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.child import Job, emit
from edgepack.errors import QuantizationError, UnfitModelError
from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.attribution import Attribution
from edgepack.quantize.quantizer import Quantized
from edgepack.quantize.ranges import Range
from edgepack.repair.equivalence import prove_on
from edgepack.runtime.evaluate import evaluate, golden_vectors, kernel_spread, synthetic_samples
from edgepack.runtime.input_values import count_hits
from edgepack.runtime.layers import layer_errors
from edgepack.runtime.runner import model_inputs
from edgepack.runtime.timing import latency
from edgepack.samples import SampleSet
from edgepack.schemes import get_scheme

#: Most samples that the PTQ steps are fitted to and judged on: they are in memory together.
MOST_SAMPLES = 200


@dataclass(frozen=True)
class PtqResult:
    """Result of the PTQ steps.

    Attributes:
        tflite: Float model with the weights and biases that the steps chose.
        ranges: (low, high) of each activation, by tensor key.
        report: Steps with their figures.
    """

    tflite: bytes
    ranges: Mapping[str, Range]
    report: Mapping[str, Any]


@dataclass(frozen=True)
class MixedResult:
    """An int8 file in which single ops keep more precision.

    Attributes:
        file: The file.
        report: Which ops were kept and what that gained.
    """

    file: Quantized
    report: Mapping[str, Any]


def load_packages() -> None:
    """Import what the other jobs need, ahead of time."""
    from edgepack.lean_import import lean_import

    with lean_import():
        import ai_edge_litert.interpreter
        import ai_edge_quantizer.quantizer

    del ai_edge_litert, ai_edge_quantizer


def calibrate(tflite: bytes, samples: SampleSet | int, threads: int) -> bytes:
    """Return the calibration of a float model as bytes.

    Args:
        tflite: The float model.
        samples: Samples to run, or how many random ones to generate.
        threads: Threads of the runtime.
    """
    from edgepack.quantize.calibrate import calibrate as run

    if isinstance(samples, int):
        return run(tflite, synthetic_samples(model_inputs(read_model(tflite)), samples), threads=threads).to_bytes()
    return run(tflite, (samples.sample(i) for i in range(len(samples))), threads=threads).to_bytes()


def quantize(tflite: bytes, rule: SchemeRule, calibration: bytes | None, method: str) -> Quantized:
    """Return a float model in a scheme.

    Args:
        tflite: The float model.
        rule: The scheme with the target's constraints.
        calibration: Result of `calibrate`; None for schemes without ranges.
        method: Range method; empty for the default.

    Raises:
        QuantizationRefused: ai-edge-quantizer cannot quantize the model in this form.
    """
    from edgepack.quantize import quantizer

    return quantizer.quantize(tflite, rule, None if calibration is None else _ranges(tflite, rule, calibration, method))


def carry_ranges(tflite: bytes, rule: SchemeRule, calibration: bytes, method: str) -> bytes:
    """Return the float model with its ranges in the file, the input of TFLiteConverter's quantizer."""
    from edgepack.quantize.quantizer import with_ranges

    return with_ranges(tflite, _ranges(tflite, rule, calibration, method))


def adopt(quantized: bytes, tflite: bytes, rule: SchemeRule, tool: str, calibration: bytes, method: str) -> Quantized:
    """Return another quantizer's file with the float model's interface and true op versions, once it has loaded.

    Inputs and outputs that it left in float become integers with the range of the calibration.
    """
    from edgepack.quantize.quantizer import adopt as finish

    return finish(quantized, tflite, rule, tool, _ranges(tflite, rule, calibration, method))


def run_ptq_steps(
    tflite: bytes, rule: SchemeRule, samples: SampleSet, effort: str, off: Sequence[str] = ()
) -> PtqResult:
    """Choose ranges, and with more effort weights and biases, by the error that they cause.

    Progress is emitted as `(step, part, parts)`.

    Args:
        tflite: A float model.
        rule: An int8 rule.
        samples: Calibration samples; of more than `MOST_SAMPLES`, evenly spaced ones are used.
        effort: `low`, `medium` or `high`.
        off: Steps to leave out (`edgepack.quantize.ptq.steps.STEPS`).

    Raises:
        QuantizationRefused: ai-edge-quantizer cannot quantize the model.
        QuantizationError: The model cannot be calibrated.
    """
    from edgepack.quantize.ptq.steps import improve

    used = samples.limited(MOST_SAMPLES)
    arrays = [used.sample(i) for i in range(len(used))]
    result = improve(
        tflite, rule, arrays, effort, off=off, progress=lambda step, part, parts: emit((step, part, parts))
    )
    return PtqResult(
        result.tflite, result.ranges, {"effort": effort, "samples": len(arrays), **result.to_json()}
    )  # fmt: skip


def quantize_with_ranges(tflite: bytes, rule: SchemeRule, ranges: Mapping[str, Sequence[float]]) -> Quantized:
    """Return an int8 file with given ranges.

    Args:
        tflite: The float model of `run_ptq_steps`.
        rule: An int8 rule.
        ranges: Its ranges, as returned or read from JSON.

    Raises:
        QuantizationRefused: ai-edge-quantizer cannot quantize the model in this form.
    """
    from edgepack.quantize import quantizer

    return quantizer.quantize(tflite, rule, _pairs(ranges))


def quantize_mixed(
    tflite: bytes,
    rule: SchemeRule,
    ranges: Mapping[str, Sequence[float]],
    samples: SampleSet,
    reference: bytes,
    judged: SampleSet,
    limit: float,
    kept_as: str = "float32",
) -> MixedResult:
    """Return an int8 file that keeps as few ops as possible in more precision, so that a limit on the loss is met.

    Progress is emitted as `("mixed", files tried, files tried + 1)`: how many there will be is not known.

    Args:
        tflite: The float model of `run_ptq_steps`.
        rule: An int8 rule whose `mixed` allows `kept_as`.
        ranges: Its ranges, as returned or read from JSON.
        samples: Calibration samples, as for `run_ptq_steps`.
        reference: The float model that losses are measured against.
        judged: Samples that the limit is checked on: top-1 counts with labels, agreement with the float model without.
        limit: Most percentage points that may be lost.
        kept_as: Precision of the kept ops: `float32` or `int16`.

    Raises:
        UnfitModelError: The target does not mix int8 with that precision.
        AccuracyError: Mixed precision does not meet the limit.
        QuantizationRefused: ai-edge-quantizer cannot quantize the model.
    """
    from edgepack.quantize.ptq.mixed import mixed

    used = samples.limited(MOST_SAMPLES)
    result = mixed(
        tflite,
        rule,
        _pairs(ranges),
        [used.sample(i) for i in range(len(used))],
        lambda file: evaluate(reference, {"": file}, judged)[""],
        limit,
        kept_as=kept_as,
        progress=lambda tries: emit(("mixed", tries, tries + 1)),
    )
    return MixedResult(result.quantized, result.to_json())


def attribute(
    tflite: bytes,
    quantized: bytes,
    samples: SampleSet,
    output: int,
    columns: Sequence[int],
    axis: int | None,
    own_ranges: bool,
) -> Attribution:
    """Return which tensors cause the loss of an int8 file: see `edgepack.quantize.attribution.attribute`."""
    from edgepack.quantize.attribution import attribute as run

    arrays = [samples.sample(i) for i in range(len(samples))]
    return run(tflite, quantized, arrays, output, columns, axis, own_ranges=own_ranges)


def _pairs(ranges: Mapping[str, Sequence[float]]) -> dict[str, Range]:
    return {key: (low, high) for key, (low, high) in ranges.items()}


def _ranges(tflite: bytes, rule: SchemeRule, calibration: bytes, method: str) -> Mapping[str, Range]:
    """Return the range of each tensor of a float model."""
    from edgepack.graph.fake_quant import learned_ranges
    from edgepack.quantize.calibrate import Calibration
    from edgepack.quantize.ranges import DEFAULT_METHOD, choose_ranges

    statistics, model = Calibration.from_bytes(calibration), read_model(tflite)
    bits = 16 if get_scheme(rule.scheme).activations == "INT16" else 8
    return choose_ranges(
        statistics, model, method or DEFAULT_METHOD, activation_bits=bits, learned=learned_ranges(tflite)
    )


LOAD_PACKAGES = Job(load_packages, QuantizationError, "loading the runtime and the quantizer")
CALIBRATE = Job(calibrate, QuantizationError, "calibration")
QUANTIZE = Job(quantize, QuantizationError, "quantization")
CARRY_RANGES = Job(carry_ranges, QuantizationError, "writing the ranges for TFLiteConverter's quantizer")
ADOPT = Job(adopt, QuantizationError, "finishing the file of TFLiteConverter's quantizer")
RUN_PTQ_STEPS = Job(run_ptq_steps, QuantizationError, "the search for int8 ranges and weights")
QUANTIZE_WITH_RANGES = Job(quantize_with_ranges, QuantizationError, "quantization")
QUANTIZE_MIXED = Job(quantize_mixed, QuantizationError, "the search for ops that need more precision than int8")

PROVE_EQUIVALENCE = Job(prove_on, UnfitModelError, "running the model before and after the rewrites")
EVALUATE = Job(evaluate, UnfitModelError, "running the model on the samples")
COUNT_HITS = Job(count_hits, UnfitModelError, "running the float model on labelled samples")
LAYER_ERRORS = Job(layer_errors, UnfitModelError, "running the model layer by layer")
ATTRIBUTE = Job(attribute, UnfitModelError, "measuring single tensors in int8")
LATENCY = Job(latency, UnfitModelError, "timing the model")
GOLDEN_VECTORS = Job(golden_vectors, UnfitModelError, "running the model for golden vectors")
KERNEL_SPREAD = Job(kernel_spread, UnfitModelError, "comparing the runtime's kernels")
