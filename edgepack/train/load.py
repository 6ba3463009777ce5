"""Load the model to train, in the child, and read what loss it was compiled with."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgepack.errors import ConversionError, ModelFileError

_HINT = "give the .keras or .h5 that the model was saved as after training: model.save('model.keras')"


def load(path: Path, *, allow_code: bool) -> tuple[Any, dict[str, Any]]:
    """Return the model (Keras 3's or tf-keras's) and its compile configuration, empty when it was not compiled.

    Args:
        path: .keras archive or .h5.
        allow_code: Load Lambda layers and custom classes.

    Raises:
        ModelFileError: The file is not a Keras model, or broken.
        ConversionError: It carries code, or Keras does not load it.
    """
    config, compiled, version = _read(path)
    if not allow_code:
        _refuse_code(path, config)
    failures = []
    # The file says which Keras wrote it; legacy .h5 of tf-keras has layers that Keras 3 refuses.
    for read in (_with_tf_keras, _with_keras) if version.startswith("2") else (_with_keras, _with_tf_keras):
        try:
            return read(path, not allow_code), compiled
        except Exception as error:
            text = str(error).strip().splitlines()
            failures.append(f"{type(error).__name__}: {text[0][:300] if text else ''}")
    raise ConversionError(
        f"'{path}' cannot be loaded for training: {failures[0]}",
        hint="save it again with the Keras that made it, of layers that Keras itself has",
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
            raise ModelFileError(f"'{path}' holds weights without a model", hint=_HINT)
        return json.loads(stored), json.loads(training) if training else {}, str(version)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"'{path}' cannot be read as a Keras model: {error}", hint=_HINT) from error


def _refuse_code(path: Path, config: Any) -> None:
    found = sorted(set(_code(config, "")))
    if found:
        raise ConversionError(
            f"'{path}' carries code that would run on this machine: {'; '.join(found[:5])}",
            hint="if you trust where the model comes from, allow it with --allow-code; or build it of Keras layers",
        )


def _code(config: Any, layer: str) -> Iterator[str]:
    if isinstance(config, list):
        for part in config:
            yield from _code(part, layer)
    if not isinstance(config, dict):
        return
    inner, name = config.get("config"), config.get("class_name")
    if isinstance(inner, dict) and isinstance(inner.get("name"), str) and name:
        layer = inner["name"]
    package = str(config.get("module") or "keras").split(".")[0]
    if name in {"Lambda", "__lambda__", "TFSMLayer"}:
        yield f"layer '{layer}' ({name}) holds code"
    elif package not in {"keras", "tf_keras", "builtins"} or ">" in str(config.get("registered_name") or ""):
        yield f"layer '{layer}' ({config.get('registered_name') or name}) is not part of Keras"
    for part in config.values():
        yield from _code(part, layer)
