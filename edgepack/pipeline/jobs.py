"""Every job that a command runs in a child process: what runs, and which error its failure becomes.

The runtime and the quantizer are native code that can abort on a model they do not expect; in a child process that is
an error with an exit code instead of the end of the command. One kind of work has one error class, whichever command
and whichever way leads to it: quantization fails with `QuantizationError` (exit code 4), and a file that does not load
or run with `UnfitModelError` (exit code 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgepack.child import Job, emit
from edgepack.choices import Effort
from edgepack.convert.environment import import_tensorflow
from edgepack.errors import QuantizationError, SamplesError, UnfitModelError
from edgepack.graph import read_model
from edgepack.graph.unused import share_equal_constants
from edgepack.pipeline.simulation.measure import compare_ops, run_simulation
from edgepack.pipeline.step_cache import component_versions
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.attribution import Attribution
from edgepack.quantize.quantizer import Quantized
from edgepack.quantize.ranges import Range
from edgepack.repair.equivalence import prove_on
from edgepack.runtime.evaluate import evaluate, evaluate_samples, golden_vectors, kernel_spread, synthetic_samples
from edgepack.runtime.input_values import count_hits
from edgepack.runtime.layers import layer_errors
from edgepack.runtime.runner import model_inputs
from edgepack.runtime.timing import latency
from edgepack.samples import SampleSet
from edgepack.samples.pictures import draw_samples
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
        refused: Why ai-edge-quantizer does not quantize the model, so that the steps were judged on files of
            TFLiteConverter's quantizer; empty where they were not.
        settings: Settings of the kept steps, for a target with another granularity of dense layers.
    """

    tflite: bytes
    ranges: Mapping[str, Range]
    report: Mapping[str, Any]
    refused: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MixedResult:
    """An int8 file in which single ops keep more precision.

    Attributes:
        file: The file.
        report: Which ops were kept and what that gained.
    """

    file: Quantized
    report: Mapping[str, Any]


@dataclass(frozen=True)
class FinishedPart:
    """A part of the PTQ steps that a killed run does not compute again.

    Attributes:
        name: Stands for what it depends on.
        data: Its content.
    """

    name: str
    data: bytes


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


def choose_ranges(tflite: bytes, rule: SchemeRule, calibration: bytes, method: str) -> Mapping[str, Range]:
    """Return the range of each activation of a float model by one method.

    Args:
        tflite: The float model.
        rule: The scheme with the target's constraints.
        calibration: Result of `calibrate`.
        method: Range method; empty for the default.
    """
    return _ranges(tflite, rule, calibration, method)


def quantize_with_converter(
    tflite: bytes, rule: SchemeRule, ranges: Mapping[str, Sequence[float]], samples: SampleSet | int
) -> Quantized:
    """Return the int8 file that TFLiteConverter's quantizer makes with given ranges, with the float model's interface.

    It loads TensorFlow, which can abort the process.

    Args:
        tflite: The float model.
        rule: An int8 rule.
        ranges: (low, high) of each activation by tensor key, as returned or read from JSON. Inputs and outputs that the
            quantizer leaves in float become integers with theirs.
        samples: Calibration samples, or how many random ones: only for ops with ranges inside, such as LSTM.

    Raises:
        QuantizationError: The quantizer fails, or the runtime does not load its file.
    """
    from edgepack.convert.mlir_quantize import mlir_quantize
    from edgepack.quantize.quantizer import adopt, with_ranges

    pairs = _pairs(ranges)
    converted = mlir_quantize(
        with_ranges(tflite, pairs),
        io=rule.io,
        fully_connected=rule.fully_connected,
        weights=rule.weights,
        activations=get_scheme(rule.scheme).activations,
        samples=samples,
    )
    return adopt(converted, tflite, rule, f"TFLiteConverter {component_versions()['tensorflow']}", pairs)


def run_ptq_steps(
    tflite: bytes,
    rule: SchemeRule,
    samples: SampleSet,
    effort: str,
    off: Sequence[str] = (),
    *,
    with_converter: bool = False,
    finished: Mapping[str, bytes] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> PtqResult:
    """Choose ranges, weights and biases by the error that they cause in the integer file.

    Progress is emitted as `(step, part, parts)`, and each `FinishedPart`. More effort than low loads TensorFlow, for
    gradients.

    Args:
        tflite: A float model.
        rule: An int8 rule.
        samples: Calibration samples; of more than `MOST_SAMPLES`, evenly spaced ones are used.
        effort: `low`, `medium` or `high`.
        off: Steps to leave out (`edgepack.quantize.ptq.steps.STEPS`).
        with_converter: Judge files of TFLiteConverter's quantizer, which loads TensorFlow.
        finished: Parts of an earlier run with the same arguments, by name.
        settings: `PtqResult.settings` for a rule that differs in the granularity of dense layers only.

    Raises:
        QuantizationRefused: ai-edge-quantizer cannot quantize the model.
        QuantizationError: The model cannot be calibrated, or TFLiteConverter's quantizer cannot quantize it.
    """
    from edgepack.quantize.ptq.checkpoint import Checkpoint
    from edgepack.quantize.ptq.steps import improve

    if effort != Effort.LOW:
        # Gradients are computed with the same settings of TensorFlow as everything else.
        import_tensorflow()
    used = samples.limited(MOST_SAMPLES)
    arrays = [used.sample(i) for i in range(len(used))]

    def convert(model: bytes, rule: SchemeRule, ranges: Mapping[str, Range]) -> bytes:
        return quantize_with_converter(model, rule, ranges, used).tflite

    result = improve(
        tflite,
        rule,
        arrays,
        effort,
        off=off,
        progress=lambda step, part, parts: emit((step, part, parts)),
        quantize_file=convert if with_converter else None,
        checkpoint=Checkpoint(finished, lambda name, data: emit(FinishedPart(name, data))),
        settings=settings,
    )
    report = {"effort": effort, "samples": len(arrays), **result.to_json()}
    return PtqResult(result.tflite, result.ranges, report, settings=result.settings)


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

    quantized = quantizer.quantize(tflite, rule, _pairs(ranges))
    return replace(quantized, tflite=share_equal_constants(quantized.tflite))


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
CHOOSE_RANGES = Job(choose_ranges, QuantizationError, "choosing int8 ranges")
QUANTIZE_WITH_CONVERTER = Job(
    quantize_with_converter,
    QuantizationError,
    "quantization with TFLiteConverter",
    hint="build float16, or dynamic-range where the target supports it",
)
RUN_PTQ_STEPS = Job(run_ptq_steps, QuantizationError, "the search for int8 ranges and weights")
QUANTIZE_WITH_RANGES = Job(quantize_with_ranges, QuantizationError, "quantization")
QUANTIZE_MIXED = Job(quantize_mixed, QuantizationError, "the search for ops that need more precision than int8")

PROVE_EQUIVALENCE = Job(prove_on, UnfitModelError, "running the model before and after the rewrites")
EVALUATE = Job(evaluate_samples, UnfitModelError, "running the model on the samples")
COUNT_HITS = Job(count_hits, UnfitModelError, "running the float model on labelled samples")
PICTURES = Job(draw_samples, SamplesError, "drawing samples")
LAYER_ERRORS = Job(layer_errors, UnfitModelError, "running the model layer by layer")
ATTRIBUTE = Job(attribute, UnfitModelError, "measuring single tensors in int8")
LATENCY = Job(latency, UnfitModelError, "timing the model")
GOLDEN_VECTORS = Job(golden_vectors, UnfitModelError, "running the model for golden vectors")
KERNEL_SPREAD = Job(kernel_spread, UnfitModelError, "comparing the runtime's kernels")
RUN_SIMULATION = Job(run_simulation, UnfitModelError, "running the compiled file on the simulator")
COMPARE_OPS = Job(compare_ops, UnfitModelError, "comparing the ops of the compiled file with the CPU's")
