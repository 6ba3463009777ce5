"""A cache of results on disk: `key -> folder of files`. Safe with concurrent processes and when killed at any time.

An entry is written under a temporary name and renamed in one step, so a reader sees a complete entry or none. Two
writers of one key write the same content; the copy of the second is discarded.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FORMAT = 1


def default_cache_dir() -> Path:
    """Return EDGEPACK_CACHE_DIR, or else `edgepack` under XDG_CACHE_HOME or ~/.cache."""
    if configured := os.environ.get("EDGEPACK_CACHE_DIR"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgepack"


def sha256(data: bytes) -> str:
    """Return the hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def hash_path(path: Path) -> str:
    """Return the hex SHA-256 of a file, or of the relative paths and contents of a folder's files.

    Raises:
        OSError: A file cannot be read.
    """
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def key_of(step: str, parts: Mapping[str, Any]) -> str:
    """Return the cache key of a result, computed from everything that the result depends on.

    Args:
        step: What produces the result (`convert`); the prefix of the key.
        parts: JSON-serializable inputs, options and versions.
    """
    text = json.dumps({"format": _FORMAT, "step": step, **parts}, sort_keys=True, separators=(",", ":"))
    return f"{step}-{sha256(text.encode())[:40]}"


@dataclass(frozen=True)
class CacheUsage:
    """Contents of the cache: number of entries and bytes by key prefix."""

    path: Path
    entries: dict[str, int]
    bytes: dict[str, int]


class Cache:
    """A folder of cached results.

    Args:
        root: The folder, created on the first write; None for `default_cache_dir()`.
        enabled: False makes every lookup miss and every store do nothing.
    """

    def __init__(self, root: Path | None = None, *, enabled: bool = True) -> None:
        self.root = root if root is not None else default_cache_dir()
        self.enabled = enabled

    def get(self, key: str) -> dict[str, bytes] | None:
        """Return an entry's files by name, None when it is missing or does not match its hashes."""
        if not self.enabled:
            return None
        folder = self.root / key
        try:
            index = json.loads((folder / "index.json").read_text())
            files = {name: (folder / name).read_bytes() for name in index}
        except (OSError, ValueError):
            return None
        if any(sha256(files[name]) != digest for name, digest in index.items()):
            # Corrupt or modified entry: recompute and replace it.
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(folder)
        return files

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Store an entry. A cache that cannot be written is not an error: the result is computed again next time."""
        if not self.enabled:
            return
        with contextlib.suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=self.root))
            try:
                for name, data in files.items():
                    (temporary / name).write_bytes(data)
                (temporary / "index.json").write_text(json.dumps({name: sha256(data) for name, data in files.items()}))
                temporary.rename(self.root / key)
            except OSError:
                shutil.rmtree(temporary, ignore_errors=True)

    def usage(self) -> CacheUsage:
        """Return the number of entries and their size."""
        entries: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if folder.name.startswith(".") or not (folder / "index.json").is_file():
                continue
            step = folder.name.rpartition("-")[0]
            entries[step] = entries.get(step, 0) + 1
            with contextlib.suppress(OSError):
                sizes[step] = sizes.get(step, 0) + sum(f.stat().st_size for f in folder.iterdir())
        return CacheUsage(self.root, entries, sizes)

    def clear(self) -> int:
        """Remove all entries and the leftovers of killed processes; return the number of removed folders."""
        if not self.root.is_dir():
            return 0
        removed = 0
        for folder in self.root.iterdir():
            # Remove only what this class created: EDGEPACK_CACHE_DIR may be set to a folder with user files.
            if folder.is_dir() and (folder.name.startswith(".") or (folder / "index.json").is_file()):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed
