"""All installed importers, from the entry-point group `edgepack.importers`, and the importer of a given file.

An entry point's name is the importer's id; its object is a class derived from `base.Importer`, or an instance of one.
The built-in importers are declared and found the same way. A broken plugin is a warning, never a failure of edgepack.

Importing this module loads neither NumPy nor TensorFlow.
"""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from edgepack.convert.importers.base import HEAD_BYTES, Importer
from edgepack.convert.importers.tflite import TfliteImporter
from edgepack.entry_points import collect_entry_points, origin
from edgepack.errors import ConversionError, ModelFileError, TransformError
from edgepack.files import open_regular

GROUP = "edgepack.importers"

#: The entry points that pyproject.toml declares, for a checkout on PYTHONPATH, which has no metadata.
BUILTIN = {
    "h5": "edgepack.convert.importers.keras_h5:KerasH5Importer",
    "keras": "edgepack.convert.importers.keras_archive:KerasArchiveImporter",
    "saved_model": "edgepack.convert.importers.saved_model:SavedModelImporter",
    "tflite": "edgepack.convert.importers.tflite:TfliteImporter",
}


@dataclass(frozen=True)
class _Installed:
    importers: tuple[Importer, ...]
    warnings: tuple[str, ...]


def all_importers() -> tuple[Importer, ...]:
    """Return every importer that loads: the built-in ones first, then by id. `warnings` names those that do not."""
    return _installed().importers


def warnings() -> tuple[str, ...]:
    """Return one sentence for each importer that is broken or whose id is taken."""
    return _installed().warnings


def importer_for(path: Path) -> Importer:
    """Return the importer of a model file or folder.

    Raises:
        ModelFileError: The path does not exist, cannot be read, or no installed importer recognizes it.
    """
    head = _head(path)
    problems: list[ModelFileError] = []
    for importer in _by_suffix(path):
        try:
            if importer.recognizes(path, head):
                return importer
        except ModelFileError as error:
            problems.append(error)
        except OSError as error:
            problems.append(ModelFileError(f"cannot read '{path}': {error.strerror or error}"))
        except Exception as error:
            if importer.id in BUILTIN:
                raise
            reason = f"{type(error).__name__}: {error}"
            problems.append(ModelFileError(f"importer '{importer.id}' failed on '{path}': {reason}"))
    if problems:
        raise ModelFileError(problems[0].message, hint=problems[0].hint or _formats_hint(), details=problems[0].details)
    if head.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"'{path}' is a Git LFS pointer, not the model", hint="run `git lfs pull` and try again")
    raise ModelFileError(
        f"'{path}' is not a model edgepack can read: no format matches a file that starts with {head[:8]!r}",
        hint=_formats_hint(),
    )


def is_tflite(path: Path) -> bool:
    """Return whether a file is a .tflite: by its content, or by its suffix when no importer recognizes the content.

    A damaged file named .tflite counts, so that the reader of .tflite files reports what is wrong with it.
    """
    if not path.is_file():
        return False
    try:
        return isinstance(importer_for(path), TfliteImporter)
    except ModelFileError:
        return path.suffix.lower() in TfliteImporter.suffixes


def require_trainable(path: Path) -> None:
    """Refuse a model whose format does not support training, before anything is converted.

    A file that no importer recognizes passes: its conversion reports what is wrong.

    Raises:
        TransformError: The format does not support training.
    """
    try:
        importer = importer_for(path)
    except ModelFileError:
        if not path.is_dir():
            return
        title = "a folder"
    else:
        if importer.trainable:
            return
        title = importer.title
    raise TransformError(
        f"'{path}' is {title}, and only a Keras model can be trained",
        hint="give the .keras or .h5 that the model was saved as: model.save('model.keras')",
    )


def require_modules(importer: Importer) -> None:
    """Refuse a conversion whose third-party modules are not installed.

    Raises:
        ConversionError: Names the modules and the pip requirement that installs them.
    """
    missing = [name for name in importer.modules if find_spec(name) is None]
    if missing:
        raise ConversionError(
            f"reading {importer.title} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not"
            " installed",
            hint=f"pip install '{importer.extra or 'edgepack'}'",
        )


def refresh() -> None:
    """Discard the cached entry points, so that the next call reads them again; for tests and long-lived processes."""
    _installed.cache_clear()


@cache
def _installed() -> _Installed:
    points = collect_entry_points(GROUP, BUILTIN, "importer")
    importers, warnings = [], list(points.warnings)
    for entry in sorted(points.entries.values(), key=lambda entry: (entry.name not in BUILTIN, entry.name)):
        try:
            importers.append(_load(entry))
        except (Exception, SystemExit) as error:
            warnings.append(
                f"importer '{entry.name}'{origin(entry)} is ignored: {entry.value}: {type(error).__name__}: {error}"
            )
    return _Installed(tuple(importers), tuple(warnings))


def _load(entry: EntryPoint) -> Importer:
    loaded = entry.load()
    importer = loaded() if isinstance(loaded, type) else loaded
    if not isinstance(importer, Importer):
        raise TypeError(f"expected an Importer, got {type(importer).__name__}")
    if importer.id != entry.name:
        raise TypeError(f"expected the id '{entry.name}', the name of its entry point, got '{importer.id}'")
    return importer


def _by_suffix(path: Path) -> list[Importer]:
    """Return all importers, those that list the file's suffix first."""
    suffix = path.suffix.lower()
    return sorted(all_importers(), key=lambda importer: suffix not in importer.suffixes)


def _head(path: Path) -> bytes:
    if path.is_dir():
        return b""
    try:
        with open_regular(path) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise ModelFileError(f"cannot read '{path}': {error.strerror or error}", hint=_formats_hint()) from error
    if not head:
        raise ModelFileError(f"'{path}' is empty", hint="copy or export the file again")
    return head


def _formats_hint() -> str:
    titles = [importer.title for importer in all_importers()]
    ignored = "".join(f"; {warning}" for warning in warnings())
    return f"give {', '.join(titles[:-1])} or {titles[-1]}{ignored}"
