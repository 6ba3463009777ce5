"""Legacy Keras HDF5 (.h5): configuration in the attribute `model_config`, weights in the same file."""

from pathlib import Path

from edgepack.convert.importers.base import Conversion, Importer
from edgepack.convert.load_keras import load_keras
from edgepack.convert.model import FloatModel


class KerasH5Importer(Importer):
    """Converts HDF5 files of Keras 2, tf-keras and Keras 3."""

    id = "h5"
    title = "a Keras HDF5 file (.h5)"
    suffixes = (".h5", ".hdf5")
    trainable = True
    modules = ("tensorflow", "tf_keras")

    def recognizes(self, path: Path, head: bytes) -> bool:
        """Look for the HDF5 signature."""
        return head.startswith(b"\x89HDF\r\n\x1a\n")

    def convert(self, conversion: Conversion) -> FloatModel:
        """Convert; the child refuses code before it imports TensorFlow."""
        return conversion.with_tensorflow(load_keras)
