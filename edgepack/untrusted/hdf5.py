"""Private copies of HDF5 files that hold plain numbers and text only: no link or storage outside the file."""

from math import prod
from pathlib import Path
from typing import Any

from edgepack.errors import ModelFileError
from edgepack.text import first_line

#: Deepest nesting of groups. Keras nests as deep as its layers; deeper files end in native stack overflows.
_MAX_DEPTH = 64

#: A compressed dataset may claim at most this many bytes per stored byte, because deflate reaches 1032 at most.
_MAX_EXPANSION = 1100

#: Datasets up to this size need no stored bytes: HDF5 stores no chunks for values that were never written.
_SMALL = 1 << 20


def copy_hdf5(source: Path, target: Path, *, name: str, attributes: dict[str, str] | None = None) -> None:
    """Write the groups, datasets and attributes of an HDF5 file into a new one.

    Args:
        source: The file, already a private copy.
        target: The new file.
        name: The file's name for messages.
        attributes: Attributes of the root to write instead of the stored ones; the training configuration is left out.

    Raises:
        ModelFileError: The file is broken, or it has links or datasets outside itself, sizes that it does not hold, or
            types that no Keras writes.
    """
    import h5py  # type: ignore[import-untyped]

    try:
        # Attributes over 64 kB need the storage of HDF5 1.8.
        with h5py.File(source, "r") as stored, h5py.File(target, "w", libver=("v108", "latest")) as copy:
            _Copier(name, source.stat().st_size).copy_group(stored, copy, "", 0)
            for key, value in (attributes or {}).items():
                copy.attrs[key] = value
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(
            f"'{name}' is a broken HDF5 file: {first_line(error)}",
            hint="copy or export the file again and compare its size",
        ) from error


#: The configuration of an optimizer, its losses and metrics, which no conversion needs.
_TRAINING_ATTRIBUTE = "training_config"


class _Copier:
    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._groups: set[int] = set()

    def copy_group(self, source: Any, target: Any, path: str, depth: int) -> None:
        """Copy one group; a group that is reachable on two ways is a loop or a duplicate, which Keras never writes."""
        import h5py

        address = h5py.h5o.get_info(source.id).addr
        if depth > _MAX_DEPTH or address in self._groups:
            self._refuse(path, "is nested in itself or too deep")
        self._groups.add(address)
        self._copy_attributes(source, target, path)
        for key in source:
            inner = f"{path}/{key}"
            if not isinstance(source.get(key, getlink=True), h5py.HardLink):
                self._refuse(inner, "is a link to another place or file")
            item = source[key]
            if isinstance(item, h5py.Group):
                self.copy_group(item, target.create_group(key), inner, depth + 1)
            elif isinstance(item, h5py.Dataset):
                self._copy_dataset(item, target, key, inner)
            else:
                self._refuse(inner, "is a named type")

    def _copy_dataset(self, item: Any, target: Any, key: str, path: str) -> None:
        if item.is_virtual or item.external:
            self._refuse(path, "is stored in another file")
        self._require_plain(item.dtype, path)
        held = item.id.get_storage_size()
        if item.shape is not None and (held > self._size or item.nbytes > max(_SMALL, held * _MAX_EXPANSION)):
            self._refuse(path, f"claims {item.nbytes} bytes, but the file holds {min(held, self._size)}")
        value = _empty(item) if item.shape is None else item[()]
        self._copy_attributes(item, target.create_dataset(key, data=value, dtype=item.dtype), path)

    def _copy_attributes(self, source: Any, target: Any, path: str) -> None:
        for key in source.attrs:
            if key == _TRAINING_ATTRIBUTE:
                continue
            attribute = source.attrs.get_id(key)
            self._require_plain(attribute.dtype, f"{path}@{key}")
            # An empty attribute has no size that HDF5 could report.
            if prod(attribute.shape or ()) * attribute.dtype.itemsize > max(_SMALL, self._size):
                self._refuse(f"{path}@{key}", "claims more bytes than the file has")
            target.attrs.create(key, source.attrs[key], dtype=attribute.dtype)

    def _require_plain(self, dtype: Any, path: str) -> None:
        import h5py

        numbers = dtype.kind in "biufcS" and h5py.check_ref_dtype(dtype) is None
        # Half-precision types that NumPy lacks, such as bfloat16, are stored as opaque bytes.
        if not numbers and h5py.check_string_dtype(dtype) is None and dtype.kind != "V":
            self._refuse(path, f"has the type {dtype}, expected numbers or text")
        if dtype.hasobject and h5py.check_string_dtype(dtype) is None:
            self._refuse(path, f"has the type {dtype}, expected numbers or text")

    def _refuse(self, path: str, problem: str) -> None:
        raise ModelFileError(
            f"'{self._name}' is not an HDF5 file of Keras: '{path or '/'}' in it {problem}",
            hint="save the model again with Keras: model.save('model.keras')",
        )


def _empty(item: Any) -> Any:
    """Return the value of a dataset without elements."""
    import h5py

    return h5py.Empty(item.dtype)
