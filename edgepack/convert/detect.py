"""What a model file is, told from its bytes and not from its name. Needs no TensorFlow."""

import zipfile
from pathlib import Path

from edgepack.convert.model import SourceFormat
from edgepack.errors import ModelFileError

_HINT = "give a .keras, an .h5, a SavedModel folder or a .tflite"

_HDF5 = b"\x89HDF\r\n\x1a\n"


def detect(path: Path) -> SourceFormat:
    """Return the format of a model file or folder.

    Args:
        path: What the user gave.

    Raises:
        ModelFileError: Nothing is there, it cannot be read, or it is none of the four formats.
    """
    if path.is_dir():
        return _folder(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise ModelFileError(f"cannot read '{path}': {error.strerror or error}", hint=_HINT) from error
    if not head:
        raise ModelFileError(f"'{path}' is empty", hint="copy or export the file again")
    if head[4:8] == b"TFL3":
        return "tflite"
    if head.startswith(_HDF5):
        return "h5"
    if head.startswith(b"PK"):
        return _archive(path)
    if head.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"'{path}' is a Git LFS pointer, not the model", hint="run `git lfs pull` and try again")
    if path.name in {"saved_model.pb", "saved_model.pbtxt"}:
        raise ModelFileError(f"'{path}' is one file of a SavedModel", hint=f"give its folder: '{path.parent}'")
    raise ModelFileError(
        f"'{path}' is not a model edgepack can read: expected a Keras archive (zip), HDF5, a SavedModel folder or a"
        f" .tflite, got a file that starts with {head[:8]!r}",
        hint=_HINT,
    )


def _folder(path: Path) -> SourceFormat:
    if (path / "saved_model.pb").is_file():
        return "saved_model"
    if (path / "saved_model.pbtxt").is_file():
        raise ModelFileError(f"'{path}' is a SavedModel in text form", hint="export it with the binary saved_model.pb")
    try:
        held = sorted(p.name for p in path.iterdir())
    except OSError as error:
        raise ModelFileError(f"cannot read '{path}': {error.strerror or error}", hint=_HINT) from error
    inside = f"it holds {', '.join(held[:5])}{' ...' if len(held) > 5 else ''}" if held else "it is empty"
    nested = sorted(p.parent for p in path.glob("*/saved_model.pb"))
    raise ModelFileError(
        f"'{path}' is a folder without saved_model.pb: {inside}", hint=f"give '{nested[0]}'" if nested else _HINT
    )


def _archive(path: Path) -> SourceFormat:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "config.json" not in names:
                raise ModelFileError(
                    f"'{path}' is a zip archive without config.json, so it is not a Keras model", hint=_HINT
                )
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(
            f"'{path}' is a broken zip archive: {error}",
            hint="copy or export the file again and compare its size and sha256 with the original",
        ) from error
    if broken is not None or "model.weights.h5" not in names:
        what = f"'{broken}' in it is damaged" if broken is not None else "model.weights.h5 is not in it"
        raise ModelFileError(f"'{path}' is a broken Keras archive: {what}", hint="export the model again")
    return "keras"
