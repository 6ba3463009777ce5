"""Keras files (.keras and .h5): read once, examined, and loaded from a private copy that holds what was examined.

The content decides on the format, never the suffix. The file's bytes are copied into a private folder first, so that
nobody can exchange them later. What Keras loads is written anew from the parsed parts: JSON without repeated keys,
HDF5 without links, an archive with the members that Keras reads and no others.
"""

import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from edgepack.errors import ModelFileError
from edgepack.files import open_regular
from edgepack.text import first_line
from edgepack.untrusted.hdf5 import copy_hdf5
from edgepack.untrusted.keras_code import refuse_code

_ZIP = b"PK"
_HDF5 = b"\x89HDF\r\n\x1a\n"

#: Largest configuration; those of keras.applications have up to 1 MB.
_MAX_JSON = 64 << 20

#: An archive may inflate to this size, or to `_MAX_INFLATION` times its own: weights compress by less than 10.
_SMALL = 1 << 30
_MAX_INFLATION = 50

#: What reading a damaged zip can raise.
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, KeyError)


@dataclass(frozen=True)
class KerasFile:
    """An examined Keras file.

    Attributes:
        format: `keras` for an archive, `h5` for HDF5.
        config: The model's configuration.
        compile_config: The configuration of its training as data, empty when there is none. Copies do not contain it.
        version: The Keras version that wrote the file, empty when unknown.
    """

    format: str
    config: dict[str, Any]
    compile_config: dict[str, Any]
    version: str
    _source: Path
    _name: str

    def write_copy(self, config: dict[str, Any]) -> Path:
        """Write the copy that Keras loads and return its path; it exists within the context of `open_keras_file`.

        Args:
            config: `self.config`, or an edited form of it.

        Raises:
            ModelFileError: The weights are broken or reach outside the file.
        """
        copy = self._source.parent / f"model.{self.format}"
        if self.format == "h5":
            copy_hdf5(self._source, copy, name=self._name, attributes={"model_config": json.dumps(config)})
            return copy
        weights, plain = self._source.parent / "stored.weights.h5", self._source.parent / "plain.weights.h5"
        try:
            with zipfile.ZipFile(self._source) as source, zipfile.ZipFile(copy, "w") as target:
                target.writestr("config.json", json.dumps(config))
                target.writestr("metadata.json", json.dumps({"keras_version": self.version, "date_saved": ""}))
                with source.open("model.weights.h5") as stored, weights.open("wb") as stream:
                    shutil.copyfileobj(stored, stream)
                copy_hdf5(weights, plain, name=f"{self._name}/model.weights.h5")
                target.write(plain, "model.weights.h5")
                for member in source.namelist():
                    if member.startswith("assets/") and not member.endswith("/"):
                        target.writestr(member, source.read(member))
        except _BROKEN_ZIP as error:
            raise broken_archive(Path(self._name), error) from error
        finally:
            weights.unlink(missing_ok=True)
            plain.unlink(missing_ok=True)
        return copy


@contextmanager
def open_keras_file(path: Path, *, allow_code: bool) -> Iterator[KerasFile]:
    """Read a Keras file from a private copy, and refuse code in it.

    Args:
        path: The file.
        allow_code: True to accept a configuration that contains code.

    Raises:
        ModelFileError: The file is not a Keras model, or it is broken.
        ConversionError: It contains code that is not allowed.
    """
    with tempfile.TemporaryDirectory(prefix="edgepack-") as folder:
        source = Path(folder) / "source"
        try:
            head = _snapshot(path, source)
        except OSError as error:
            raise ModelFileError(f"cannot read '{path}': {error.strerror or error}") from error
        if head.startswith(_ZIP):
            file = _read_archive(source, path)
        elif head == _HDF5:
            file = _read_h5(source, path)
        else:
            raise ModelFileError(
                f"'{path}' is neither a Keras archive nor an HDF5 file: it starts with {head!r}",
                hint="save the model with Keras: model.save('model.keras')",
            )
        if not allow_code:
            refuse_code(path, file.config)
        yield file


def require_intact(path: Path) -> None:
    """Check the names, sizes and checksums of a Keras archive.

    Raises:
        ModelFileError: The archive is damaged, has no weights, or has members that Keras never writes.
    """
    try:
        with path.open("rb") as stream:
            _check_archive(stream, path)
    except OSError as error:
        raise broken_archive(path, error) from error


def broken_archive(path: Path, error: Exception) -> ModelFileError:
    """Return the error for an archive that cannot be read."""
    return ModelFileError(
        f"'{path}' is a broken zip archive: {first_line(error)}",
        hint="copy or export the file again and compare its size and sha256 with the original",
    )


def is_refusal(error: Exception) -> bool:
    """Return whether Keras itself refused to run code; the other Keras may be less strict and is not tried."""
    return any(word in str(error) for word in ("safe_mode", "unsafe", "arbitrary code", "for security"))


def _snapshot(path: Path, copy: Path) -> bytes:
    """Copy a regular file once, and return its first bytes."""
    with open_regular(path) as stream, copy.open("wb") as target:
        shutil.copyfileobj(stream, target, 1 << 22)
    with copy.open("rb") as stream:
        return stream.read(len(_HDF5))


def _read_archive(source: Path, path: Path) -> KerasFile:
    with source.open("rb") as stream:
        _check_archive(stream, path)
    try:
        with zipfile.ZipFile(source) as archive:
            config = _json(archive.read("config.json"), path)
            metadata = _json(archive.read("metadata.json"), path) if "metadata.json" in archive.namelist() else {}
    except _BROKEN_ZIP as error:
        raise broken_archive(path, error) from error
    compiled = config.get("compile_config")
    return KerasFile(
        "keras",
        _without_training(config),
        compiled if isinstance(compiled, dict) else {},
        str(metadata.get("keras_version", "")),
        source,
        str(path),
    )


def _check_archive(stream: BinaryIO, path: Path) -> None:
    size = os.fstat(stream.fileno()).st_size
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            counts = Counter(names)
            for name in names:
                pure = PurePosixPath(name)
                if counts[name] > 1 or pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
                    raise _odd(path, f"the member {name!r} occurs twice or reaches outside the archive")
            total = sum(member.file_size for member in members)
            if total > max(_SMALL, size * _MAX_INFLATION):
                raise _odd(path, f"it would inflate to {total} bytes")
            for member in members:
                if member.filename in {"config.json", "metadata.json"} and member.file_size > _MAX_JSON:
                    raise _odd(path, f"{member.filename} has {member.file_size} bytes")
            damaged = archive.testzip()
    except _BROKEN_ZIP as error:
        raise broken_archive(path, error) from error
    missing = [name for name in ("config.json", "model.weights.h5") if name not in names]
    if damaged is not None or missing:
        problem = f"'{damaged}' in it is damaged" if damaged is not None else f"{missing[0]} is missing"
        raise ModelFileError(f"'{path}' is a broken Keras archive: {problem}", hint="export the model again")


def _odd(path: Path, problem: str) -> ModelFileError:
    return ModelFileError(
        f"'{path}' is not an archive that Keras writes: {problem}",
        hint="save the model again: model.save('model.keras')",
    )


def _read_h5(source: Path, path: Path) -> KerasFile:
    import h5py  # type: ignore[import-untyped]

    try:
        with h5py.File(source, "r") as file:
            config, compiled = file.attrs.get("model_config"), file.attrs.get("training_config")
            version = file.attrs.get("keras_version", "")
            names = sorted(file)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(
            f"'{path}' is a broken HDF5 file: {first_line(error)}",
            hint="copy or export the file again and compare its size",
        ) from error
    if config is None:
        what = "weights without a model" if "model_weights" in names or "layers" in names else "no Keras model"
        raise ModelFileError(
            f"'{path}' contains {what}: expected the attribute 'model_config'",
            hint="save the whole model: model.save('model.keras')",
        )
    training: dict[str, Any] = {}
    if compiled is not None:
        training = _json(compiled, path)
    return KerasFile("h5", _without_training(_json(config, path)), training, _text(version), source, str(path))


def _without_training(config: Any) -> Any:
    """Return a configuration without optimizers, losses and metrics, which Keras would create for nested models too."""
    if isinstance(config, list):
        return [_without_training(item) for item in config]
    if not isinstance(config, dict):
        return config
    drop = "compile_config" if "class_name" in config else ""
    return {key: _without_training(value) for key, value in config.items() if key != drop}


def _json(text: Any, path: Path) -> dict[str, Any]:
    """Return a JSON object; Python keeps the last of repeated keys, and only that one is written to copies."""
    try:
        document = json.loads(_text(text))
        if not isinstance(document, dict):
            raise ValueError("expected a JSON object")
        _without_training(document)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"the configuration in '{path}' cannot be read: {first_line(error)}", hint="export the model again"
        ) from error
    return document


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
