"""Read the Keras model to train and its compile configuration; loading runs in the child process."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.errors import ConversionError, ModelFileError, TransformError
from edgepack.text import first_line

_HINT = "give the .keras or .h5 that the model was saved as after training: model.save('model.keras')"


@dataclass(frozen=True)
class LoadedModel:
    """A model of Keras 3 or tf-keras.

    Attributes:
        model: The model.
        compile_config: Its compile configuration, empty when it was not compiled.
    """

    model: Any
    compile_config: Mapping[str, Any]


def require_keras_file(path: Path) -> None:
    """Refuse anything but a Keras file.

    Raises:
        TransformError: The path is not a file, or it is a .tflite.
    """
    if not path.is_file() or path.suffix == ".tflite":
        raise TransformError(
            f"'{path}' cannot be trained: only a Keras model contains the layers that training needs",
            hint="give the .keras or .h5 that the model was saved as",
        )


def load(path: Path, *, allow_code: bool) -> LoadedModel:
    """Load a model with the Keras version that wrote it, else with the other one.

    Args:
        path: .keras archive or .h5.
        allow_code: Load Lambda layers and custom classes.

    Raises:
        ModelFileError: The file is not a Keras model, or it is broken.
        ConversionError: It contains code, or neither Keras version loads it.
    """
    config, compile_config, version = _read(path)
    if not allow_code:
        _refuse_code(path, config)
    failures = []
    # Legacy .h5 files of tf-keras contain layers that Keras 3 does not load.
    for read in (_with_tf_keras, _with_keras) if version.startswith("2") else (_with_keras, _with_tf_keras):
        try:
            return LoadedModel(read(path, not allow_code), compile_config)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {first_line(error, 300, default='')}")
    raise ConversionError(
        f"'{path}' cannot be loaded for training: {failures[0]}",
        hint="save it again with the Keras version that created it, with built-in layers of Keras only",
    )


def _with_keras(path: Path, safe: bool) -> Any:
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=safe)


def _with_tf_keras(path: Path, safe: bool) -> Any:
    import tf_keras

    return tf_keras.models.load_model(str(path), compile=False, safe_mode=safe)


def _read(path: Path) -> tuple[Any, dict[str, Any], str]:
    """Return (model configuration, compile configuration, Keras version) of a file."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
                version = json.loads(archive.read("metadata.json")).get("keras_version", "")
            return config, dict(config.pop("compile_config", None) or {}), str(version)
        import h5py  # type: ignore[import-untyped]

        with h5py.File(path, "r") as file:
            stored, training = file.attrs.get("model_config"), file.attrs.get("training_config")
            version = file.attrs.get("keras_version", "2")
        if stored is None:
            raise ModelFileError(f"'{path}' contains weights without a model", hint=_HINT)
        return json.loads(stored), json.loads(training) if training else {}, str(version)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"'{path}' cannot be read as a Keras model: {error}", hint=_HINT) from error


def _refuse_code(path: Path, config: Any) -> None:
    locations = sorted(set(_find_code(config, "")))
    if locations:
        raise ConversionError(
            f"'{path}' contains code that would run on this machine: {'; '.join(locations[:5])}",
            hint="if you trust the source of the model, allow it with --allow-code; or build it of Keras layers",
        )


def _find_code(config: Any, layer: str) -> Iterator[str]:
    if isinstance(config, list):
        for part in config:
            yield from _find_code(part, layer)
    if not isinstance(config, dict):
        return
    inner, name = config.get("config"), config.get("class_name")
    if isinstance(inner, dict) and isinstance(inner.get("name"), str) and name:
        layer = inner["name"]
    package = str(config.get("module") or "keras").split(".")[0]
    if name in {"Lambda", "__lambda__", "TFSMLayer"}:
        yield f"layer '{layer}' ({name}) contains code"
    elif package not in {"keras", "tf_keras", "builtins"} or ">" in str(config.get("registered_name") or ""):
        yield f"layer '{layer}' ({config.get('registered_name') or name}) is not part of Keras"
    for part in config.values():
        yield from _find_code(part, layer)
