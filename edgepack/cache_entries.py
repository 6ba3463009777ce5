"""Entries of the cache on disk: how one is written, read, judged and removed.

An entry is a folder of files with an index that holds the entry's own key, and size and digest of each file.
"""

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgepack.digests import sha256
from edgepack.files import read_regular

FORMAT = 2
INDEX = "index.json"

#: Bytes of an index that are read; a valid one has some hundreds.
MAX_INDEX = 1 << 20


class DamagedError(Exception):
    """An entry is not what `write_entry` writes."""


def read_index(folder: Path, key: str) -> dict[str, tuple[int, str]]:
    """Return size and digest of each file of an entry.

    Raises:
        DamagedError: The folder is not an entry of this key.
        OSError: The index cannot be read.
    """
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise DamagedError("is not a folder")
    present = set(os.listdir(folder))  # noqa: PTH208 - names only
    if INDEX not in present:
        raise DamagedError("has no index")
    _require_file(folder / INDEX)
    if (folder / INDEX).stat().st_size > MAX_INDEX:
        raise DamagedError("has an index of the wrong size")
    try:
        index = json.loads(read_regular(folder / INDEX))
        if index["format"] != FORMAT or index["key"] != key:
            raise DamagedError("belongs to another key or format")
        files = {str(name): (entry["size"], entry["sha256"]) for name, entry in index["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError("has a damaged index") from error
    if present != {INDEX, *files}:
        raise DamagedError("lacks a file or has one too many")
    for name, (size, digest) in files.items():
        if type(size) is not int or not isinstance(digest, str) or name == INDEX:
            raise DamagedError("has a damaged index")
        _require_file(folder / name)
        if (folder / name).stat().st_size != size:
            raise DamagedError("has a file of the wrong size")
    return files


def read_entry(folder: Path, key: str) -> dict[str, bytes]:
    """Return the files of an entry.

    Raises:
        DamagedError: It is not what `put` wrote under this key.
        OSError: It cannot be read.
    """
    described = read_index(folder, key)
    files = {name: read_regular(folder / name) for name in described}
    if any(sha256(files[name]) != digest for name, (_, digest) in described.items()):
        raise DamagedError("has a file with another content")
    return files


def _require_file(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise DamagedError("has something else in the place of a file")


def identity(folder: Path) -> tuple[int, int] | None:
    """Return what distinguishes an entry from another one of the same name, None when there is none."""
    try:
        status = folder.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove(path: Path) -> bool:
    """Remove an entry, whatever it is; return False when there was nothing or it cannot be removed.

    A folder is renamed first: of several processes only one removes it, and no reader sees half of it.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return True
        aside = path
        if ".removed-" not in path.name:
            aside = Path(tempfile.mkdtemp(prefix=f".{path.name.lstrip('.')}.removed-", dir=path.parent))
            try:
                path.rename(aside)
            except OSError:
                aside.rmdir()
                raise
        aside.chmod(0o700)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError:
        return False
    return True


def _write(path: Path, data: bytes, sync: bool) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    # Not every file system can sync a folder.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_entry(folder: Path, key: str, files: Mapping[str, bytes], *, sync: bool = True) -> None:
    """Fill an empty folder with an entry and flush it to the disk.

    Args:
        folder: The folder.
        key: Key of the entry.
        files: Its files by name.
        sync: False leaves the flushing to the system.

    Raises:
        OSError: It cannot be written.
    """
    for name, data in files.items():
        _write(folder / name, data, sync)
    described = {name: {"size": len(data), "sha256": sha256(data)} for name, data in files.items()}
    index = json.dumps({"format": FORMAT, "key": key, "files": described}, sort_keys=True).encode()
    _write(folder / INDEX, index, sync)
    if sync:
        sync_folder(folder)
