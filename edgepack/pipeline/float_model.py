"""The first stage: the user's model as one float .tflite, converted once for all targets."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgepack.convert import ConvertOptions, FloatModel, convert
from edgepack.convert.importers.registry import importer_for
from edgepack.digests import Snapshot
from edgepack.errors import ModelFileError
from edgepack.graph.fake_quant import learned_ranges
from edgepack.pipeline.jobs import LOAD_PACKAGES
from edgepack.pipeline.options import ModelOptions
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, to_json_bytes

#: Name of the step that converts a model.
CONVERT = "convert"


@dataclass(frozen=True)
class SourceModel:
    """The user's file.

    Attributes:
        format: Id of the importer that read it: `keras`, `h5`, `saved_model`, `tflite` or a plugin's.
        bytes: Size of the file, of a folder with everything in it.
        sha256: Digest of the file, or of a folder's names and contents.
    """

    format: str
    bytes: int
    sha256: str


def convert_model(session: Session, path: Path) -> tuple[FloatModel, SourceModel]:
    """Convert the user's model; a .tflite is read without conversion.

    Raises:
        EdgepackError: The model cannot be read or converted.
    """
    model_options = session.options
    importer, options = importer_for(path), _convert_options(model_options)

    def compute() -> FloatModel:
        if importer.needs_tensorflow:
            session.progress(f"converting {path.name} (TensorFlow, in a child process)")
            session.workers.warm(LOAD_PACKAGES.call())
            session.start_converting()
        return convert(
            path,
            worker=session.workers.tensorflow,
            options=options,
            timeout=model_options.timeout,
            log_dir=session.steps.cache.root / "logs",
        )

    snapshot = take_snapshot(path)
    inputs = conversion_inputs(path, snapshot, model_options)
    # Code that a model imports may do anything and read any file, so that no key can cover it.
    model = session.steps.memoize(CONVERT, inputs, _CODEC, compute, store=not options.allow_code)
    if learned := learned_ranges(model.tflite):
        note = f"the model was trained for int8: its ranges of {len(learned)} activations are used"
        model = replace(model, notes=(*model.notes, note))
    return model, SourceModel(model.source_format, snapshot.size, snapshot.digest)


def conversion_inputs(path: Path, snapshot: Any, options: ModelOptions) -> dict[str, Any]:
    """Return everything that a conversion depends on, the inputs of the step `CONVERT`.

    Args:
        path: The user's model.
        snapshot: Its snapshot, or another object with its `digest`.
        options: How the model is read.

    Raises:
        EdgepackError: No importer reads this file.
    """
    return {"model": snapshot, "importer": importer_for(path).fingerprint, "options": _convert_options(options)}


def _convert_options(options: ModelOptions) -> ConvertOptions:
    return ConvertOptions(
        input_shapes=dict(options.input_shapes), allow_code=options.allow_code, signature=options.signature
    )


def take_snapshot(path: Path) -> Snapshot:
    """Return the digest of a model file or folder with everything that a reader sees in it.

    Raises:
        ModelFileError: A file cannot be read, or is not a regular file.
    """
    try:
        return Snapshot.take(path)
    except OSError as error:
        place = os.fsdecode(error.filename or path)
        raise ModelFileError(
            f"cannot read '{place}': {error.strerror or error}", hint="a model consists of regular files"
        ) from error


def _encode(model: FloatModel) -> Mapping[str, bytes]:
    meta = asdict(model)
    del meta["tflite"]
    return {"model.tflite": model.tflite, "meta.json": to_json_bytes(meta)}


def _decode(files: Mapping[str, bytes]) -> FloatModel:
    meta = json.loads(files["meta.json"])
    return FloatModel(tflite=files["model.tflite"], **{**meta, "notes": tuple(meta["notes"])})


_CODEC = Codec(_encode, _decode)
