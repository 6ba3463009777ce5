"""Looks for models, samples and labels in a folder, for `edgepack init`; runs nothing that it finds."""

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from edgepack.convert.importers.registry import BUILTIN, all_importers, importer_for
from edgepack.errors import EdgepackError
from edgepack.files import open_regular
from edgepack.project.reader import OUT
from edgepack.samples.load import IMAGE_SUFFIXES, LABEL_NAMES
from edgepack.text import first_line

#: Levels of folders below the start that are looked at.
DEPTH = 4
#: Files and folders that are looked at; a home folder has more.
MOST = 50_000
#: Folders of tools, where nothing of the user's is.
_SKIPPED = frozenset({"node_modules", "site-packages", "__pycache__", "venv", "env", "build", "dist", OUT})
#: Fewer images in a folder are pictures of something else: icons, a logo.
_FEWEST_IMAGES = 4
#: Largest file of labels; ImageNet-21k's has 0.5 MB.
_MOST_LABEL_BYTES = 4 << 20
_LABELS = re.compile(r"(?i)(^|[_. -])(labels?|class(es)?|class_?names|synset)(?=[_. -]).*\.txt$")
_EVALUATION = frozenset({"eval", "evaluation", "val", "valid", "validation", "test", "holdout"})
_TRAINING = frozenset({"train", "training"})


class Role(StrEnum):
    """What samples are for, as far as their name tells: keys of the project file."""

    SAMPLES = "samples"
    EVAL = "eval"
    TRAIN = "train"


@dataclass(frozen=True)
class FoundModel:
    """A model.

    Attributes:
        path: Path relative to the folder.
        format: Id of its importer.
    """

    path: Path
    format: str


@dataclass(frozen=True)
class FoundSamples:
    """A source of samples.

    Attributes:
        path: Path relative to the folder.
        role: What it is for by its name.
        labelled: Whether it has labels.
    """

    path: Path
    role: Role
    labelled: bool


@dataclass
class Findings:
    """What a folder contains.

    Attributes:
        models: Models, by path.
        samples: Sources of samples, by path.
        labels: Files with class names, by path.
        notes: Sentences about what was left out.
    """

    models: list[FoundModel] = field(default_factory=list)
    samples: list[FoundSamples] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def scan(folder: Path) -> Findings:
    """Return what a folder and the folders in it contain, sorted; links to folders are not followed."""
    found = Findings()
    suffixes = {suffix for importer in all_importers() for suffix in importer.suffixes}
    images: dict[Path, int] = {}
    for path in _walk(folder, found):
        name = path.relative_to(folder)
        if not _is_text(name):
            found.notes.append(f"left out {str(name)!r}: its name is not valid UTF-8")
        elif path.is_dir():
            if _is_model_folder(path):
                _add_model(found, path, name)
        elif path.suffix.lower() in suffixes:
            _add_model(found, path, name)
        elif path.suffix.lower() in {".npz", ".npy"}:
            found.samples.append(FoundSamples(name, _role(name), _has_labels(path)))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            images[name.parent] = images.get(name.parent, 0) + 1
        elif _LABELS.search(path.name) and _is_label_file(path):
            found.labels.append(name)
    found.samples.extend(_image_folders(images))
    found.samples.sort(key=lambda source: source.path)
    return found


def _walk(folder: Path, found: Findings) -> Iterator[Path]:
    """Yield files and folders, sorted, without hidden ones, bundles, environments, and what is in a SavedModel."""
    count = 0
    stack = [(folder, 0)]
    while stack:
        place, depth = stack.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            found.notes.append(f"left out '{place.name}': {error.strerror or error}")
            continue
        inside = []
        for entry in entries:
            count += 1
            if count > MOST:
                found.notes.append(f"looked at {MOST:,} files only: write further models into the file by hand")
                return
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield path
            elif not entry.is_symlink() and entry.name not in _SKIPPED and not _is_foreign(path):
                yield path
                if depth < DEPTH and not _is_model_folder(path):
                    inside.append((path, depth + 1))
        stack.extend(reversed(inside))


def _is_model_folder(folder: Path) -> bool:
    """Return whether a folder is a SavedModel, or a model in the format of a plugin."""
    if (folder / "saved_model.pb").is_file():
        return True
    for importer in all_importers():
        # A plugin may fail in any way on a folder that it was not made for.
        with suppress(Exception):
            if importer.id not in BUILTIN and importer.recognizes(folder, b""):
                return True
    return False


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder is a bundle or a Python environment."""
    return (folder / "manifest.json").exists() or (folder / "pyvenv.cfg").exists()


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _add_model(found: Findings, path: Path, name: Path) -> None:
    if path.stem.endswith("_edgetpu"):
        found.notes.append(f"left out '{name}': it is compiled for the Edge TPU already")
        return
    try:
        found.models.append(FoundModel(name, importer_for(path).id))
    except EdgepackError as error:
        found.notes.append(f"left out '{name}': {first_line(error.message)}")


def _role(path: Path) -> Role:
    """Return what samples are for by the words of their path, the last one first."""
    for part in reversed(path.with_suffix("").parts):
        words = set(re.split(r"[^a-z]+", part.lower()))
        if words & _EVALUATION:
            return Role.EVAL
        if words & _TRAINING:
            return Role.TRAIN
    return Role.SAMPLES


def _has_labels(path: Path) -> bool:
    try:
        with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
            return any(f"{name}.npy" in archive.namelist() for name in LABEL_NAMES)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def _is_label_file(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            data = stream.read(_MOST_LABEL_BYTES + 1)
        return len(data) <= _MOST_LABEL_BYTES and len(data.decode().split("\n")) > 1
    except (OSError, UnicodeDecodeError):
        return False


def _image_folders(images: dict[Path, int]) -> Iterator[FoundSamples]:
    """Yield folders of images; folders side by side, with images each, are the classes of the folder around them."""
    folders = {folder: count for folder, count in images.items() if count >= _FEWEST_IMAGES and folder.parts}
    classes: dict[Path, list[Path]] = {}
    for folder in folders:
        classes.setdefault(folder.parent, []).append(folder)
    for parent, inside in classes.items():
        named = any(_role(Path(folder.name)) != Role.SAMPLES for folder in inside)
        usual = any(folder.name.lower() in {"samples", "images", "calibration", "photos"} for folder in inside)
        if len(inside) > 1 and parent.parts and parent not in folders and not named and not usual:
            yield FoundSamples(parent, _role(parent), labelled=True)
        else:
            yield from (FoundSamples(folder, _role(folder), labelled=False) for folder in inside)
