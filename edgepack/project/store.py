"""What nodes leave in the cache for each other and for the client: bundles, finished searches, and input files.

Every machine that takes part sees the same cache, so an entry is the only way in which a result travels.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.cache import Cache, key_of
from edgepack.digests import Snapshot, hash_path, sha256
from edgepack.errors import EdgepackError, ModelFileError
from edgepack.files import read_regular

#: Bytes of a part of an input file or folder; a part is in memory while it is copied.
_PART_BYTES = 64 << 20


@dataclass(frozen=True)
class StoredBundle:
    """A bundle in the cache.

    Attributes:
        files: Contents by path relative to the bundle, without a signature.
        document: What the build reported: `result` (`TargetResult.to_json` without places and times), `notes` and
            `source`.
    """

    files: Mapping[str, bytes]
    document: Mapping[str, Any]


class Store:
    """The cache of a project's run.

    Args:
        cache: Where entries are.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def keys(self) -> Container[str]:
        """Return the keys of all entries, as far as their names tell."""
        try:
            with os.scandir(self.cache.root) as entries:
                return {entry.name for entry in entries}
        except OSError:
            return ()

    def has(self, key: str) -> bool:
        """Return whether there is an entry, as far as its name tells."""
        return (self.cache.root / key).exists()

    def put_done(self, key: str) -> None:
        """Record that shared work was finished."""
        self.cache.put(key, {"done": b""})

    def put_bundle(self, key: str, bundle: StoredBundle) -> None:
        """Store a bundle; equal files are stored once."""
        listed = [(path, sha256(data), len(data)) for path, data in sorted(bundle.files.items())]
        contents = {digest: bundle.files[path] for path, digest, _ in listed}
        files = {
            "bundle.json": _to_bytes({"files": listed, "document": bundle.document}),
            "contents": b"".join(contents.values()),
        }
        self.cache.put(key, files)

    def get_bundle(self, key: str) -> StoredBundle | None:
        """Return a bundle, None when it is not in the cache."""
        entry = self.cache.get(key)
        if entry is None:
            return None
        try:
            index = json.loads(entry["bundle.json"])
            contents: dict[str, bytes] = {}
            files: dict[str, bytes] = {}
            start = 0
            for path, digest, size in index["files"]:
                if digest not in contents:
                    contents[digest] = entry["contents"][start : start + size]
                    start += size
                files[path] = contents[digest]
            return StoredBundle(files, index["document"])
        except (ValueError, KeyError, TypeError, RecursionError):
            self.cache.drop(key, "cannot be decoded")
            return None

    # -- inputs ------------------------------------------------------------------------------------------------------

    def put_input(self, snapshot: Snapshot) -> None:
        """Store an input file or folder under its digest, so that a machine without that file can read it.

        Raises:
            ModelFileError: It changed since its digest was taken.
        """
        key = input_key(snapshot.digest)
        if self._shared(key):
            return
        files: list[tuple[str, int]] = []
        parts: list[str] = []
        pending = bytearray()
        for name, data in _read(snapshot.path):
            files.append((name, len(data)))
            pending += data
            while len(pending) >= _PART_BYTES:
                parts.append(self._put_part(bytes(pending[:_PART_BYTES])))
                del pending[:_PART_BYTES]
        if pending:
            parts.append(self._put_part(bytes(pending)))
        if not snapshot.untouched():
            raise _changed(snapshot.path)
        index = {"folder": snapshot.path.is_dir(), "files": files, "parts": parts}
        self.cache.put(key, {"input.json": _to_bytes(index)})

    def _put_part(self, data: bytes) -> str:
        key = key_of("input-part", {"sha256": sha256(data)})
        if not self._shared(key):
            self.cache.put(key, {"data": data})
        return key

    def _shared(self, key: str) -> bool:
        """Return whether those who share the cache have an entry; an entry of this machine only does not reach them."""
        remote = self.cache.remote
        return self.has(key) if remote is None else remote.get(key) is not None

    def get_input(self, digest: str, name: str, folder: Path) -> Path:
        """Write an input from the cache to the disk, once, and return its path.

        Args:
            digest: Its digest.
            name: Name of the file or folder.
            folder: Where inputs are kept on this machine.

        Raises:
            EdgepackError: It is not in the cache, or not what its digest says.
        """
        place = folder / digest[:40] / name
        if place.exists():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        entry = self.cache.get(input_key(digest))
        if entry is None:
            raise EdgepackError(
                f"the input '{name}' is not in the cache of this worker",
                hint="workers and client need the same cache: a shared folder or a URL (docs/guides/many-machines.md)",
            )
        temporary = Path(tempfile.mkdtemp(prefix=".input-", dir=folder))
        try:
            index = json.loads(entry["input.json"])
            self._write_input(index, temporary / name)
            if hash_path(temporary / name) != digest:
                raise EdgepackError(
                    f"the input '{name}' in the cache is not what its digest says", hint="clear the cache"
                )
            try:
                (temporary / name).rename(place)
            except OSError:
                # Another process was faster, with the same content.
                if not place.exists():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return place

    def _write_input(self, index: Mapping[str, Any], place: Path) -> None:
        if index["folder"]:
            place.mkdir()
        parts = iter(index["parts"])
        data = b""
        for name, size in index["files"]:
            target = place / name if index["folder"] else place
            if index["folder"] and not target.resolve().is_relative_to(place.resolve()):
                raise EdgepackError(f"an input in the cache has the path '{name}'", hint="clear the cache")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as stream:
                while size:
                    if not data:
                        part = self.cache.get(next(parts, ""))
                        if part is None:
                            raise EdgepackError(
                                "a part of an input is missing in the cache", hint="run the command again"
                            )
                        data = part["data"]
                    taken, data = data[:size], data[size:]
                    stream.write(taken)
                    size -= len(taken)


def input_key(digest: str) -> str:
    """Return the key of the entry of an input file or folder with this digest."""
    return key_of("input", {"digest": digest})


def _changed(path: Path) -> EdgepackError:
    return ModelFileError(f"'{path}' changed while it was read", hint="run the command again when nothing writes to it")


def _read(path: Path) -> Iterator[tuple[str, bytes]]:
    """Iterate over the files below a path, by name relative to it, links followed."""
    if not path.is_dir():
        yield path.name, read_regular(path)
        return
    for place, folders, names in os.walk(path, followlinks=True):
        folders.sort()
        for name in sorted(names):
            file = Path(place) / name
            yield file.relative_to(path).as_posix(), read_regular(file)


def _to_bytes(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
