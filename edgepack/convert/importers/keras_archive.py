"""Keras archive (.keras): a zip with config.json and model.weights.h5, as Keras 3 and tf-keras write it."""

import zipfile
from functools import partial
from pathlib import Path

from edgepack.convert.importers.base import Conversion, Importer
from edgepack.convert.keras_code import archive_config, refuse_code
from edgepack.convert.load_keras import ARCHIVE, load_keras
from edgepack.convert.model import FloatModel
from edgepack.errors import ModelFileError


class KerasArchiveImporter(Importer):
    """Converts Keras archives."""

    id = "keras"
    title = "a Keras archive (.keras)"
    suffixes = (".keras",)
    trainable = True
    modules = ("tensorflow",)

    def recognizes(self, path: Path, head: bytes) -> bool:
        """Look for config.json in a zip."""
        if not head.startswith(b"PK"):
            return False
        try:
            with zipfile.ZipFile(path) as archive:
                names = set(archive.namelist())
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise _broken_zip(path, error) from error
        if "config.json" not in names:
            raise ModelFileError(f"'{path}' is a zip archive without config.json, so it is not a Keras model")
        return True

    def convert(self, conversion: Conversion) -> FloatModel:
        """Refuse damaged archives and code without TensorFlow, then convert."""
        path = conversion.path
        _require_intact(path)
        config, _ = archive_config(path)
        if not conversion.options.allow_code:
            refuse_code(path, config)
        return conversion.with_tensorflow(partial(load_keras, container=ARCHIVE))


def _require_intact(path: Path) -> None:
    """Compare the checksums of the archive.

    Raises:
        ModelFileError: A file in it is damaged, or the weights are missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise _broken_zip(path, error) from error
    if damaged is not None or "model.weights.h5" not in names:
        problem = f"'{damaged}' in it is damaged" if damaged is not None else "model.weights.h5 is missing"
        raise ModelFileError(f"'{path}' is a broken Keras archive: {problem}", hint="export the model again")


def _broken_zip(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(
        f"'{path}' is a broken zip archive: {error}",
        hint="copy or export the file again and compare its size and sha256 with the original",
    )
