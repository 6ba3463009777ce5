"""Arrays that stay in their .npy or .npz file and are read sample by sample.

What a header claims is compared with what the file holds before anything is reserved. An array pickles as its path, so
that a child process opens the file itself, and every read verifies that the file is still the one that was hashed.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from edgepack.errors import SamplesError
from edgepack.files import open_regular
from edgepack.text import first_line

Array = npt.NDArray[Any]

#: Most bytes of one sample and of the labels together: more than any input that fits the limit on activations.
MOST_SAMPLE_BYTES = 1 << 29

#: Most samples of one source with labels, which are in memory together.
MOST_LABELS = 10_000_000

#: Most arrays of an .npz; a model with more inputs does not exist, and each has to be looked at.
MOST_MEMBERS = 10_000

#: Deflate never compresses better than 1032:1 (zlib.net/zlib_tech.html), so a larger ratio is a false size.
_MOST_RATIO = 1032

#: Bytes of an .npy header that are read at most; NumPy refuses headers above 10,000 characters.
_HEADER_BYTES = 1 << 17

#: Bytes that are read at once to skip part of a compressed array.
_BLOCK = 1 << 20

_HINT = "write the file again with numpy.save or numpy.savez and compare its size with the original"


@dataclass(frozen=True)
class FileState:
    """What tells whether a file is still the same: device, inode, size, and times of change in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """Return the state of an open file."""
        found = os.fstat(descriptor)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array in an .npy, or in a member of an .npz.

    Attributes:
        path: Absolute path of the file.
        state: The file as it was hashed.
        member: Name of the member of an .npz, empty for an .npy.
        offset: Byte of the first value, in the file or, when compressed, in the member.
        compressed: True for a compressed member, which is read from its start to the wanted sample.
        shape: Shape in the file, the number of samples first.
        dtype: Dtype in the file.
        fortran: True when the first dimension varies fastest.
        chosen: Rows that belong to the set, None for all.
        scale: Scale of quantized values, 0.0 for values that are used as they are.
        zero_point: Zero point of quantized values.
    """

    path: Path
    state: FileState
    member: str
    offset: int
    compressed: bool
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    chosen: npt.NDArray[np.int64] | None = None
    scale: float = 0.0
    zero_point: int = 0
    _reader: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.shape[0] if self.chosen is None else len(self.chosen)

    def __del__(self) -> None:
        if (stream := self.__dict__.get("_reader", {}).get("file")) is not None:
            stream.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": {}}

    def take(self, indices: npt.NDArray[np.int64]) -> "StoredArray":
        """Return the samples at `indices`."""
        return replace(self, chosen=indices if self.chosen is None else self.chosen[indices], _reader={})

    def dequantized(self, scale: float, zero_point: int) -> "StoredArray":
        """Return the array with real values: scale * (value - zero_point)."""
        return replace(self, scale=scale, zero_point=zero_point, _reader={})

    def row(self, index: int) -> Array:
        """Return one sample.

        Raises:
            SamplesError: The file changed since it was hashed, or cannot be read.
        """
        position = int(np.arange(len(self))[index]) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        if self.chosen is not None:
            position = int(self.chosen[position])
        with _readable(self.path.name):
            values = self._values(position)
            stream = self._reader.get("file")
            if stream is not None and FileState.of(stream.fileno()) != self.state:
                raise SamplesError(
                    f"samples '{self.path.name}' changed while they were read", hint="build again with the final file"
                )
        if self.scale:
            return ((values.astype(np.float32) - self.zero_point) * np.float32(self.scale)).astype(np.float32)
        return values

    def read_all(self) -> Array:
        """Return the whole array, which is for labels.

        Raises:
            SamplesError: It has more than `MOST_SAMPLE_BYTES`, or the file changed.
        """
        size = prod(self.shape) * self.dtype.itemsize
        if size > MOST_SAMPLE_BYTES or (self.shape and self.shape[0] > MOST_LABELS):
            raise SamplesError(
                f"labels '{self.member}' of '{self.path.name}' have {size:,} bytes: at most {MOST_SAMPLE_BYTES:,} and "
                f"{MOST_LABELS:,} labels are read",
                hint="give one class index per sample",
            )
        whole = replace(self, shape=(1, *self.shape), chosen=None, fortran=False, _reader={})
        flat = whole.row(0)
        return flat.reshape(-1).reshape(self.shape, order="F") if self.fortran else flat

    def _values(self, position: int) -> Array:
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        if self.fortran and len(self.shape) > 1:
            return np.array(self._mapped()[position])
        start = self.offset + position * row_bytes
        stream = self._open()
        if self.compressed:
            data = self._inflate(start, row_bytes)
        else:
            stream.seek(start)
            data = stream.read(row_bytes)
        if len(data) != row_bytes:
            raise SamplesError(f"samples '{self.path.name}' end within sample {position}", hint=_HINT)
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    def _open(self) -> IO[bytes]:
        if "file" not in self._reader:
            stream = open_regular(self.path)
            if FileState.of(stream.fileno()) != self.state:
                stream.close()
                raise SamplesError(
                    f"samples '{self.path.name}' changed after they were checked",
                    hint="build again with the final file",
                )
            self._reader["file"] = stream
        opened: IO[bytes] = self._reader["file"]
        return opened

    def _inflate(self, start: int, size: int) -> bytes:
        """Return bytes of a compressed member.

        Reading forward continues where the last read ended. The first step back, such as that of a second epoch, keeps
        a member of up to `MOST_SAMPLE_BYTES` in memory; a larger one is inflated from its start again.
        """
        if "inflated" in self._reader:
            return bytes(self._reader["inflated"][start : start + size])
        member = self._reader.get("member")
        if member is None or member.tell() > start:
            again = member is not None
            archive = zipfile.ZipFile(self._open())
            member = self._reader["member"] = archive.open(self.member)
            end = self.offset + prod(self.shape) * self.dtype.itemsize
            if again and end <= MOST_SAMPLE_BYTES:
                self._reader["inflated"] = member.read(end)
                return bytes(self._reader["inflated"][start : start + size])
        while (gap := start - member.tell()) > 0:
            if not member.read(min(gap, _BLOCK)):
                break
        return bytes(member.read(size))

    def _mapped(self) -> Array:
        if self.compressed:
            if "mapped" not in self._reader:
                count = prod(self.shape) * self.dtype.itemsize
                data = np.frombuffer(self._inflate(self.offset, count), self.dtype)
                self._reader["mapped"] = data.reshape(self.shape, order="F")
        elif "mapped" not in self._reader:
            self._reader["mapped"] = np.memmap(self._open(), self.dtype, "r", self.offset, self.shape, "F")
        mapped: Array = self._reader["mapped"]
        return mapped


@dataclass(frozen=True)
class StoredFile:
    """The arrays of one .npy or .npz by name, and the SHA-256 of the file."""

    digest: str
    arrays: dict[str, StoredArray]


def read_stored(path: Path) -> StoredFile:
    """Read the headers of an .npy or .npz, by its content, and hash the file in blocks.

    Raises:
        SamplesError: The file is damaged, claims more than it holds, or changes while it is read.
    """
    with _readable(path.name), open_regular(path) as stream:
        state = FileState.of(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        is_zip = stream.read(4)[:2] == b"PK"
        stream.seek(0)
        absolute = path.absolute()
        if is_zip and path.suffix == ".npz":
            arrays = dict(_members(absolute, stream, state))
        else:
            array = StoredArray(absolute, state, "", 0, False, (), np.dtype("u1"), False)
            arrays = {"x": _header(stream, state.size, array)}
        if FileState.of(stream.fileno()) != state:
            raise SamplesError(f"samples '{path.name}' changed while they were read")
    return StoredFile(digest, arrays)


def _members(path: Path, stream: IO[bytes], state: FileState) -> Iterator[tuple[str, StoredArray]]:
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        if len(infos) > MOST_MEMBERS:
            raise SamplesError(f"samples '{path.name}' claim {len(infos)} arrays, at most {MOST_MEMBERS} are read")
        if len({info.filename for info in infos}) < len(infos):
            raise SamplesError(f"samples '{path.name}' contain two arrays of one name", hint=_HINT)
        if sum(info.compress_size for info in infos) > state.size:
            raise SamplesError(f"samples '{path.name}' claim more compressed bytes than the file has", hint=_HINT)
        for info in infos:
            if not info.filename.endswith(".npy"):
                continue
            if info.file_size > info.compress_size * _MOST_RATIO + _BLOCK or (
                info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size
            ):
                raise SamplesError(
                    f"array '{info.filename}' of '{path.name}' claims {info.file_size} bytes, its "
                    f"{info.compress_size} compressed bytes cannot hold them",
                    hint=_HINT,
                )
            array = StoredArray(path, state, info.filename, 0, True, (), np.dtype("u1"), False)
            with archive.open(info) as member:
                array = _header(member, info.file_size, array)
                if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
                    # zipfile has verified the local header; the data begin behind its name and extra field.
                    stream.seek(info.header_offset + 26)
                    name_length, extra_length = (int.from_bytes(stream.read(2), "little") for _ in range(2))
                    start = info.header_offset + 30 + name_length + extra_length
                    array = replace(array, offset=start + array.offset, compressed=False)
            if array.fortran and array.compressed and prod(array.shape) * array.dtype.itemsize > MOST_SAMPLE_BYTES:
                raise SamplesError(
                    f"array '{info.filename}' of '{path.name}' is compressed and in Fortran order",
                    hint="write it with numpy.savez and numpy.ascontiguousarray",
                )
            yield info.filename.removesuffix(".npy"), array


def _header(stream: IO[bytes], size: int, array: StoredArray) -> StoredArray:
    """Return an array with what its .npy header says, compared with the `size` of the file or member."""
    what = f"samples '{array.path.name}'" + (f", array '{array.member}'" if array.member else "")
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        # Version 3 stores names of fields in UTF-8, which only structured arrays have.
        raise SamplesError(f"{what} have version {version[0]}.{version[1]} of the .npy format, expected 1.0 or 2.0")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise SamplesError(f"{what} contain Python objects, which are never read", hint="write arrays of numbers")
    if any(type(length) is not int or length < 0 for length in shape) or len(shape) > 32:
        raise SamplesError(f"{what} have the shape {str(list(shape))[:200]}, expected up to 32 sizes of 0 or more")
    offset, needed = stream.tell(), prod(shape) * dtype.itemsize
    if offset + needed > size:
        raise SamplesError(
            f"{what} claim the shape {list(shape)} of {dtype}, {needed:,} bytes, but hold {max(0, size - offset):,}",
            hint=_HINT,
        )
    row = prod(length for length in shape[1:] if length) * dtype.itemsize
    if row > MOST_SAMPLE_BYTES:
        raise SamplesError(
            f"{what} have {row:,} bytes per sample, at most {MOST_SAMPLE_BYTES:,} are read",
            hint="the first dimension is the number of samples",
        )
    return replace(array, offset=offset, shape=shape, dtype=dtype, fortran=fortran)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one error."""
    try:
        yield
    except SamplesError:
        raise
    except Exception as error:  # whatever the parsers of damaged files raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise SamplesError(f"cannot read samples '{name}': {reason}", hint=_HINT) from error
