"""Standard TFLite metadata in a file: names, descriptions, input normalization and labels.

The metadata is a separate flatbuffer (`metadata_schema.fbs`, file identifier M001) in the model's metadata buffer
`TFLITE_METADATA`; label files are in a zip archive appended to the file, which runtimes ignore. No dependency of
edgepack contains the generated classes of the schema, so fields are written and read by their numbers.

Rewriting a file, for example quantizing it, drops the archive: read metadata first, and write it or call
`copy_metadata` last.
"""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.errors import ModelFileError
from edgepack.graph.edit import pack, unpack, used_buffers
from edgepack.graph.read import read_model, schema

_ENTRY = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
#: Schema version that a parser needs for the fields written here: all are in the first version.
_PARSER = "1.0.0"
#: AssociatedFileType.
_AXIS_LABELS, _VALUE_LABELS = 2, 3
#: ContentProperties and ProcessUnitOptions, the unions' types.
_IMAGE, _NORMALIZATION = 2, 1
_COLORS = {"rgb": 1, "grayscale": 2}
#: Upper limits of the size of the archive's files and of lists, far above real ones: a small archive may unpack to any
#: size.
_LARGEST_FILE = 1 << 24
_MOST_PARTS = 64
_BROKEN = (struct.error, IndexError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True)
class TensorMetadata:
    """Metadata of an input or output.

    Attributes:
        name: Display name.
        description: One sentence.
        mean: Normalization of inputs, (value - mean) / std: one number, or one per channel; empty when unknown.
        std: As many numbers as `mean`.
        color: `rgb` or `grayscale` for an image, otherwise empty.
        labels: One label per value of the last dimension.
        minimum: Smallest real value, one number or one per channel; empty when unknown.
        maximum: Largest real value, in the same form.
    """

    name: str = ""
    description: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    color: str = ""
    labels: tuple[str, ...] = ()
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """Metadata of a model.

    Attributes:
        name: Display name.
        description: One sentence or more.
        version: The author's version.
        author: The author.
        license: Its licence.
        inputs: In the order of the main graph's inputs; may be fewer.
        outputs: In the order of the main graph's outputs; may be fewer.
    """

    name: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    inputs: tuple[TensorMetadata, ...] = ()
    outputs: tuple[TensorMetadata, ...] = ()


def read_metadata(tflite: bytes) -> ModelInfo | None:
    """Return a file's metadata, None when it has none.

    Args:
        tflite: The file, with its archive.

    Raises:
        ModelFileError: The file or its metadata is broken.
    """
    model = read_model(tflite)
    raw = model.metadata.get(_ENTRY)
    if raw is None:
        return None
    try:
        files = associated_files(tflite)
        return _Reader(raw, files).info(len(model.main.inputs), len(model.main.outputs))
    except _BROKEN as error:
        raise ModelFileError(
            f"the file's TFLite metadata cannot be read: {type(error).__name__}",
            hint="write the metadata again, or remove it from the file",
        ) from error


def write_metadata(tflite: bytes, info: ModelInfo) -> bytes:
    """Return the file with this metadata in place of its old one.

    Args:
        tflite: The file.
        info: The metadata. Line breaks inside labels become spaces.

    Raises:
        ModelFileError: The bytes are no .tflite, or `info` does not match the model.
    """
    graph = read_model(tflite).main
    for kind, tensors, indices in (("inputs", info.inputs, graph.inputs), ("outputs", info.outputs, graph.outputs)):
        if len(tensors) > len(indices):
            raise ModelFileError(f"metadata: expected at most {len(indices)} {kind}, got {len(tensors)}")
        for tensor, index in zip(tensors, indices, strict=False):
            _check(tensor, graph.tensors[index].shape)
    files = {
        f"{kind}_{number}_labels.txt": "".join(f"{' '.join(label.splitlines())}\n" for label in tensor.labels).encode()
        for kind, tensors in (("input", info.inputs), ("output", info.outputs))
        for number, tensor in enumerate(tensors)
        if tensor.labels
    }
    return _attach(tflite, _Writer().info(info), files)


def copy_metadata(source: bytes, target: bytes) -> bytes:
    """Return `target` with all metadata of `source`, including fields that edgepack does not know.

    Args:
        source: A file; if it has no metadata, `target` is returned unchanged.
        target: A file derived from it, with the same inputs and outputs.

    Raises:
        ModelFileError: A file is broken.
    """
    raw = read_model(source).metadata.get(_ENTRY)
    return target if raw is None else _attach(target, raw, associated_files(source))


def associated_files(tflite: bytes) -> dict[str, bytes]:
    """Return the files of the archive behind a .tflite by name, empty without one.

    Raises:
        ModelFileError: The archive is broken or its files are unreasonably large.
    """
    stream = io.BytesIO(tflite)
    if not zipfile.is_zipfile(stream):
        return {}
    try:
        with zipfile.ZipFile(stream) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > _LARGEST_FILE:
                raise ModelFileError(f"the file's archive contains more than {_LARGEST_FILE >> 20} MiB")
            return {entry.filename: archive.read(entry) for entry in entries}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        struct.error,
    ) as error:
        raise ModelFileError("the archive behind the model cannot be read") from error


def normalization_fault(mean: Sequence[float], std: Sequence[float]) -> str:
    """Return what is wrong with a normalization of pixels, (pixel - mean) / std; empty when it can be used.

    It is judged in float32, the type of the metadata and of the loaders. A negative std inverts an image.
    """
    if len(mean) != len(std):
        return f"expected as many std as mean, got {list(mean)} and {list(std)}"
    with np.errstate(all="ignore"):
        means, stds = (np.asarray(values, np.float64).astype(np.float32) for values in (mean, std))
        pixels = np.array([[0.0], [255.0]], np.float32)
        usable = bool(np.isfinite([means, stds]).all() and np.isfinite((pixels - means) / stds).all())
    return "" if usable else f"expected finite numbers and no std of 0, got mean {list(mean)} and std {list(std)}"


def _check(tensor: TensorMetadata, shape: Sequence[int]) -> None:
    name = tensor.name
    channels = shape[-1] if shape else 1
    for what, values in (("mean", tensor.mean), ("minimum", tensor.minimum), ("maximum", tensor.maximum)):
        if len(values) not in {0, 1, channels}:
            raise ModelFileError(f"metadata of '{name}': expected 1 or {channels} values of {what}, got {len(values)}")
    if fault := normalization_fault(tensor.mean, tensor.std):
        raise ModelFileError(f"metadata of '{name}': {fault}")
    if tensor.color and tensor.color not in _COLORS:
        raise ModelFileError(f"metadata of '{name}': expected {' or '.join(_COLORS)}, got '{tensor.color}'")
    if tensor.labels and len(tensor.labels) != channels:
        raise ModelFileError(f"metadata of '{name}': expected {channels} labels, got {len(tensor.labels)}")


def _attach(tflite: bytes, raw: bytes, files: Mapping[str, bytes]) -> bytes:
    """Return the file with this metadata and archive in place of its old ones."""
    model = unpack(tflite)
    model.metadata = [entry for entry in model.metadata or [] if entry.name != _ENTRY.encode()]
    entry, buffer = schema().MetadataT(), schema().BufferT()
    buffer.data = np.frombuffer(raw, np.uint8)
    entry.name = _ENTRY.encode()
    entry.buffer = _free_buffer(model)
    if entry.buffer == len(model.buffers):
        model.buffers.append(buffer)
    else:
        model.buffers[entry.buffer] = buffer
    model.metadata.append(entry)
    stream = io.BytesIO(pack(model))
    if files:
        stream.seek(0, io.SEEK_END)
        with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
            for name, data in sorted(files.items()):
                # A fixed date and system: the same input gives the same bytes.
                header = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                header.create_system, header.external_attr = 3, 0o644 << 16
                archive.writestr(header, data)
    return stream.getvalue()


def _free_buffer(model: Any) -> int:
    """Return the index of the last buffer if it is unused, as after metadata was replaced, else of a new one."""
    last = len(model.buffers) - 1
    # The schema reserves buffer 0 as the empty one.
    return last + 1 if last <= 0 or last in used_buffers(model) else last


class _Writer:
    """Builds the metadata's flatbuffer; field numbers are those of metadata_schema.fbs."""

    def __init__(self) -> None:
        import flatbuffers

        self._builder: Any = flatbuffers.Builder(1024)

    def info(self, info: ModelInfo) -> bytes:
        graph = self._table(
            {
                2: self._tables([self._tensor(t, f"input_{n}_labels.txt") for n, t in enumerate(info.inputs)]),
                3: self._tables([self._tensor(t, f"output_{n}_labels.txt") for n, t in enumerate(info.outputs)]),
            }
        )
        root = self._table(
            {
                0: self._text(info.name),
                1: self._text(info.description),
                2: self._text(info.version),
                3: self._tables([graph]),
                4: self._text(info.author),
                5: self._text(info.license),
                7: self._text(_PARSER),
            }
        )
        self._builder.Finish(root, _IDENTIFIER)
        return bytes(self._builder.Output())

    def _tensor(self, tensor: TensorMetadata, file: str) -> int:
        parts = {0: self._text(tensor.name), 1: self._text(tensor.description)}
        if tensor.color:
            image = self._table({}, {0: _COLORS[tensor.color]})
            parts[3] = self._table({1: image}, {0: _IMAGE})
        if tensor.mean:
            options = self._table({0: self._floats(tensor.mean), 1: self._floats(tensor.std)})
            parts[4] = self._tables([self._table({1: options}, {0: _NORMALIZATION})])
        if tensor.minimum or tensor.maximum:
            parts[5] = self._table({0: self._floats(tensor.maximum), 1: self._floats(tensor.minimum)})
        if tensor.labels:
            parts[6] = self._tables([self._table({0: self._text(file)}, {2: _AXIS_LABELS})])
        return self._table(parts)

    def _text(self, text: str) -> int:
        # 0 means that the field is left out.
        return int(self._builder.CreateString(text.encode("utf-8", "replace"))) if text else 0

    def _floats(self, values: Sequence[float]) -> int:
        return int(self._builder.CreateNumpyVector(np.asarray(values, np.float32))) if values else 0

    def _tables(self, offsets: Sequence[int]) -> int:
        if not offsets:
            return 0
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _table(self, offsets: Mapping[int, int], numbers: Mapping[int, int] | None = None) -> int:
        """Write a table of offsets and one-byte numbers, by field number."""
        numbers = numbers or {}
        self._builder.StartObject(1 + max([0, *offsets, *numbers]))
        for number, offset in sorted(offsets.items()):
            self._builder.PrependUOffsetTRelativeSlot(number, offset, 0)
        for number, value in sorted(numbers.items()):
            self._builder.PrependInt8Slot(number, value, 0)
        return int(self._builder.EndObject())


class _Reader:
    """Reads the metadata's flatbuffer; every position is checked, because files are untrusted."""

    def __init__(self, raw: bytes, files: Mapping[str, bytes]) -> None:
        self._raw = raw
        self._files = files

    def info(self, inputs: int, outputs: int) -> ModelInfo:
        root = self._number("<I", 0)
        graphs = self._tables(root, 3, 1)
        sides: list[tuple[TensorMetadata, ...]] = [(), ()]
        for graph in graphs:
            sides = [
                tuple(map(self._tensor, self._tables(graph, field, most)))
                for field, most in ((2, inputs), (3, outputs))
            ]
        name, description, version, author, license_ = (self._text(root, number) for number in (0, 1, 2, 4, 5))
        return ModelInfo(name, description, version, author, license_, *sides)

    def _tensor(self, table: int) -> TensorMetadata:
        fields: dict[str, Any] = {"name": self._text(table, 0), "description": self._text(table, 1)}
        content = self._table(table, 3)
        if content and self._byte(content, 0) == _IMAGE:
            image = self._table(content, 1)
            colors = {number: name for name, number in _COLORS.items()}
            fields["color"] = colors.get(self._byte(image, 0), "") if image else ""
        for unit in self._tables(table, 4, _MOST_PARTS):
            options = self._table(unit, 1)
            if options and self._byte(unit, 0) == _NORMALIZATION:
                fields["mean"], fields["std"] = self._floats(options, 0), self._floats(options, 1)
        stats = self._table(table, 5)
        if stats:
            fields["maximum"], fields["minimum"] = self._floats(stats, 0), self._floats(stats, 1)
        fields["labels"] = self._labels(self._tables(table, 6, _MOST_PARTS))
        return TensorMetadata(**fields)

    def _labels(self, entries: Sequence[int]) -> tuple[str, ...]:
        """Return the labels of the first file that has any; files without a language come first."""
        label_files = [entry for entry in entries if self._byte(entry, 2) in {_AXIS_LABELS, _VALUE_LABELS}]
        for entry in sorted(label_files, key=lambda entry: self._text(entry, 3) != ""):
            data = self._files.get(self._text(entry, 0))
            if data:
                lines = data.decode("utf-8", "replace").split("\n")
                return tuple(line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1]))
        return ()

    # -- structures of the flatbuffer -------------------------------------------------------------------------------

    def _number(self, kind: str, position: int) -> int:
        if position < 0:
            raise ValueError("a position before the start")
        return int(struct.unpack_from(kind, self._raw, position)[0])

    def _field(self, table: int, number: int) -> int:
        """Return the position of a field of a table, 0 when it is left out."""
        vtable = table - self._number("<i", table)
        slot = 4 + 2 * number
        if slot >= self._number("<H", vtable):
            return 0
        offset = self._number("<H", vtable + slot)
        return table + offset if offset else 0

    def _byte(self, table: int, number: int) -> int:
        place = self._field(table, number)
        return self._number("<b", place) if place else 0

    def _table(self, table: int, number: int) -> int:
        place = self._field(table, number)
        return place + self._number("<I", place) if place else 0

    def _vector(self, table: int, number: int, size: int) -> tuple[int, int]:
        """Return the position of a vector's first element, and the number of elements."""
        start = self._table(table, number)
        count = self._number("<I", start) if start else 0
        if start + 4 + count * size > len(self._raw):
            raise ValueError("a vector beyond the end")
        return start + 4, count

    def _text(self, table: int, number: int) -> str:
        start, count = self._vector(table, number, 1)
        return self._raw[start : start + count].decode("utf-8", "replace")

    def _floats(self, table: int, number: int) -> tuple[float, ...]:
        start, count = self._vector(table, number, 4)
        return tuple(map(float, struct.unpack_from(f"<{count}f", self._raw, start))) if count else ()

    def _tables(self, table: int, number: int, most: int) -> list[int]:
        start, count = self._vector(table, number, 4)
        places = (start + 4 * n for n in range(min(count, most)))
        return [place + self._number("<I", place) for place in places]
