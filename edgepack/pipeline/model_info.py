"""Descriptions of a model: names, texts, pixel normalization and labels.

Sources are options, a `model.toml` and the standard metadata of the user's own .tflite, in this order of precedence.
The result goes into the bundle's loaders and into the metadata of the file that ships.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from edgepack import documents
from edgepack.documents import DocumentError, read_toml
from edgepack.errors import ModelFileError, UsageError
from edgepack.files import open_regular
from edgepack.graph import Model
from edgepack.graph.metadata import (
    ModelInfo,
    TensorMetadata,
    copy_metadata,
    normalization_fault,
    read_metadata,
    write_metadata,
)
from edgepack.profiles.faults import is_number, shown
from edgepack.runtime.class_scores import labelled_vector
from edgepack.runtime.runner import TensorInfo, model_inputs, model_outputs
from edgepack.samples import Preprocess

#: Keys of model.toml: for the model, for each input and for each output.
_MODEL_KEYS = ("name", "description", "version", "author", "license")
_INPUT_KEYS = ("tensor", "name", "description", "mean", "std")
_OUTPUT_KEYS = ("tensor", "name", "description", "labels", "labels_file")
_COLORS = {1: "grayscale", 3: "rgb"}
#: Upper limit of a file of labels, as for other documents; ImageNet's 21,841 names have 0.5 MB.
_LARGEST_LABELS = documents.LARGEST


def own_metadata(tflite: bytes) -> tuple[ModelInfo | None, tuple[str, ...]]:
    """Return a file's metadata, and a note for each part of it that cannot be used."""
    try:
        info = read_metadata(tflite)
    except ModelFileError as error:
        return None, (f"{error.message}; it is ignored",)
    if info is None:
        return None, ()
    notes = []
    sides = {"input": list(info.inputs), "output": list(info.outputs)}
    for side, entries in sides.items():
        for position, entry in enumerate(entries):
            if fault := normalization_fault(entry.mean, entry.std):
                entries[position] = replace(entry, mean=(), std=())
                notes.append(f"the file's metadata of {side} {position} '{entry.name}': {fault}; it is ignored")
    return replace(info, inputs=tuple(sides["input"]), outputs=tuple(sides["output"])), tuple(notes)


def describe_model(
    model: Model,
    *,
    name: str,
    own: ModelInfo | None,
    toml: ModelInfo | None = None,
    labels: Sequence[str] = (),
    preprocess: Preprocess | None = None,
) -> ModelInfo:
    """Merge the descriptions of a model; the source closer to the command line has precedence.

    Args:
        model: The model whose inputs and outputs are described.
        name: Name of the bundle.
        own: Metadata of the user's file.
        toml: Content of `model.toml`.
        labels: Class names from the user or from the sample folders.
        preprocess: Normalization of pixels, None where it is unknown.

    Raises:
        UsageError: The number of labels does not match any output.
    """
    inputs, outputs = model_inputs(model), model_outputs(model)
    classes = labelled_output(outputs, labels)
    if classes is None:
        classes = _labelled_axis(outputs, labels)
    if labels and classes is None:
        sizes = ", ".join(f"'{info.name}' {list(info.shape)}" for info in outputs)
        raise UsageError(
            f"there are {len(labels)} labels, but no output has {len(labels)} classes: {sizes}",
            hint="the model returns class numbers: map them to names in the app, or end the model before ARG_MAX"
            if any(info.dtype.kind in "iu" and not info.quantized for info in outputs)
            else "give one label per class in the order of the output; --metadata says which output they belong to",
        )
    flags = ModelInfo(
        inputs=tuple(_pixels(tensor, preprocess) for tensor in inputs),
        outputs=tuple(
            TensorMetadata(labels=tuple(labels)) if position == classes else TensorMetadata()
            for position in range(len(outputs))
        ),
    )
    names = ModelInfo(
        name=name,
        inputs=tuple(TensorMetadata(name=tensor.name) for tensor in inputs),
        outputs=tuple(TensorMetadata(name=tensor.name) for tensor in outputs),
    )
    info = flags if toml is None else _merged(flags, toml)
    for tensor, entry in (*zip(inputs, info.inputs, strict=False), *zip(outputs, info.outputs, strict=False)):
        _require_fit(tensor, entry)
    if own is not None:
        info = _merged(info, _fitting(own, inputs, outputs))
    info = _merged(info, names)
    return replace(info, inputs=tuple(map(_colored, inputs, info.inputs)))


def labelled_output(outputs: Sequence[TensorInfo], labels: Sequence[str]) -> int | None:
    """Return the position of the output that has a score for each label, None when there is none."""
    classes = labelled_vector([info.shape for info in outputs], len(labels) - 1 if labels else None)
    return None if classes is None or outputs[classes].shape[-1] != len(labels) else classes


#: Parts of the names that authors give to outputs with scores of classes.
_SCORES = re.compile(r"score|class|cls|prob|logit|label|conf|seg|mask", re.IGNORECASE)


def _labelled_axis(outputs: Sequence[TensorInfo], labels: Sequence[str]) -> int | None:
    """Return the position of the output with a score for each label along its last axis, None when it is not clear.

    A detector has the scores of its anchors in [1, anchors, classes], a segmentation those of its pixels in
    [1, height, width, classes]. Of several such outputs, the one that is named like scores is meant.
    """
    found = [at for at, info in enumerate(outputs) if len(info.shape) > 2 and info.shape[-1] == len(labels) > 1]
    named = [at for at in found if _SCORES.search(outputs[at].name)]
    for chosen in (found, named):
        if len(chosen) == 1:
            return chosen[0]
    return None


def with_metadata(tflite: bytes, info: ModelInfo, source: bytes, own: ModelInfo | None, *, new: bool) -> bytes:
    """Return a file with the model's metadata.

    Args:
        tflite: The file that ships.
        info: Description of the model.
        source: The user's model as a .tflite, perhaps with metadata of its own.
        own: Content of that metadata, None without.
        new: True when options, samples or a model.toml add to the source's own metadata.
    """
    if new:
        return write_metadata(tflite, info)
    # The author's metadata is copied whole, with the parts that edgepack does not read.
    return tflite if own is None or own_metadata(tflite)[0] == own else copy_metadata(source, tflite)


def pixel_rule(info: ModelInfo, inputs: Sequence[TensorInfo]) -> Preprocess | None:
    """Return the pixel normalization of the first image input, None where it is unknown."""
    for tensor, entry in zip(inputs, info.inputs, strict=False):
        if is_image(tensor.shape) and entry.mean:
            return Preprocess(entry.mean, entry.std)
    return None


def read_model_toml(path: Path, model: Model) -> ModelInfo:
    """Read a `model.toml`.

    Its keys are name, description, version, author and license, and a table per tensor, in the model's order or with
    `tensor = "name"`: `[[inputs]]` with name, description, mean and std (one number or one per channel), `[[outputs]]`
    with name, description and labels (a list) or labels_file (one name per line, beside the model.toml).

    Args:
        path: The file.
        model: The model that it describes.

    Raises:
        UsageError: The file cannot be read, or does not match the model.
    """
    try:
        document, _ = read_toml(path)
    except DocumentError as error:
        raise UsageError(f"--metadata: cannot read '{path}': {error}") from error
    _only(document, (*_MODEL_KEYS, "inputs", "outputs"), path)
    texts = {key: _text(document, key, path) for key in _MODEL_KEYS}
    return ModelInfo(
        **texts,
        inputs=_tensors(document, "inputs", model.input_names(), path),
        outputs=_tensors(document, "outputs", model.output_names(), path),
    )


def read_labels(path: Path, option: str = "--labels") -> tuple[str, ...]:
    """Return the class names of a file with one name per line; blank lines at the end are ignored.

    Args:
        path: The file.
        option: Option or key that names the file, for messages.

    Raises:
        UsageError: The file cannot be read, is empty, too large or not text.
    """
    try:
        # Opened first: only what is open is known to be a regular file of this size.
        with open_regular(path) as stream:
            raw = stream.read(_LARGEST_LABELS + 1)
        if len(raw) > _LARGEST_LABELS:
            raise UsageError(f"{option}: '{path}' has more than {_LARGEST_LABELS:,} bytes: expected one name per line")
        lines = raw.decode("utf-8-sig").splitlines()
    # A ValueError that is no UnicodeDecodeError comes from a path with a NUL.
    except (OSError, ValueError) as error:
        raise UsageError(f"{option}: cannot read {str(path)!r} as UTF-8 text: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UsageError(f"{option}: '{path}' is empty", hint="write one class name per line")
    return tuple(line.strip() for line in lines)


def _tensors(document: Mapping[str, Any], side: str, names: Sequence[str], path: Path) -> tuple[TensorMetadata, ...]:
    entries = document.get(side, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _fault(path, f"{side}: expected [[{side}]] tables, got {shown(entries)}")
    if len(entries) > len(names):
        raise _fault(path, f"there are {len(entries)} [[{side}]], but the model has {len(names)}")
    tensors = [TensorMetadata()] * len(names)
    described: set[int] = set()
    for position, entry in enumerate(entries):
        place = f"[[{side}]][{position}]"
        tensor = _text(entry, "tensor", path, place) or names[position]
        if tensor not in names:
            raise _fault(path, f"{place}.tensor: expected one of {', '.join(names)}, got {shown(tensor)}")
        index = names.index(tensor)
        if index in described:
            raise _fault(path, f"{place}: '{tensor}' is described by an earlier table as well")
        described.add(index)
        tensors[index] = _input(entry, path, place) if side == "inputs" else _output(entry, path, place)
    return tuple(tensors)


def _input(entry: Mapping[str, Any], path: Path, place: str) -> TensorMetadata:
    _only(entry, _INPUT_KEYS, path, place)
    mean, std = _numbers(entry, "mean", path, place), _numbers(entry, "std", path, place)
    if fault := normalization_fault(mean, std):
        raise _fault(path, f"{place}: {fault}")
    return TensorMetadata(_text(entry, "name", path, place), _text(entry, "description", path, place), mean, std)


def _output(entry: Mapping[str, Any], path: Path, place: str) -> TensorMetadata:
    _only(entry, _OUTPUT_KEYS, path, place)
    labels = entry.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise _fault(path, f"{place}.labels: expected a list of strings, got {shown(labels)}")
    file = _text(entry, "labels_file", path, place)
    if file and labels:
        raise _fault(path, f"{place}: give labels or labels_file, not both")
    names = read_labels(path.parent / file, f"--metadata: '{path.name}': {place}.labels_file") if file else labels
    return TensorMetadata(
        _text(entry, "name", path, place), _text(entry, "description", path, place), labels=tuple(names)
    )


def _only(table: Mapping[str, Any], keys: Sequence[str], path: Path, place: str = "") -> None:
    for key in table:
        if key not in keys:
            raise _fault(path, f"{_key(place, key)}: unknown key, expected {', '.join(keys)}")


def _text(table: Mapping[str, Any], key: str, path: Path, place: str = "") -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise _fault(path, f"{_key(place, key)}: expected a string, got {shown(value)}")
    return value


def _numbers(table: Mapping[str, Any], key: str, path: Path, place: str) -> tuple[float, ...]:
    value = table.get(key, [])
    numbers = value if isinstance(value, list) else [value]
    if not all(map(is_number, numbers)):
        raise _fault(path, f"{_key(place, key)}: expected a number or a list of numbers, got {shown(value)}")
    return tuple(float(number) for number in numbers)


def _key(place: str, key: str) -> str:
    # A key of TOML may be any text.
    name = key if key.isidentifier() and len(key) < 80 else shown(key)
    return f"{place}.{name}" if place else name


def _fault(path: Path, what: str) -> UsageError:
    return UsageError(
        f"--metadata: '{path.name}': {what}", hint="docs/reference/commands/build.md shows a complete model.toml"
    )


def is_image(shape: Sequence[int]) -> bool:
    """Return whether a tensor of a shape holds one image: [1, height, width, 1 or 3]."""
    return len(shape) == 4 and shape[3] in _COLORS


def _pixels(info: TensorInfo, preprocess: Preprocess | None) -> TensorMetadata:
    """Return the normalization of an image input; other inputs have none."""
    if preprocess is None or not is_image(info.shape) or not preprocess.fits(info.shape[3]):
        return TensorMetadata()
    return TensorMetadata(mean=preprocess.mean, std=preprocess.std)


def _merged(first: ModelInfo, second: ModelInfo) -> ModelInfo:
    """Return the first description, completed from the second."""

    def side(name: str) -> tuple[TensorMetadata, ...]:
        pairs = zip_longest(getattr(first, name), getattr(second, name), fillvalue=TensorMetadata())
        return tuple(_merged_tensor(one, other) for one, other in pairs)

    texts = {key: getattr(first, key) or getattr(second, key) for key in _MODEL_KEYS}
    return ModelInfo(**texts, inputs=side("inputs"), outputs=side("outputs"))


def _merged_tensor(first: TensorMetadata, second: TensorMetadata) -> TensorMetadata:
    values = {field.name: getattr(first, field.name) or getattr(second, field.name) for field in fields(first)}
    return replace(first, **values)


def _misfit(tensor: TensorInfo, entry: TensorMetadata) -> str:
    """Return what does not match a tensor's last dimension, empty when everything does."""
    last = tensor.shape[-1] if tensor.shape else 1
    if entry.labels and len(entry.labels) != last:
        return f"{last} values, but {len(entry.labels)} labels"
    counts = {len(values) for values in (entry.mean, entry.minimum, entry.maximum)}
    return "" if counts <= {0, 1, last} else f"{last} channels, but {max(counts)} normalization values"


def _require_fit(tensor: TensorInfo, entry: TensorMetadata) -> None:
    misfit = _misfit(tensor, entry)
    if misfit:
        raise UsageError(
            f"'{tensor.name}' {list(tensor.shape)} has {misfit}",
            hint="give one label per class in the order of the output, one mean and std or one per channel",
        )


def _fitting(own: ModelInfo, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> ModelInfo:
    """Return a file's own metadata without entries that do not match the tensors, such as labels of another axis."""

    def kept(tensors: Sequence[TensorInfo], entries: Sequence[TensorMetadata]) -> tuple[TensorMetadata, ...]:
        return tuple(
            replace(entry, labels=(), mean=(), std=(), minimum=(), maximum=()) if _misfit(tensor, entry) else entry
            for tensor, entry in zip(tensors, entries, strict=False)
        )

    return replace(own, inputs=kept(inputs, own.inputs), outputs=kept(outputs, own.outputs))


def _colored(tensor: TensorInfo, entry: TensorMetadata) -> TensorMetadata:
    """Set the colour space of an image whose pixel normalization is known."""
    image = entry.mean and is_image(tensor.shape) and not entry.color
    return replace(entry, color=_COLORS[tensor.shape[3]]) if image else entry
