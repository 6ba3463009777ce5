"""`train`: a Keras model trained for its target, written as OUT.tflite with a JSON report."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgepack.bundle.manifest import to_json_bytes
from edgepack.choices import IoType, Recipe, Resize, parse_choice
from edgepack.convert.importers.registry import require_trainable
from edgepack.digests import sha256
from edgepack.errors import UsageError
from edgepack.files import write_atomically
from edgepack.limits import TRAINING_SECONDS
from edgepack.pipeline.float_model import convert_model
from edgepack.pipeline.input_values import AUTO, preprocess_for
from edgepack.pipeline.measure import measure_quality
from edgepack.pipeline.option_validation import require_file, require_sources
from edgepack.pipeline.options import ModelOptions, Progress, silent
from edgepack.pipeline.search.loss import to_json as judged_figures
from edgepack.pipeline.session import Session
from edgepack.pipeline.training import OnEvent, read_labelled, train_model
from edgepack.profiles.model import SchemeRule
from edgepack.runtime.metrics import Quality
from edgepack.samples import Preprocess, SampleSource
from edgepack.training import Trained, TrainOptions
from edgepack.training.report import gzip_size


@dataclass(frozen=True)
class TrainRequest:
    """Options of `train`.

    Attributes:
        model: How the model is read; its time limit is that of the conversion to float.
        data: Source of labelled samples.
        validation: Source of labelled samples to measure on, empty for none.
        recipe: Training recipe.
        options: Epochs, sparsity, clusters and so on.
        io: Data type of the inputs and outputs of an int8 file.
        preprocess: `MEAN,STD` of pixels; empty for the default.
        resize: How an image gets the size of the input.
        timeout: Seconds that the training may take.
        out: Where the files go, without suffix; a suffix of .tflite is removed.
        force: Replace existing files.
    """

    data: SampleSource
    recipe: Recipe
    out: Path
    model: ModelOptions = field(default_factory=ModelOptions)
    validation: SampleSource = ""
    options: TrainOptions = field(default_factory=TrainOptions)
    io: IoType = IoType.INT8
    preprocess: str = ""
    resize: Resize = Resize.STRETCH
    timeout: float = TRAINING_SECONDS
    force: bool = False

    def __post_init__(self) -> None:
        """Convert texts to enums; `object.__setattr__` because the class is frozen."""
        object.__setattr__(self, "recipe", parse_choice("--recipe", Recipe, self.recipe))
        object.__setattr__(self, "resize", parse_choice("--resize", Resize, self.resize))
        object.__setattr__(self, "io", parse_choice("--io", IoType, self.io))


@dataclass(frozen=True)
class TrainResult:
    """Result of `train`.

    Attributes:
        trained: The model.
        recipe: The recipe.
        quality: Loss against the float model on the validation samples, None without them.
        float_bytes: Size of the float .tflite before training.
        float_gzip_bytes: The same, compressed with gzip.
        tflite: Path of the file.
        report: Path of the JSON report.
    """

    trained: Trained
    recipe: str
    quality: Quality | None
    float_bytes: int
    float_gzip_bytes: int
    tflite: Path
    report: Path

    def to_json(self) -> dict[str, Any]:
        """Return the one entry of `results` of `train --json`; the report file holds the same without paths."""
        return {"model": str(self.tflite), "report_file": str(self.report), **self.document()}

    def document(self) -> dict[str, Any]:
        """Return the content of the report file."""
        return {
            "recipe": self.recipe,
            "scheme": "int8-qat" if self.trained.quantized else "float32",
            "sha256": sha256(self.trained.tflite),
            "float_bytes": self.float_bytes,
            "float_gzip_bytes": self.float_gzip_bytes,
            "report": self.trained.report.to_json(),
            "quality": judged_figures(self.quality),
            "history": list(self.trained.history),
            "left_float": list(self.trained.left_float),
            "notes": list(self.trained.notes),
        }


def validate_train(model: Path, request: TrainRequest) -> tuple[Path, Path]:
    """Check the options of a training.

    Args:
        model: The user's model.
        request: The options.

    Returns:
        Paths of the .tflite and of the JSON report that the training writes.

    Raises:
        UsageError: A file does not exist, an option has a wrong value, or an output exists and `force` is not set.
        TransformError: The model is not a Keras file.
    """
    request.options.require_valid(request.recipe)
    require_file("", model)
    require_trainable(model)
    require_sources({"--data": request.data, "--validation": request.validation})
    if request.preprocess not in ("", AUTO):
        Preprocess.parse(request.preprocess)
    stem = str(request.out).removesuffix(".tflite")
    if not Path(stem).name:
        raise UsageError(f"--out: expected a file name, got '{request.out}'")
    outputs = (Path(f"{stem}.tflite"), Path(f"{stem}.json"))
    for file in outputs:
        if file.exists() and not request.force:
            raise UsageError(f"'{file}' already exists", hint="choose another --out, or replace it with --force")
    return outputs


def run(path: Path, request: TrainRequest, progress: Progress = silent, on_event: OnEvent | None = None) -> TrainResult:
    """Train a model and write OUT.tflite and OUT.json.

    Args:
        path: .keras or .h5.
        request: The user's options.
        progress: Called with a sentence about each step that takes time.
        on_event: Called with each epoch's figures.

    Raises:
        EdgepackError: The request is not valid, or training failed; nothing is written then.
    """
    tflite, report = validate_train(path, request)
    with Session(request.model, progress) as session:
        float_model = convert_model(session, path)[0]
        reference = float_model.tflite
        preprocess = preprocess_for(session, float_model, request.preprocess, request.data)
        data = read_labelled(request.data, reference, preprocess, request.resize)
        validation = None
        if request.validation:
            validation = read_labelled(request.validation, reference, preprocess, request.resize)
        trained = train_model(
            session,
            path,
            reference,
            data,
            request.recipe,
            request.options,
            rule=SchemeRule("int8-qat", io=request.io.upper()),
            validation=validation,
            on_event=on_event,
            timeout=request.timeout,
        )
        quality = None
        if validation is not None:
            quality = replace(measure_quality(session, reference, trained.tflite, validation), trained=True)
    result = TrainResult(
        trained, request.recipe, quality, len(reference), gzip_size(reference), tflite, report
    )  # fmt: skip
    write_atomically(tflite, trained.tflite)
    write_atomically(report, to_json_bytes(result.document()))
    return result
