"""SavedModel: a folder with saved_model.pb and its variables."""

from pathlib import Path

from edgepack.convert.importers.base import Conversion, Importer
from edgepack.convert.load_saved_model import load_saved_model
from edgepack.convert.model import FloatModel
from edgepack.errors import ModelFileError


class SavedModelImporter(Importer):
    """Converts one signature of a SavedModel."""

    id = "saved_model"
    title = "a SavedModel"
    modules = ("tensorflow",)

    def recognizes(self, path: Path, head: bytes) -> bool:
        """Look for saved_model.pb in the folder; explain what is missing in any other folder."""
        if not path.is_dir():
            if path.name in {"saved_model.pb", "saved_model.pbtxt"}:
                raise ModelFileError(f"'{path}' is one file of a SavedModel", hint=f"give its folder: '{path.parent}'")
            return False
        if (path / "saved_model.pb").is_file():
            return True
        if (path / "saved_model.pbtxt").is_file():
            raise ModelFileError(
                f"'{path}' is a SavedModel in text form", hint="export it with the binary saved_model.pb"
            )
        names = sorted(entry.name for entry in path.iterdir())
        content = f"it contains {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else "it is empty"
        nested = sorted(file.parent for file in path.glob("*/saved_model.pb"))
        raise ModelFileError(
            f"'{path}' is a folder without saved_model.pb: {content}", hint=f"give '{nested[0]}'" if nested else ""
        )

    def convert(self, conversion: Conversion) -> FloatModel:
        """Convert; the child refuses code and unknown signatures before it loads anything."""
        return conversion.with_tensorflow(load_saved_model)
