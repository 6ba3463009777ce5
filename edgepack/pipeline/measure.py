"""The measuring stages: what a file lost against the float model, how long it takes here, where the error is."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgepack.errors import UnfitModelError
from edgepack.graph.fake_quant import with_fake_quant
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.jobs import EVALUATE, LATENCY, LAYER_ERRORS
from edgepack.pipeline.search.loss import unjudged
from edgepack.pipeline.search.produce import QuantizedModel
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, to_json_bytes
from edgepack.repair import before_class_choice
from edgepack.runtime.answers import Answers, Evaluation
from edgepack.runtime.layers import LayerError
from edgepack.runtime.metrics import OutputQuality, Quality
from edgepack.runtime.postprocessing import PostprocessStep, scores
from edgepack.runtime.runner import needs_custom_ops
from edgepack.runtime.task_metrics import TaskQuality
from edgepack.runtime.timing import Latency
from edgepack.samples import SampleSet
from edgepack.tasks import TaskSpec


@dataclass(frozen=True)
class Measurement:
    """What was measured of a file.

    Attributes:
        quality: Loss against the float model, None without samples or where the file cannot run here.
        warnings: What the user should know about it.
        answers: The classes that the float model and the file chose, None where there are none or is no float model.
    """

    quality: Quality | None = None
    warnings: tuple[str, ...] = ()
    answers: Answers | None = None


def measure(context: BuildContext, quantized: QuantizedModel) -> Measurement:
    """Compare a file with the float model on the evaluation samples, else on the calibration samples.

    Raises:
        UnfitModelError: The file does not run here.
    """
    samples = context.measured_on
    if samples is None:
        return Measurement()
    try:
        evaluation = evaluate_file(
            context.session,
            reference_model(context, quantized),
            quantized.tflite,
            samples,
            scores(quantized.postprocessing),
            class_outputs(context, quantized.postprocessing),
            task_of(context),
        )
    except UnfitModelError as error:
        if not needs_custom_ops(error):
            raise
        # A custom op that the target's delegate runs: the file may be sound, it only does not run here.
        return Measurement(warnings=(f"not measured: {error.message}",))
    if context.float_model.quantized:
        quality = without_float_model(evaluation.quality)
        return Measurement(quality, unjudged(quality))
    return Measurement(evaluation.quality, unjudged(evaluation.quality), evaluation.answers)


def without_float_model(quality: Quality) -> Quality:
    """Return what is known where there is no float model to compare with: only the file's own accuracy."""
    return replace(
        quality, snr_db=None, logits_snr_db=None, agreement=None, top1_float=None, outputs=(), expected_drop=None
    )


def reference_model(context: BuildContext, quantized: QuantizedModel) -> bytes:
    """Return the float model that a file is compared with."""
    # A model that was trained with rounding is compared as it was trained: without rounding it is another model.
    trained = with_fake_quant(context.float_model.tflite)
    # Class numbers say nothing about the size of an error: compare the scores they were chosen from.
    return before_class_choice(trained, quantized.postprocessing)


def class_outputs(context: BuildContext, postprocessing: tuple[PostprocessStep, ...] = ()) -> tuple[int, ...]:
    """Return the positions of the outputs that have class names, or that the loader chooses the class from."""
    named = {at for at, entry in enumerate(context.info.outputs) if entry.labels}
    return tuple(sorted(named | {step.output for step in postprocessing if step.op == "ARG_MAX"}))


def task_of(context: BuildContext) -> tuple[TaskSpec, tuple[str, ...]] | None:
    """Return what the outputs mean, with the names of the classes, where the samples have a truth to compare with."""
    samples, choice = context.measured_on, context.task
    if samples is None or samples.truth is None or choice.spec is None:
        return None
    return choice.spec, choice.labels


def measure_quality(
    session: Session,
    reference: bytes,
    tflite: bytes,
    samples: SampleSet,
    task: tuple[TaskSpec, tuple[str, ...]] | None = None,
) -> Quality:
    """Return what a file lost against a reference on the samples; see `evaluate_file`."""
    return evaluate_file(session, reference, tflite, samples, task=task).quality


def evaluate_file(
    session: Session,
    reference: bytes,
    tflite: bytes,
    samples: SampleSet,
    postprocessing: tuple[PostprocessStep, ...] = (),
    named: Collection[int] = (),
    task: tuple[TaskSpec, tuple[str, ...]] | None = None,
) -> Evaluation:
    """Return what a file lost against a reference on the samples, and its answers.

    Args:
        session: Child processes and cache.
        reference: The .tflite to compare with.
        tflite: The file.
        samples: Samples, with labels where accuracy is of interest.
        postprocessing: Steps that the reference has and the file leaves to the loader.
        named: Positions of outputs known to hold class scores.
        task: What the outputs mean, with the names of its classes; None where no truth is to be compared with.

    Raises:
        UnfitModelError: One of both does not run here.
    """

    def compute() -> Evaluation:
        session.progress(f"measuring on {len(samples)} samples")
        return session.workers.run(EVALUATE.call(reference, {"": tflite}, samples, postprocessing, named, task))[""]

    inputs = {
        "reference": reference,
        "model": tflite,
        "samples": samples,
        "postprocessing": [step.to_json() for step in postprocessing],
        "named": sorted(named),
        **({} if task is None else {"task": [task[0].to_json(), list(task[1])]}),
    }
    return session.steps.memoize("measure", inputs, _EVALUATION, compute)


def measure_layers(session: Session, reference: bytes, tflite: bytes, samples: SampleSet) -> tuple[LayerError, ...]:
    """Return the error of each layer of an integer file."""

    def compute() -> tuple[LayerError, ...]:
        errors = session.workers.run(LAYER_ERRORS.call(reference, tflite, samples))
        return tuple(errors)

    inputs = {"reference": reference, "model": tflite, "samples": samples}
    return session.steps.memoize("layers", inputs, _LAYERS, compute)


def measure_latency(session: Session, tflite: bytes) -> Latency | None:
    """Return how long a file takes on this machine, None when it does not run here.

    The figure is never cached: a machine's load changes.
    """
    session.progress("timing on this machine")
    try:
        return session.workers.run(LATENCY.call(tflite))
    except UnfitModelError:
        return None


def quality_from(fields: Mapping[str, Any]) -> Quality:
    """Return figures from the JSON of their `asdict`."""
    outputs = tuple(
        OutputQuality(
            **{
                **entry,
                "columns": tuple(entry["columns"]),
                "interval": None if entry["interval"] is None else tuple(entry["interval"]),
                "changed_interval": None if entry["changed_interval"] is None else tuple(entry["changed_interval"]),
            }
        )
        for entry in fields["outputs"]
    )
    task = fields.get("task")
    if task is not None:
        task = TaskQuality(**{**task, "interval": None if task["interval"] is None else tuple(task["interval"])})
    return Quality(**{**fields, "collapsed": tuple(fields["collapsed"]), "outputs": outputs, "task": task})


def _evaluation_from(fields: Mapping[str, Any]) -> Evaluation:
    answers = fields["answers"]
    if answers is None:
        return Evaluation(quality_from(fields["quality"]))
    columns: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in answers.items()
    }
    return Evaluation(quality_from(fields["quality"]), Answers(**columns))


_EVALUATION: Codec[Evaluation] = Codec(
    lambda evaluation: {"evaluation.json": to_json_bytes(asdict(evaluation))},
    lambda files: _evaluation_from(json.loads(files["evaluation.json"])),
)
_LAYERS: Codec[tuple[LayerError, ...]] = Codec(
    lambda layers: {"layers.json": to_json_bytes([asdict(layer) for layer in layers])},
    lambda files: tuple(LayerError(**fields) for fields in json.loads(files["layers.json"])),
)
