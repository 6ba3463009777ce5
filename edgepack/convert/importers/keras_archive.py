"""Keras archive (.keras): a zip with config.json and model.weights.h5, as Keras 3 and tf-keras write it."""

import zipfile
from pathlib import Path

from edgepack.convert.importers.base import Conversion, Importer
from edgepack.convert.load_keras import load_keras
from edgepack.convert.model import FloatModel
from edgepack.errors import ModelFileError
from edgepack.untrusted.keras_file import broken_archive, require_intact


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
            raise broken_archive(path, error) from error
        if "config.json" not in names:
            raise ModelFileError(f"'{path}' is a zip archive without config.json, so it is not a Keras model")
        return True

    def convert(self, conversion: Conversion) -> FloatModel:
        """Refuse damaged archives without a child process, then convert; the child refuses code before TensorFlow."""
        require_intact(conversion.path)
        return conversion.with_tensorflow(load_keras)
