"""The first stage: the user's model as one float .tflite, converted once for all targets."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edgepack.cache import hash_path
from edgepack.convert import ConvertOptions, FloatModel, convert
from edgepack.convert.importers.registry import importer_for
from edgepack.pipeline.jobs import LOAD_PACKAGES
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, to_json_bytes


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
    importer = importer_for(path)
    options = ConvertOptions(
        input_shapes=dict(model_options.input_shapes),
        allow_code=model_options.allow_code,
        signature=model_options.signature,
    )

    def compute() -> FloatModel:
        if importer.needs_tensorflow:
            session.progress(f"converting {path.name} (TensorFlow, in a child process)")
            session.workers.warm(LOAD_PACKAGES.call())
        return convert(
            path,
            worker=session.workers.tensorflow,
            options=options,
            timeout=model_options.timeout,
            log_dir=session.steps.cache.root / "logs",
        )

    digest = hash_path(path)
    inputs = {"model": digest, "importer": importer.fingerprint, "options": options}
    model = session.steps.memoize("convert", inputs, _CODEC, compute)
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
    return model, SourceModel(model.source_format, size, digest)


def _encode(model: FloatModel) -> Mapping[str, bytes]:
    meta = asdict(model)
    del meta["tflite"]
    return {"model.tflite": model.tflite, "meta.json": to_json_bytes(meta)}


def _decode(files: Mapping[str, bytes]) -> FloatModel:
    meta = json.loads(files["meta.json"])
    return FloatModel(tflite=files["model.tflite"], **{**meta, "notes": tuple(meta["notes"])})


_CODEC = Codec(_encode, _decode)
