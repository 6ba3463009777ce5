"""Train a model with labelled data, and keep what came out by content hash."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgepack.cache import hash_path, key_of, sha256
from edgepack.child import Worker
from edgepack.errors import SamplesError, TransformError, UsageError
from edgepack.pipeline.model_info import preprocess_for
from edgepack.pipeline.options import ModelOptions, Progress, silent
from edgepack.pipeline.session import Session
from edgepack.profiles.model import SchemeRule
from edgepack.runtime.metrics import Quality
from edgepack.samples import Preprocess, SampleSet, load_samples
from edgepack.samples.specs import input_specs
from edgepack.train import FileReport, Trained, TrainOptions, train
from edgepack.train.report import gzip_size

#: Called with `{"step": text}` or the figures of an epoch: stage, epoch, epochs, loss, accuracy, seconds_left.
OnEvent = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class TrainRequest:
    """Everything `train` can be asked.

    Attributes:
        model: How the model is read; its timeout holds for the conversion to float.
        data: Source of labelled samples.
        validation: Source of labelled samples to measure on, empty for none.
        recipe: One of `edgepack.train.RECIPES`.
        options: Epochs, sparsity, clusters and the like.
        io: Type of inputs and outputs of an int8 file: `FLOAT32`, `INT8` or `UINT8`.
        preprocess: `MEAN,STD` of pixels; empty for the default.
        timeout: Seconds that the training may take, None for no limit.
        out: Where the files go, without suffix; a suffix of .tflite is taken off.
        force: Replace files that are there.
    """

    data: str
    recipe: str
    out: Path
    model: ModelOptions = field(default_factory=ModelOptions)
    validation: str = ""
    options: TrainOptions = field(default_factory=TrainOptions)
    io: str = "INT8"
    preprocess: str = ""
    timeout: float | None = None
    force: bool = False


@dataclass(frozen=True)
class TrainResult:
    """What `train` made.

    Attributes:
        trained: The model.
        quality: What the file lost against the float model on the validation samples, None without them.
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
        """Return what the report file says."""
        return {
            "recipe": self.recipe,
            "scheme": "int8-qat" if self.trained.quantized else "float32",
            "sha256": sha256(self.trained.tflite),
            "float_bytes": self.float_bytes,
            "float_gzip_bytes": self.float_gzip_bytes,
            "report": self.trained.report.to_json(),
            "quality": None if self.quality is None else self.quality.to_json(),
            "history": list(self.trained.history),
            "left_float": list(self.trained.left_float),
            "notes": list(self.trained.notes),
        }


def run(path: Path, request: TrainRequest, progress: Progress = silent, on_event: OnEvent | None = None) -> TrainResult:
    """Train a model and write OUT.tflite and OUT.json.

    Args:
        path: .keras or .h5.
        request: What the user asked for.
        progress: Told what is being done.
        on_event: Told each epoch's figures.

    Raises:
        EdgepackError: The request makes no sense, or training failed; nothing is written then.
    """
    request.options.require_valid(request.recipe)
    if request.io not in {"FLOAT32", "INT8", "UINT8"}:
        raise UsageError(f"--io: expected float32, int8 or uint8, got '{request.io.lower()}'")
    stem = str(request.out).removesuffix(".tflite")
    if not Path(stem).name:
        raise UsageError(f"--out: expected a file name, got '{request.out}'")
    tflite, report = Path(f"{stem}.tflite"), Path(f"{stem}.json")
    for file in (tflite, report):
        if file.exists() and not request.force:
            raise UsageError(f"'{file}' is already there", hint="give another --out, or replace it with --force")
    require_trainable(path)
    with Session(request.model, progress) as session:
        reference = session.float_model(path)[0].tflite
        pixels = preprocess_for(reference, request.preprocess)
        data = labelled(request.data, reference, pixels)
        validation = labelled(request.validation, reference, pixels) if request.validation else None
        trained = train_model(
            session,
            path,
            reference,
            data,
            request.recipe,
            request.options,
            rule=SchemeRule("int8-qat", io=request.io),
            validation=validation,
            on_event=on_event,
            timeout=request.timeout,
        )
        quality = None
        if validation is not None:
            quality = session.qualities(reference, {request.recipe: trained.tflite}, validation)[request.recipe]
    result = TrainResult(
        trained, request.recipe, quality, len(reference), gzip_size(reference), tflite, report
    )  # fmt: skip
    write_atomically(tflite, trained.tflite)
    write_atomically(report, json.dumps(result.document(), indent=2, sort_keys=True).encode() + b"\n")
    return result


def train_model(
    session: Session,
    path: Path,
    reference: bytes,
    data: SampleSet,
    recipe: str,
    options: TrainOptions,
    *,
    rule: SchemeRule | None = None,
    validation: SampleSet | None = None,
    on_event: OnEvent | None = None,
    timeout: float | None = None,
) -> Trained:
    """Train, or take the same training's result from the cache; go on where a killed run of it stopped.

    Args:
        session: Owner of the cache.
        path: .keras or .h5.
        reference: The float .tflite it converts to.
        data: Labelled samples, matched to the reference's inputs.
        recipe: One of `edgepack.train.RECIPES`.
        options: How to train.
        rule: What an int8 file has to look like.
        validation: Labelled samples to measure on after each epoch.
        on_event: Told what is being done and each epoch's figures.
        timeout: Seconds that the training may take.

    Raises:
        EdgepackError: See `edgepack.train.train`.
    """
    options.require_valid(recipe)
    require_trainable(path)
    parts = {
        "model": hash_path(path),
        "reference": sha256(reference),
        "data": data.digest,
        "validation": None if validation is None else validation.digest,
        "recipe": recipe,
        "options": asdict(options),
        "io": "FLOAT32" if rule is None else rule.io,
        "versions": {
            **session.versions,
            "train": _train_digest(),
            "tensorflow-model-optimization": version("tensorflow-model-optimization"),
        },
    }
    key = key_of("train", parts)
    files = session.cache.get(key)
    if files is not None:
        return _from_files(files)
    with contextlib.ExitStack() as stack:
        if session.cache.enabled:
            folder = session.cache.root / f".{key}.checkpoint"
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgepack-train-")))
        # A process of its own: training holds memory that the next conversion should not pay for.
        worker = stack.enter_context(Worker())
        trained = train(
            path,
            worker=worker,
            reference=reference,
            data=data,
            recipe=recipe,
            options=options,
            checkpoint_dir=folder,
            validation=validation,
            rule=rule,
            on_event=on_event,
            timeout=timeout,
        )
    session.cache.put(key, _to_files(trained))
    return trained


def event_text(event: Mapping[str, Any]) -> str:
    """Return what an event of training says: a step, or the figures of an epoch."""
    if "step" in event:
        return str(event["step"])
    measured = f", validation {100 * event['val_accuracy']:.2f} %" if "val_accuracy" in event else ""
    return (
        f"{event['stage']} epoch {event['epoch']} of {event['epochs']}: loss {event['loss']:.4f}, "
        f"accuracy {100 * event['accuracy']:.2f} %{measured}, {event['seconds_left']:.0f} s left"
    )


def require_trainable(path: Path) -> None:
    """Refuse what cannot be trained, before anything is converted.

    Raises:
        TransformError: Not a Keras file.
    """
    if path.is_dir() or path.suffix == ".tflite":
        folder = "a SavedModel" if (path / "saved_model.pb").is_file() else "a folder"
        kind = folder if path.is_dir() else "a .tflite"
        raise TransformError(
            f"'{path}' is {kind}, and only a Keras model can be trained",
            hint="give the .keras or .h5 that the model was saved as: model.save('model.keras')",
        )


def labelled(source: str, reference: bytes, preprocess: Preprocess | None) -> SampleSet:
    """Read labelled samples for a float model.

    Raises:
        SamplesError: They cannot be read, do not match, or have no labels.
    """
    inputs = input_specs(reference)
    found = load_samples(source, inputs, preprocess=preprocess)
    if found.labels is None:
        raise SamplesError(
            f"samples '{found.source}' have no labels, and training needs one per sample",
            hint="put them into the .npz as y, one class index per sample; or give a folder with one sub-folder of"
            " images per class",
        )
    return found


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        UsageError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error


def _to_files(trained: Trained) -> dict[str, bytes]:
    meta = {
        "quantized": trained.quantized,
        "history": list(trained.history),
        "left_float": list(trained.left_float),
        "report": trained.report.to_json(),
        "notes": list(trained.notes),
    }
    return {
        "model.tflite": trained.tflite,
        "float.tflite": trained.float_tflite,
        "meta.json": json.dumps(meta, sort_keys=True).encode(),
    }


def _from_files(files: Mapping[str, bytes]) -> Trained:
    meta = json.loads(files["meta.json"])
    return Trained(
        tflite=files["model.tflite"],
        float_tflite=files["float.tflite"],
        quantized=meta["quantized"],
        history=tuple(meta["history"]),
        left_float=tuple(meta["left_float"]),
        report=FileReport.from_json(meta["report"]),
        notes=tuple(meta["notes"]),
    )


def _train_digest() -> str:
    """Return a digest of the room's own code, so that a changed recipe never meets a stale result."""
    room = Path(__file__).resolve().parent.parent / "train"
    return sha256(b"".join(file.read_bytes() for file in sorted(room.glob("*.py"))))[:16]
