"""What is true of the images of a detector or a segmentation: objects from COCO JSON, class numbers from masks."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgepack.errors import SamplesError
from edgepack.files import open_regular
from edgepack.samples.source import IMAGE_FORMATS, MOST_PIXELS, image_bytes

#: Largest COCO JSON; that of the training images of COCO 2017, 118,287 photographs, has 449 MB.
MOST_JSON_BYTES = 1 << 30
#: Class number of pixels that do not count, as Pascal VOC and ADE20K have it.
IGNORED = 255
_HINT = "the file needs images (id, file_name, width, height), annotations (image_id, category_id, bbox) and categories"


@dataclass(frozen=True)
class TrueObject:
    """An object of an image.

    Attributes:
        category: Id of its category.
        box: Left, top, width and height in pixels.
        crowd: True for a group of objects, which COCO's metric does not count as missed.
    """

    category: int
    box: tuple[float, float, float, float]
    crowd: bool = False


@dataclass(frozen=True)
class Truth:
    """What is true of each image, in the order of the samples.

    Attributes:
        sizes: Width and height of each image; empty for masks.
        objects: Objects of each image; empty for masks.
        categories: Name of each category by its id; empty for masks.
        masks: Image file with the class number of each pixel, for each image; empty for objects.
        mask_digests: SHA-256 of each of these files.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    objects: tuple[tuple[TrueObject, ...], ...] = ()
    categories: Mapping[int, str] | None = None
    masks: tuple[Path, ...] = ()
    mask_digests: tuple[bytes, ...] = ()

    def take(self, indices: Sequence[int]) -> Self:
        """Return the truth of the images at `indices`."""

        def chosen(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in indices) if values else ()

        return replace(
            self,
            sizes=chosen(self.sizes),
            objects=chosen(self.objects),
            masks=chosen(self.masks),
            mask_digests=chosen(self.mask_digests),
        )

    def mask(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the class number of each pixel of an image, (height, width).

        Raises:
            SamplesError: The file cannot be read, has colours instead of class numbers, or changed.
        """
        return read_mask(self.masks[index], self.mask_digests[index])


def read_mask(path: Path, digest: bytes) -> npt.NDArray[np.uint8]:
    """Return the class numbers in a mask: the values of a grey image, or the positions in a palette.

    Args:
        path: A PNG or another format without loss.
        digest: SHA-256 that the file has to have.

    Raises:
        SamplesError: The file cannot be read, has colours instead of class numbers, or changed.
    """
    import io

    from PIL import Image

    data = image_bytes(path)
    if hashlib.sha256(data).digest() != digest:
        raise SamplesError(
            f"the mask '{path.name}' changed after it was hashed", hint="build again with the final file"
        )
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as opened:
            mode, pixels = opened.mode, opened.width * opened.height
            values = np.asarray(opened) if mode in ("L", "P") and pixels <= MOST_PIXELS else None
    except Exception as error:  # whatever the decoders of damaged files raise
        raise SamplesError(f"cannot read the mask '{path.name}': {type(error).__name__}") from error
    if values is None:
        raise SamplesError(
            f"the mask '{path.name}' has the mode {mode}, and class numbers are expected",
            hint="write class numbers as a PNG in grey (mode L) or with a palette (mode P); 255 does not count",
        )
    return np.asarray(values, np.uint8)


def read_coco(path: Path) -> tuple[tuple[Path, ...], Truth]:
    """Return the images of a COCO JSON and their objects.

    The images lie beside the file, in `images/` beside it or beside its folder, or, as COCO has it, beside its folder
    in one named like the end of the file's name (`annotations/instances_val2017.json`, `val2017/`).

    Raises:
        SamplesError: The file is not as expected, or an image is missing.
    """
    document = _document(path)
    try:
        images = {int(entry["id"]): entry for entry in document["images"]}
        objects: dict[int, list[TrueObject]] = {number: [] for number in images}
        for entry in document["annotations"]:
            left, top, width, height = (float(value) for value in entry["bbox"])
            found = TrueObject(int(entry["category_id"]), (left, top, width, height), bool(entry.get("iscrowd", 0)))
            if not np.isfinite(found.box).all() or width < 0 or height < 0:
                raise ValueError(f"the bbox {list(found.box)[:4]}")
            objects[int(entry["image_id"])].append(found)
        categories = {int(entry["id"]): str(entry["name"]) for entry in document["categories"]}
        sizes = [(int(entry["width"]), int(entry["height"])) for entry in images.values()]
        names = [PurePosixPath(entry["file_name"]) for entry in images.values()]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SamplesError(
            f"'{path.name}' is not as COCO JSON is: {type(error).__name__}: {str(error)[:80]}", hint=_HINT
        ) from error
    if not images or min(min(size) for size in sizes) < 1:
        raise SamplesError(f"'{path.name}' has no images, or one without a size", hint=_HINT)
    if any(name.is_absolute() or ".." in name.parts for name in names):
        raise SamplesError(f"'{path.name}': a file_name points out of the folder of the images")
    folder = _image_folder(path, names[0])
    files = tuple(folder / name for name in names)
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise SamplesError(f"'{path.name}': the image '{missing.name}' is not in the folder '{folder.name}'")
    return files, Truth(tuple(sizes), tuple(map(tuple, objects.values())), categories)


def _document(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as stream:
            data = stream.read(MOST_JSON_BYTES + 1)
        document = json.loads(data) if len(data) <= MOST_JSON_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise SamplesError(f"cannot read '{path.name}': {type(error).__name__}", hint=_HINT) from error
    if not isinstance(document, dict):
        raise SamplesError(f"'{path.name}' is not as COCO JSON is", hint=_HINT)
    return document


def _image_folder(path: Path, name: PurePosixPath) -> Path:
    """Return the folder with the first image.

    Raises:
        SamplesError: It is in none.
    """
    parent = path.absolute().parent
    folders = (parent, parent / "images", parent.parent / "images", parent.parent / path.stem.rpartition("_")[2])
    found = next((folder for folder in folders if (folder / name).is_file()), None)
    if found is None:
        raise SamplesError(
            f"'{path.name}': the image '{name.name}' is not in {', '.join(dict.fromkeys(f.name for f in folders))}",
            hint="put the images beside the file or into images/ beside it",
        )
    return found


def has_masks(folder: Path) -> bool:
    """Return whether a folder has images and masks in two folders of these names."""
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def find_masks(folder: Path, images: Sequence[Path]) -> Truth:
    """Return the masks of images: files in `masks` with the same path but the suffix, below a folder.

    Args:
        folder: The folder with `images` and `masks`.
        images: Files in `images`.

    Raises:
        SamplesError: A mask is missing.
    """
    masks = {file.relative_to(folder / "masks").with_suffix(""): file for file in (folder / "masks").rglob("*.*")}
    found = []
    for image in images:
        name = image.relative_to(folder / "images").with_suffix("")
        if name not in masks:
            raise SamplesError(
                f"the image '{image.name}' has no mask", hint=f"put class numbers as a PNG into masks/{name.name}.png"
            )
        found.append(masks[name].absolute())
    return Truth(masks=tuple(found), mask_digests=tuple(hashlib.sha256(image_bytes(file)).digest() for file in found))
