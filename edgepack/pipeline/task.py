"""What the outputs of a build's model mean: as `--task` says, or as the file shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgepack.choices import Task
from edgepack.errors import UnfitModelError, UsageError
from edgepack.graph import Model
from edgepack.graph.metadata import ModelInfo
from edgepack.pipeline.golden import golden_vectors
from edgepack.pipeline.model_info import labelled_output
from edgepack.pipeline.session import Session
from edgepack.runtime.class_scores import output_kinds
from edgepack.runtime.evaluate import synthetic_samples
from edgepack.runtime.runner import model_inputs, model_outputs
from edgepack.samples import SampleSet
from edgepack.tasks import TaskSpec, classes_of, fault_of, parse
from edgepack.tasks.recognize import COCO_KEYPOINTS, recognize

#: Boxes in fractions of the input's size end at 1, and by an error of the model a little beyond; those in pixels cover
#: the whole input, so that one is far beyond.
_FRACTION = 2.0


@dataclass(frozen=True)
class TaskChoice:
    """What the outputs of a model mean.

    Attributes:
        spec: The task, None without one.
        labels: Names of its classes or key points, empty when they are unknown.
        owns_labels: True when the names belong to the task, and to no axis of an output.
        notes: How the task was found, as sentences.
    """

    spec: TaskSpec | None = None
    labels: tuple[str, ...] = ()
    owns_labels: bool = False
    notes: tuple[str, ...] = ()


def choose_task(
    session: Session,
    tflite: bytes,
    model: Model,
    text: str,
    *,
    labels: Sequence[str],
    described: Sequence[ModelInfo | None],
) -> TaskChoice:
    """Return what the outputs of a model mean.

    Args:
        session: Child processes and cache.
        tflite: The float model.
        model: The same as a graph.
        text: Value of `--task`, empty for what can be recognized.
        labels: Names of classes from the user or from folders of samples.
        described: A model.toml and the file's own metadata, None where there is none.

    Raises:
        UsageError: The text is wrong, or the outputs cannot have this meaning.
    """
    outputs = model_outputs(model)
    shapes = [tuple(info.shape) for info in outputs]
    known = {
        position: entry.labels
        for info in reversed(described)
        for position, entry in enumerate(info.outputs if info is not None else ())
        if entry.labels
    }
    notes: list[str] = []
    if text:
        spec = parse(text)
        if spec is None:
            return TaskChoice()
        if fault := fault_of(spec, shapes):
            raise UsageError(
                f"--task: the outputs of the model are no {spec.kind}: {fault}",
                hint="`edgepack inspect` shows the outputs; layout, output and other facts follow the task",
            )
    else:
        named = labelled_output(outputs, labels)
        kinds = output_kinds(model.main, shapes, [*known, *([] if named is None else [named])])
        inputs = [tuple(info.shape) for info in model_inputs(model)]
        found = recognize(model, inputs, shapes, classes=kinds.classes, labels=len(labels), labelled=list(known))
        if found is None:
            return TaskChoice()
        spec = found.spec
        if spec.kind not in (Task.CLASSIFICATION, Task.AUDIO):
            notes.append(f"the task is {spec.kind}: {found.why}; --task says otherwise")
        if found.units_unknown:
            spec = replace(spec, units=_units(session, tflite, model, spec))
    names = tuple(labels) or next((known[position] for position in spec.outputs if position in known), ())
    names = _matched(spec, names, classes_of(spec, shapes), given=bool(labels) and bool(text))
    owns = spec.kind in (Task.DETECTION, Task.KEYPOINTS) or spec.layout == "classes"
    return TaskChoice(spec, names, owns, tuple(notes))


def require_task(spec: TaskSpec | None, samples: SampleSet | None) -> None:
    """Check that samples with objects or masks have a task that they are the truth of.

    Raises:
        UsageError: The task is unknown, or another one.
    """
    if samples is None or samples.truth is None:
        return
    wanted = Task.DETECTION if samples.truth.objects else Task.SEGMENTATION
    if spec is None or spec.kind != wanted:
        found = "is not known" if spec is None else f"is {spec.kind}"
        raise UsageError(
            f"--eval: '{samples.source}' is for {wanted}, and the task of the model {found}",
            hint=f"say with --task {wanted},... what the outputs mean (docs/guides/use-results.md)",
        )


def _matched(spec: TaskSpec, names: tuple[str, ...], count: int, *, given: bool) -> tuple[str, ...]:
    """Return the names with one for each class, or none where their number does not fit.

    Raises:
        UsageError: The user gave both the task and names that do not fit it.
    """
    if not names and spec.kind == Task.KEYPOINTS and count == len(COCO_KEYPOINTS):
        return COCO_KEYPOINTS
    if not names or not count or len(names) == count:
        return names
    if spec.background and len(names) == count - 1:
        return ("background", *names)
    if given:
        raise UsageError(
            f"--labels: the {spec.kind} has {count} classes, got {len(names)} names",
            hint="give one name per class; with background=yes the first class may be left out",
        )
    return ()


def _units(session: Session, tflite: bytes, model: Model, spec: TaskSpec) -> str:
    """Return `pixel` or `fraction`, from the boxes of a run on random pixels; fractions where that fails."""
    try:
        cases = golden_vectors(session, tflite, synthetic_samples(model_inputs(model), 1)).cases
    except UnfitModelError:
        # Whether the model has to run here is for the stages that measure it to say.
        return "fraction"
    rows = np.asarray(cases[0][1][spec.output])[0].astype(np.float64)
    boxes = rows[:4] if spec.transposed else rows[:, :4]
    info = model_outputs(model)[spec.output]
    real = (boxes - info.zero_point) * info.scale if info.quantized else boxes
    return "pixel" if bool((real[np.isfinite(real)] > _FRACTION).any()) else "fraction"
