"""What all targets of one build share: the float model, the samples, and what is known about them."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from edgepack.convert import FloatModel
from edgepack.graph import read_model
from edgepack.graph.metadata import ModelInfo
from edgepack.pipeline.float_model import SourceModel, convert_model
from edgepack.pipeline.input_values import choose_preprocess
from edgepack.pipeline.model_info import (
    describe_model,
    labelled_output,
    own_metadata,
    read_labels,
    read_model_toml,
    with_metadata,
)
from edgepack.pipeline.option_validation import bundle_name
from edgepack.pipeline.options import BuildOptions, Progress, silent
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, to_json_bytes
from edgepack.pipeline.stopwatch import Stopwatch
from edgepack.pipeline.task import TaskChoice, choose_task, require_task
from edgepack.runtime.memory import require_memory
from edgepack.runtime.runner import model_outputs
from edgepack.samples import Preprocess, SampleSet, SampleSource, lint, load_samples
from edgepack.samples.specs import input_specs
from edgepack.training import require_labels


@dataclass(frozen=True)
class BuildContext:
    """What all targets of one build share.

    Attributes:
        options: The user's options.
        session: Child processes, cache and progress.
        report: Called with a line for each trial of a search; shown also where nobody watches progress.
        name: Name of the bundles.
        path: The user's model.
        float_model: The model as a float .tflite.
        source: Format, size and digest of the user's file.
        notes: Assumptions about the model and the samples.
        samples: Calibration samples, None without.
        training: Labelled training samples, None without.
        evaluation: Samples to measure on, None without.
        info: Names, pixel normalisation and labels of the model, its inputs and its outputs.
        own_info: The same from the model's own metadata, None without.
        new_info: True when `info` holds more than the model's own metadata.
        convert_seconds: Duration of the conversion.
        warnings: What makes the results of every target doubtful, such as a float model that guesses.
        task: What the outputs mean.
    """

    options: BuildOptions
    session: Session
    report: Progress
    name: str
    path: Path
    float_model: FloatModel
    source: SourceModel
    notes: tuple[str, ...]
    samples: SampleSet | None
    training: SampleSet | None
    evaluation: SampleSet | None
    info: ModelInfo
    own_info: ModelInfo | None
    new_info: bool
    convert_seconds: float
    warnings: tuple[str, ...] = ()
    task: TaskChoice = field(default_factory=TaskChoice)

    @property
    def measured_on(self) -> SampleSet | None:
        """The evaluation samples, else the calibration samples, None without either."""
        return self.samples if self.evaluation is None else self.evaluation

    def shipped(self, tflite: bytes) -> bytes:
        """Return a quantized file as it goes into the bundle: with the model's names and labels as TFLite metadata."""
        return with_metadata(tflite, self.info, self.float_model.tflite, self.own_info, new=self.new_info)


def prepare(path: Path, options: BuildOptions, session: Session, report: Progress = silent) -> BuildContext:
    """Convert the model, read the samples, and find preprocessing, labels and metadata.

    Args:
        path: The user's model.
        options: The user's options.
        session: Child processes, cache and progress.
        report: Called with a line for each trial of a search.

    Raises:
        EdgepackError: An option is not valid, the model cannot be read, samples do not match.
    """
    watch = Stopwatch()
    labels = read_labels(options.labels) if options.labels is not None else ()
    with watch.stage("convert"):
        float_model, source = convert_model(session, path)
    notes = list(float_model.notes)
    inputs = input_specs(float_model.tflite)
    model = read_model(float_model.tflite)
    require_memory(model)
    own, unreadable = own_metadata(float_model.tflite)
    notes.extend(unreadable)
    toml = read_model_toml(options.metadata, model) if options.metadata is not None else None

    @cache
    def load(source: SampleSource, preprocess: Preprocess | None) -> SampleSet:
        """Read a source once: folders are hashed, and the user's functions run."""
        return load_samples(source, inputs, preprocess=preprocess, classes=labels, resize=options.resize)

    found = choose_preprocess(session, float_model, (toml, own), options, load)
    preprocess = found.preprocess
    samples = load(options.samples, preprocess) if options.samples else None
    training = load(options.train, preprocess) if options.train else None
    if training is not None:
        require_labels(training)
    samples = training if samples is None else samples
    evaluation = load(options.eval, preprocess) if options.eval else None
    notes.extend(found.notes)
    for loaded in (samples, evaluation):
        notes.extend(note for note in (loaded.notes if loaded else ()) if note not in notes)
    if samples is not None:
        samples = samples.limited(options.calibration_samples)
        notes.extend(_mistakes(session, float_model, samples, evaluation, scales_itself=found.scales_itself))
    name = bundle_name(path, options)
    images = next((loaded.preprocess for loaded in (samples, evaluation) if loaded and loaded.images), None)
    names = labels or (evaluation.label_names if evaluation else ())
    task = choose_task(session, float_model.tflite, model, options.task, labels=names, described=(toml, own))
    require_task(task.spec, evaluation)
    if not labels and labelled_output(model_outputs(model), names) is None:
        # Folders name the samples' classes, not the outputs of a model that returns class numbers.
        names = ()
    notes.extend(task.notes)
    names = () if task.owns_labels else names
    info = describe_model(model, name=name, own=own, toml=toml, labels=names, preprocess=preprocess or images)
    return BuildContext(
        options=options,
        session=session,
        report=report,
        name=name,
        path=path,
        float_model=float_model,
        source=source,
        notes=tuple(notes),
        samples=samples,
        training=training,
        evaluation=evaluation,
        info=info,
        own_info=own,
        new_info=info != describe_model(model, name=name, own=own),
        convert_seconds=watch.seconds["convert"],
        warnings=found.warnings,
        task=task,
    )


def _mistakes(
    session: Session,
    float_model: FloatModel,
    samples: SampleSet,
    evaluation: SampleSet | None,
    *,
    scales_itself: bool,
) -> tuple[str, ...]:
    """Return the warnings of `lint`, which reads up to 500 samples: of a folder of photographs, seconds of decoding."""
    inputs = {
        "sets": [None if one is None else [one.digest, one.source] for one in (samples, evaluation)],
        # Its inputs decide how a file becomes samples.
        "model": float_model.tflite,
        "scales_itself": scales_itself,
    }
    return session.steps.memoize(
        "lint", inputs, _NOTES, lambda: tuple(lint(samples, evaluation, scales_itself=scales_itself))
    )


_NOTES: Codec[tuple[str, ...]] = Codec(
    lambda notes: {"notes.json": to_json_bytes(notes)}, lambda files: tuple(json.loads(files["notes.json"]))
)
