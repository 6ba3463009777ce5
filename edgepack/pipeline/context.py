"""What all targets of one build share: the model, the samples, and what was found about them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from edgepack.convert import FloatModel
from edgepack.errors import UnfitModelError, UsageError
from edgepack.graph import read_model
from edgepack.graph.metadata import ModelInfo
from edgepack.pipeline.model_info import (
    describe_model,
    labelled_output,
    own_metadata,
    pixel_rule,
    read_labels,
    read_model_toml,
    with_metadata,
)
from edgepack.pipeline.options import BuildOptions, Progress
from edgepack.pipeline.results import TargetResult
from edgepack.pipeline.session import Session
from edgepack.pipeline.train import labelled
from edgepack.repair import before_class_choice
from edgepack.runtime.postprocessing import scores
from edgepack.runtime.runner import model_inputs, model_outputs
from edgepack.samples import Preprocess, SampleSet, lint, load_samples
from edgepack.samples.specs import input_specs


@dataclass
class BuildContext:
    """What all targets of one build share.

    Attributes:
        options: What the user asked for.
        session: Owner of the cache and the child processes.
        progress: Told what is being done.
        tell: Told what everybody should read, watching or not: each rung of the ladder.
        name: Name of the bundles.
        float_model: The model, converted to a float .tflite.
        source: `{format, bytes, sha256}` of the user's model.
        notes: What was assumed about the model and the samples.
        path: The user's model.
        samples: Samples to calibrate on, None without.
        training: Labelled samples to train on, None without.
        evaluation: Samples to measure on, None without.
        info: What is known of the model, its inputs and outputs: names, pixels, labels.
        own_info: What the model's own metadata says, None without.
        new_info: True when `info` says what the model's own metadata does not.
        convert_seconds: How long the conversion took.
    """

    options: BuildOptions
    session: Session
    progress: Progress
    tell: Progress
    name: str
    float_model: FloatModel
    source: dict[str, Any]
    notes: list[str]
    path: Path
    samples: SampleSet | None
    training: SampleSet | None
    evaluation: SampleSet | None
    info: ModelInfo
    own_info: ModelInfo | None
    new_info: bool
    convert_seconds: float

    @classmethod
    def prepare(cls, path: Path, options: BuildOptions, session: Session, progress: Progress, tell: Progress) -> Self:
        """Convert the model and read the samples.

        Raises:
            EdgepackError: An option makes no sense, the model cannot be read, samples do not match.
        """
        watch = TargetResult("").stopwatch
        if options.per_tensor and options.scheme == "int8-qat":
            raise UsageError(
                "--per-tensor: training for int8-qat makes one scale per channel",
                hint="leave --per-tensor out, or take --scheme int8",
            )
        labels = read_labels(options.labels) if options.labels is not None else ()
        with watch.step("convert"):
            float_model, source = session.float_model(path)
        notes = list(float_model.notes)
        inputs = input_specs(float_model.tflite)
        model = read_model(float_model.tflite)
        own, unread = own_metadata(float_model.tflite)
        notes.extend(unread)
        toml = read_model_toml(options.metadata, model) if options.metadata is not None else None
        preprocess = Preprocess.parse(options.preprocess) if options.preprocess else None
        for said in (toml, own):
            preprocess = preprocess or (None if said is None else pixel_rule(said, model_inputs(model)))
        samples = load_samples(options.samples, inputs, preprocess=preprocess) if options.samples else None
        training = labelled(options.train, float_model.tflite, preprocess) if options.train else None
        samples = samples if samples is not None else training
        evaluation = load_samples(options.eval, inputs, preprocess=preprocess) if options.eval else None
        for found in (samples, evaluation):
            notes.extend(note for note in (found.notes if found else ()) if note not in notes)
        if samples is not None:
            samples = samples.limited(options.calibration_samples)
            notes.extend(lint(samples, evaluation))
        name = options.name or path.name.removesuffix("/").rsplit(".", 1)[0]
        images = next((found.preprocess for found in (samples, evaluation) if found and found.images), None)
        names = labels or (evaluation.label_names if evaluation else ())
        if not labels and labelled_output(model_outputs(model), names) is None:
            # Folders name the samples' classes, not the outputs of a model that gives class numbers.
            names = ()
        info = describe_model(model, name=name, own=own, toml=toml, labels=names, preprocess=preprocess or images)
        return cls(
            options=options,
            session=session,
            progress=progress,
            tell=tell,
            name=name,
            float_model=float_model,
            source=source,
            notes=notes,
            path=path,
            samples=samples,
            training=training,
            evaluation=evaluation,
            info=info,
            own_info=own,
            new_info=info != describe_model(model, name=name, own=own),
            convert_seconds=watch.seconds["convert"],
        )

    def with_metadata(self, tflite: bytes) -> bytes:
        """Return a file made of the model with what is known of it as standard TFLite metadata."""
        return with_metadata(tflite, self.info, self.float_model.tflite, self.own_info, new=self.new_info)

    def measure(self, result: TargetResult) -> None:
        """Hold the file against the float model on the evaluation samples, else on the calibration samples."""
        samples = self.evaluation or self.samples
        if samples is None or result.model is None:
            return
        # Classes are held against each other by their scores: two class numbers say nothing of how far off they are.
        reference = before_class_choice(self.float_model.tflite, result.tail)
        candidates = {result.scheme or "model": result.model}
        try:
            quality = self.session.qualities(reference, candidates, samples, scores(result.tail))
        except UnfitModelError as error:
            if not self.float_model.quantized:
                raise
            # A custom op of the user's own app: the file is sound, it only does not run here.
            result.warnings.append(f"not measured: {error.message}")
            return
        result.quality = next(iter(quality.values()))
        if self.float_model.quantized:
            # There is no float model to hold it against; only its own accuracy is known.
            result.quality = replace(result.quality, snr_db=None, agreement=None, top1_float=None)
        for name in result.quality.collapsed:
            text = f"output '{name}' has one value on all samples: the quantized model has collapsed"
            if text not in result.warnings:
                result.warnings.append(text)
