"""Reading of samples from .npz, .npy, a folder of images, or a Python function."""

import hashlib
import importlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.choices import Resize
from edgepack.distribution import require_module
from edgepack.errors import SamplesError
from edgepack.samples.source import InputSpec, Preprocess, SampleSet, SampleSource, image_bytes
from edgepack.samples.storage import StoredArray, read_stored
from edgepack.samples.truth import Truth, find_masks, has_masks, read_coco

Array = npt.NDArray[Any]

#: Names of an .npz array that contains labels.
LABEL_NAMES = ("y", "labels", "label")
#: Suffixes of the files that count as images in a folder.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
#: Most bytes that a function's samples have together: they are in memory, and a function may never end.
MOST_FUNCTION_BYTES = 1 << 30
_HINT = (
    "give .npz (arrays named like the inputs, or x and y), .npy, a folder of images, a COCO JSON, or module:function"
)


def load_samples(
    source: SampleSource,
    inputs: Sequence[InputSpec],
    *,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] = (),
    resize: Resize = Resize.STRETCH,
) -> SampleSet:
    """Read samples and match them to a model's inputs.

    Args:
        source: Path of an .npz, .npy or folder of images, or `module:function` (the function has no parameters and
            yields samples: an array, a dict of arrays by input name, or a pair of one of these and a label). The module
            is looked up in the current folder first, or in FOLDER of `FOLDER/module:function`. A COCO JSON has images
            with objects; a folder with `images` and `masks` has images with class numbers. Or an object that reads
            itself.
        inputs: The model's inputs.
        preprocess: Conversion of pixels to values; images only.
        classes: Names of the model's classes in their order, for labels that are names; empty when they are unknown:
            then names count in alphabetical order.
        resize: How images get the input's size.

    Raises:
        SamplesError: The source does not exist, cannot be read or does not match the inputs.
    """
    if not isinstance(source, str):
        return source.load(inputs, classes)
    path = Path(source)
    if path.is_dir() and has_masks(path):
        files = _images_in(path / "images")
        truth = find_masks(path, files)
        return _from_images(path, files, inputs, preprocess, resize, truth=truth)
    if path.is_dir():
        return _from_images(path, _images_in(path), inputs, preprocess, resize, folders=True, classes=classes)
    if path.suffix == ".json" and path.is_file():
        files, truth = read_coco(path)
        return _from_images(path, files, inputs, preprocess, resize, truth=truth)
    if path.suffix in {".npz", ".npy"} or path.is_file():
        return _from_file(path, inputs, classes)
    name, separator, function = source.rpartition(":")
    folder, slash, module = name.rpartition("/")
    if separator and function.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return _from_function(Path(f"{folder}{slash}"), module, function, inputs, classes)
    raise SamplesError(f"samples '{source}' do not exist", hint=_HINT)


def _from_file(path: Path, inputs: Sequence[InputSpec], classes: Sequence[str]) -> SampleSet:
    if path.suffix not in {".npz", ".npy"}:
        raise SamplesError(f"samples '{path.name}' have an unknown format", hint=_HINT)
    stored = read_stored(path)
    arrays: dict[str, Array | StoredArray] = dict(stored.arrays)
    labels = next((arrays.pop(name) for name in LABEL_NAMES if name in arrays and name not in _names(inputs)), None)
    return from_arrays(path.name, stored.digest, arrays, labels, inputs, classes)


def _from_function(
    folder: Path, module: str, function: str, inputs: Sequence[InputSpec], classes: Sequence[str]
) -> SampleSet:
    sys.path.insert(0, str(folder.absolute()))
    try:
        generate = getattr(importlib.import_module(module), function)
        items = list(_limited(_items(generate(), inputs)))
    except SamplesError:
        raise
    except Exception as error:
        raise SamplesError(
            f"samples '{module}:{function}' failed: {type(error).__name__}: {error}",
            hint="the function has no parameters and yields arrays, dicts of arrays by input name, or (sample, label)",
        ) from error
    finally:
        sys.path.pop(0)
    if not items:
        raise SamplesError(f"samples '{module}:{function}' yielded nothing")
    try:
        arrays: dict[str, Array | StoredArray] = {
            spec.name: np.stack([_without_batch(np.asarray(item[0][spec.name]), spec) for item in items])
            for spec in inputs
        }
    except ValueError as error:
        raise SamplesError(f"samples '{module}:{function}' differ in shape: {error}") from error
    labels = None if any(item[1] is None for item in items) else np.asarray([item[1] for item in items])
    digest = hashlib.sha256()
    for array in [*(arrays[name] for name in sorted(arrays)), *([] if labels is None else [labels])]:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.asarray(array).tobytes())
    return from_arrays(f"{module}:{function}", digest.hexdigest(), arrays, labels, inputs, classes)


def _limited(items: Iterable[tuple[dict[str, Any], Any]]) -> Iterable[tuple[dict[str, Any], Any]]:
    """Yield items until they exceed `MOST_FUNCTION_BYTES`."""
    total = 0
    for item in items:
        total += sum(np.asarray(array).nbytes for array in item[0].values())
        if total > MOST_FUNCTION_BYTES:
            raise SamplesError(
                f"the function yielded more than {MOST_FUNCTION_BYTES:,} bytes of samples, which stay in memory",
                hint="yield fewer samples (100 to 500 are typical), or write them to an .npy, which is read by sample",
            )
        yield item


def _items(yielded: Iterable[Any], inputs: Sequence[InputSpec]) -> Iterable[tuple[dict[str, Any], Any]]:
    """Convert each value that a function yields to (arrays by input name, label or None)."""
    for item in yielded:
        label = None
        if isinstance(item, tuple) and len(item) == 2 and np.ndim(item[1]) == 0 and len(inputs) != 2:
            item, label = item
        if isinstance(item, dict):
            missing = [name for name in _names(inputs) if name not in item]
            if missing:
                raise SamplesError(f"a sample lacks the input '{missing[0]}'; it has {', '.join(map(str, item))}")
            yield item, label
        elif len(inputs) == 1:
            yield {inputs[0].name: item}, label
        elif isinstance(item, list | tuple) and len(item) == len(inputs):
            yield dict(zip(_names(inputs), item, strict=True)), label
        else:
            raise SamplesError(f"the model has {len(inputs)} inputs: yield a dict with {', '.join(_names(inputs))}")


def _without_batch(array: Array, spec: InputSpec) -> Array:
    return array[0] if spec.batched and array.ndim == len(spec.shape) and array.shape[0] == 1 else array


def _images_in(folder: Path) -> tuple[Path, ...]:
    """Return the images below a folder, in the order of their paths.

    Raises:
        SamplesError: There are none.
    """
    files = tuple(sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()))
    if not files:
        raise SamplesError(
            f"the folder '{folder.name}' contains no images", hint=f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return files


def _from_images(
    path: Path,
    files: Sequence[Path],
    inputs: Sequence[InputSpec],
    preprocess: Preprocess | None,
    resize: Resize,
    *,
    folders: bool = False,
    classes: Sequence[str] = (),
    truth: Truth | None = None,
) -> SampleSet:
    """Return images as samples of the only input.

    Args:
        path: What the user named.
        files: The images.
        inputs: The model's inputs.
        preprocess: Conversion of pixels to values.
        resize: How they get the input's size.
        folders: The images' folders below `path` are their classes.
        classes: Names of the model's classes in their order.
        truth: What is true of each image.
    """
    require_module("PIL", "pillow", "a folder of images")
    if (
        len(inputs) != 1
        or len(inputs[0].shape) != 4
        or inputs[0].shape[3] not in {1, 3}
        or min(inputs[0].shape[1:3]) < 1
    ):
        raise SamplesError(
            "images need a model with one input of shape [1, height, width, 1 or 3]; this model has "
            + "; ".join(spec.describe() for spec in inputs),
            hint="write the samples to an .npz with arrays named like the inputs",
        )
    spec = inputs[0]
    names, numbers = _classes_by_folder(path, files, classes) if folders else ((), None)
    if truth is not None and truth.categories is not None:
        names = tuple(truth.categories[number] for number in sorted(truth.categories))
    notes = []
    if preprocess is not None and not preprocess.fits(spec.shape[3]):
        raise SamplesError(
            f"--preprocess: the input '{spec.name}' has {spec.shape[3]} channel, got {len(preprocess.mean)} means",
            hint="give MEAN,STD",
        )
    if preprocess is None and spec.scale:
        # A quantized input gets unscaled pixels. Samples have real values, so apply the inverse of the input's scale.
        shift = 128 if spec.dtype == np.int8 else 0
        preprocess = Preprocess(mean=(spec.zero_point + shift,), std=(1.0 / spec.scale,))
        notes.append("the quantized input gets unscaled pixels")
    elif preprocess is None:
        preprocess = Preprocess()
        if spec.dtype.kind == "f":
            notes.append(
                "pixels are scaled to 0..1; set --preprocess MEAN,STD if the model was trained with other values"
            )
    digests = tuple(hashlib.sha256(image_bytes(file)).digest() for file in files)
    # Nothing for the usual way: what earlier versions stored stays valid.
    way = "" if resize == Resize.STRETCH else f"/{resize}"
    return SampleSet(
        source=path.name,
        digest=_files_digest(path, files, digests, truth) + f"/{preprocess.to_json()}{way}",
        arrays={},
        images=tuple(file.absolute() for file in files),
        image_digests=digests,
        shapes={spec.name: (1, *spec.shape[1:])},
        dtypes={spec.name: spec.sample_dtype},
        labels=numbers,
        label_names=names,
        preprocess=preprocess,
        resize=resize,
        truth=truth,
        notes=tuple(notes),
    )


def _classes_by_folder(
    path: Path, files: Sequence[Path], classes: Sequence[str]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64] | None]:
    """Return the names of the classes and the class of each image; nothing for images that are in no folders."""
    parts = [file.relative_to(path).parts for file in files]
    if any(len(one) < 2 for one in parts):
        return (), None
    folders = sorted({one[0] for one in parts})
    if set(folders) <= set(classes):
        # The order of the labels is that of the model's outputs; folders come in alphabetical order.
        folders = list(classes)
    return tuple(folders), np.asarray([folders.index(one[0]) for one in parts], np.int64)


def _files_digest(path: Path, files: Sequence[Path], digests: Sequence[bytes], truth: Truth | None) -> str:
    """Return the SHA-256 of the names and contents of images, and of what is true of them."""
    whole = hashlib.sha256()
    root = path if path.is_dir() else path.absolute().parent.parent
    for file, digest in zip(files, digests, strict=True):
        whole.update(file.relative_to(root).as_posix().encode("utf-8", "surrogateescape") + b"\0" + digest)
    if truth is not None:
        whole.update(repr((truth.sizes, truth.objects, sorted((truth.categories or {}).items()))).encode())
        whole.update(b"".join(truth.mask_digests))
    return whole.hexdigest()


def _names(inputs: Sequence[InputSpec]) -> list[str]:
    return [spec.name for spec in inputs]


def from_arrays(
    source: str,
    digest: str,
    arrays: dict[str, Array | StoredArray],
    labels: Array | StoredArray | None,
    inputs: Sequence[InputSpec],
    classes: Sequence[str],
) -> SampleSet:
    """Match arrays, with the samples as their first dimension, to a model's inputs.

    Args:
        source: Name of the samples, for messages.
        digest: SHA-256 of the content.
        arrays: Arrays by input name; of one input, any name.
        labels: Class indices, one-hot rows or class names, None without.
        inputs: The model's inputs.
        classes: Names of the model's classes in their order, empty when they are unknown.

    Raises:
        SamplesError: The arrays do not match the inputs, or the labels are none.
    """
    if len(inputs) == 1 and inputs[0].name not in arrays and len(arrays) == 1:
        # One input and one array: its name does not matter (x, or the name of a layer).
        arrays = {inputs[0].name: next(iter(arrays.values()))}
    elif len(inputs) == 1 and inputs[0].name not in arrays and "x" in arrays:
        arrays = {inputs[0].name: arrays["x"]}
    missing = [name for name in _names(inputs) if name not in arrays]
    if missing:
        raise SamplesError(
            f"samples '{source}' lack the input '{missing[0]}': expected {'; '.join(s.describe() for s in inputs)}, "
            f"got {', '.join(f'{name!r} {list(a.shape)}' for name, a in arrays.items()) or 'no arrays'}",
            hint="name the arrays like the model's inputs (edgepack inspect MODEL shows them)",
        )
    fitted = {spec.name: _fit(source, arrays[spec.name], spec) for spec in inputs}
    counts = {name: len(array) for name, array in fitted.items()}
    if len(set(counts.values())) > 1:
        raise SamplesError(f"samples '{source}' have different lengths: {counts}")
    count = next(iter(counts.values()))
    if count == 0:
        raise SamplesError(f"samples '{source}' are empty")
    return SampleSet(
        source=source,
        digest=digest,
        arrays=fitted,
        shapes={spec.name: ((1,) if spec.batched else ()) + fitted[spec.name].shape[1:] for spec in inputs},
        dtypes={spec.name: spec.sample_dtype for spec in inputs},
        labels=None if labels is None else _labels(source, labels, count, classes),
    )


def _fit(source: str, array: Array | StoredArray, spec: InputSpec) -> Array | StoredArray:
    """Return `array` with shape (samples, *shape of one sample) and real values.

    Raises:
        SamplesError: Shape or dtype do not match the input.
    """
    expected = spec.sample_shape
    # A stack of inputs with their batch dimension, (samples, 1, ...), is accepted too; so is (samples, 1) for numbers.
    rank = len(array.shape)
    if rank == len(expected) + 2 and array.shape[1] == 1:
        shape, rank = (array.shape[0], *array.shape[2:]), rank - 1
        array = replace(array, shape=shape) if isinstance(array, StoredArray) else array.reshape(shape)
    if array.dtype.kind not in "fiub":
        raise SamplesError(f"samples '{source}': input '{spec.name}' has the type {array.dtype}, expected numbers")
    fits = rank == len(expected) + 1 and all(
        size in (-1, actual) for size, actual in zip(expected, array.shape[1:], strict=True)
    )
    if not fits:
        hint = "the first dimension is the number of samples"
        if len(expected) == 3 and rank == 4 and array.shape[1:] == (expected[2], expected[0], expected[1]):
            hint = "the samples are channels-first (NCHW): transpose them with x.transpose(0, 2, 3, 1)"
        elif array.shape == expected:
            hint = "this is a single sample: add a dimension for the samples, x[None]"
        raise SamplesError(
            f"samples '{source}': input '{spec.name}': expected shape [{', '.join(map(str, ('samples', *expected)))}], "
            f"got {list(array.shape)}",
            hint=hint,
        )
    if spec.scale and array.dtype == spec.dtype:
        # Integers of the input's own type are quantized values of the input.
        if isinstance(array, StoredArray):
            return array.dequantized(spec.scale, spec.zero_point)
        return ((array.astype(np.float32) - spec.zero_point) * np.float32(spec.scale)).astype(np.float32)
    return array


def _labels(
    source: str, source_labels: Array | StoredArray, count: int, classes: Sequence[str]
) -> npt.NDArray[np.int64]:
    labels = source_labels.read_all() if isinstance(source_labels, StoredArray) else source_labels
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind in "US" and labels.ndim == 1:
        labels = _numbers(source, labels, classes)
    if labels.ndim == 2:
        labels = labels.argmax(axis=1)  # one-hot
    if labels.ndim != 1 or len(labels) != count or labels.dtype.kind not in "fiub":
        raise SamplesError(
            f"samples '{source}': labels have shape {list(labels.shape)}, expected [{count}]",
            hint="give one class index per sample, or one-hot rows",
        )
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.floor(labels)):
        raise SamplesError(f"samples '{source}': labels are not whole numbers", hint="give class indices 0, 1, 2, ...")
    if labels.size and labels.min() < 0:
        raise SamplesError(f"samples '{source}': a label is {int(labels.min())}; class indices start at 0")
    return labels.astype(np.int64)


def _numbers(source: str, labels: Array, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the class index of each label that is a name.

    Raises:
        SamplesError: A label is not among the names of the classes.
    """
    names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in labels.tolist()]
    order = {name: number for number, name in enumerate(classes or sorted(set(names)))}
    unknown = next((name for name in names if name not in order), None)
    if unknown is not None:
        raise SamplesError(
            f"samples '{source}': the label '{unknown[:40]}' is not among the {len(order)} class names",
            hint="use the names of --labels, or class indices 0, 1, 2, ...",
        )
    return np.array([order[name] for name in names], np.int64)
