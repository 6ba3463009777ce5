"""A cache of results on disk: `key -> folder of files`. Safe with concurrent processes and when killed at any time.

An entry is written under a temporary name, synced and renamed in one step, so a reader sees a complete entry or none.
Its index holds its own key, and size and digest of each file: what does not match in any respect is removed and
computed again. Entries are removed by renaming them first, so a reader notices. Two writers of one key write the same
content; the copy of the second is discarded. The entries used last are kept when the cache exceeds its size.

A cache may have a part that other machines share (`remote_cache`): it is asked after this one, and gets what is stored.
"""

import contextlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack import interrupts
from edgepack.cache_entries import (
    FORMAT,
    DamagedError,
    identity,
    read_entry,
    read_index,
    remove,
    sync_folder,
    write_entry,
)
from edgepack.digests import hash_path, sha256
from edgepack.errors import UsageError
from edgepack.files import read_regular, require_regular
from edgepack.shared_keys import PREFIX, SharedKeys

if TYPE_CHECKING:
    from edgepack.remote_cache import RemoteCache

__all__ = [
    "Cache",
    "CacheUsage",
    "cache_size_limit",
    "default_cache_dir",
    "hash_path",
    "key_of",
    "open_cache",
    "sha256",
]

#: Default of EDGEPACK_CACHE_SIZE. A build of MobileNet v2 with all schemes stores about 0.1 GB.
DEFAULT_SIZE = 10 * 10**9

#: Removal goes on down to this share of the limit, so that not every further entry starts it again (as in ccache).
_LOW_MARK = 0.8

#: After writing this share of the limit, a process counts the cache again, because others write as well.
_RECOUNT = 1 / 16

#: Seconds after which the remains of a killed process, and the state of an interrupted training or search, are removed.
_REMAINS_AGE, _CHECKPOINT_AGE = 24 * 3600, 30 * 24 * 3600

#: Bytes of the record of damaged entries, about 8,000 of them; no more are recorded.
_MAX_RECORD = 1 << 20

#: Names that only this class gives: entries, and hidden folders of writers, removed entries and trainings.
_ENTRY = re.compile(r"[a-z][a-z0-9_-]*-[0-9a-f]{40}")
_HIDDEN = re.compile(r"\..+\.(tmp|removed|checkpoint)(-[A-Za-z0-9_]+)?|\.[a-z][a-z0-9_-]*-[0-9a-f]{40}\.[a-z0-9_]{8}")
_RECORD = ".damaged"

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def default_cache_dir() -> Path:
    """Return EDGEPACK_CACHE_DIR, or else `edgepack` under XDG_CACHE_HOME or ~/.cache."""
    if configured := os.environ.get("EDGEPACK_CACHE_DIR"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgepack"


def cache_size_limit() -> int:
    """Return EDGEPACK_CACHE_SIZE in bytes, 0 for no limit.

    Raises:
        UsageError: It is not a size.
    """
    text = os.environ.get("EDGEPACK_CACHE_SIZE", "").strip()
    if not text:
        return DEFAULT_SIZE
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?)b?", text.lower(), re.ASCII)
    if match is None:
        raise UsageError(
            f"EDGEPACK_CACHE_SIZE is '{text[:40]}': expected a number of bytes or a size such as 500M, 10G or 0",
            hint="0 means no limit; unset the variable for the default of 10G",
        )
    return int(float(match[1]) * _UNITS[match[2]])


def key_of(step: str, parts: Mapping[str, Any]) -> str:
    """Return the cache key of a result, computed from everything that the result depends on.

    Args:
        step: What produces the result (`convert`); the prefix of the key.
        parts: JSON-serializable inputs, options and versions.
    """
    text = json.dumps({"format": FORMAT, "step": step, **parts}, sort_keys=True, separators=(",", ":"))
    return f"{step}-{sha256(text.encode())[:40]}"


@dataclass(frozen=True)
class CacheUsage:
    """Contents of the cache.

    Attributes:
        path: Its folder.
        entries: Number of entries by key prefix.
        bytes: Their size by key prefix.
        damaged: Entries that are damaged now, and are removed when a build looks for them.
        dropped: Damaged entries that were removed since the cache was cleared, by what was wrong with them.
        limit: Size above which the entries used least recently are removed, 0 for none.
    """

    path: Path
    entries: dict[str, int]
    bytes: dict[str, int]
    damaged: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    limit: int = 0


class Cache:
    """A folder of cached results.

    Args:
        root: The folder, created on the first write; None for `default_cache_dir()`.
        enabled: False makes every lookup miss and every store do nothing.
        limit: Size in bytes above which entries are removed, 0 for none; None for `cache_size_limit()`.
        remote: Entries that other machines share, None for none.

    Raises:
        UsageError: EDGEPACK_CACHE_SIZE is not a size.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        enabled: bool = True,
        limit: int | None = None,
        remote: "RemoteCache | None" = None,
    ) -> None:
        self.root = root if root is not None else default_cache_dir()
        self.enabled = enabled
        self.remote = remote if enabled else None
        if self.remote is not None:
            self.remote.known = SharedKeys(self.root, str(self.remote.location))
        #: Keys of entries that came from the shared cache.
        self._fetched: set[str] = set()
        self.limit = cache_size_limit() if limit is None else limit
        #: Size of the cache when it was counted last, None before; bytes that this object has written since.
        self._counted: int | None = None
        self._written = 0

    def get(self, key: str) -> dict[str, bytes] | None:
        """Return an entry's files by name, None when it is missing; a damaged one is removed and counts as missing."""
        files = self._get(key)
        if files is not None and self.remote is not None:
            self.remote.offer(key, files)
        if files is None and self.remote is not None and (files := self.remote.get(key)) is not None:
            self._fetched.add(key)
            # Not flushed: what a loss of power damages is noticed, and fetched again.
            self._put(key, files, sync=False)
        return files

    def _get(self, key: str) -> dict[str, bytes] | None:
        if not self.enabled:
            return None
        folder = self.root / key
        reason = ""
        # Twice, because another process may replace the entry while it is read.
        for _ in range(2):
            before = identity(folder)
            if before is None:
                return None
            try:
                files = read_entry(folder, key)
            except DamagedError as error:
                reason = str(error)
            except OSError as error:
                reason = f"cannot be read: {error.strerror or error}"
            else:
                with contextlib.suppress(OSError):
                    os.utime(folder)
                return files
            if identity(folder) != before:
                continue
        if identity(folder) == before:
            self.drop(key, reason)
        return None

    def drop(self, key: str, reason: str) -> None:
        """Remove a damaged entry and count it."""
        if self.remote is not None and key in self._fetched:
            self._fetched.discard(key)
            self.remote.report_damage(key, reason)
        if self.enabled and remove(self.root / key):
            with contextlib.suppress(OSError):
                # One short write at the end of the file: concurrent writers do not mix their lines.
                descriptor = os.open(self.root / _RECORD, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o644)
                try:
                    if os.fstat(descriptor).st_size < _MAX_RECORD:
                        os.write(descriptor, f"{json.dumps({'key': key, 'reason': reason})}\n".encode())
                finally:
                    os.close(descriptor)

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Store an entry. A cache that cannot be written is not an error: the result is computed again next time.

        The part that other machines share gets it in the background: `finish` waits for that.
        """
        if not self.enabled:
            return
        self._put(key, files)
        if self.remote is not None:
            self.remote.put(key, files)

    def finish(self) -> int:
        """Wait, with a limit, until the shared cache has what was stored; return how many entries it has not got."""
        return 0 if self.remote is None else self.remote.finish()

    def _put(self, key: str, files: Mapping[str, bytes], *, sync: bool = True) -> None:
        with contextlib.suppress(OSError), interrupts.hold():
            self.root.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{key}.tmp-", dir=self.root))
            try:
                write_entry(temporary, key, files, sync=sync)
                self._move(temporary, key, sync)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            self._written += sum(map(len, files.values()))
            self._keep_within_limit()

    def usage(self) -> CacheUsage:
        """Return the number of entries and their size, and how many were damaged."""
        entries: dict[str, int] = {}
        sizes: dict[str, int] = {}
        damaged = 0
        for path in self._entries():
            try:
                described = read_index(path, path.name)
            except DamagedError:
                damaged += 1
                continue
            except OSError:
                # Removed in the meantime, or unreadable, which is damage as well.
                damaged += os.path.lexists(path)
                continue
            step = path.name.rpartition("-")[0]
            entries[step] = entries.get(step, 0) + 1
            sizes[step] = sizes.get(step, 0) + sum(size for size, _ in described.values())
        return CacheUsage(self.root, entries, sizes, damaged, self._dropped(), self.limit)

    def clear(self) -> int:
        """Remove all entries and the leftovers of killed processes; return the number of removed folders."""
        # Only what this class created: EDGEPACK_CACHE_DIR may be set to a folder with user files.
        removed = sum(remove(path) for path in [*self._entries(), *self._hidden()])
        for record in (self.root / _RECORD, *(path for path in _listed(self.root) if path.name.startswith(PREFIX))):
            with contextlib.suppress(OSError):
                record.unlink()
        return removed

    def _move(self, temporary: Path, key: str, sync: bool) -> None:
        """Give a complete entry its name, in place of whatever damaged thing has that name.

        Raises:
            OSError: It cannot be renamed.
        """
        try:
            temporary.rename(self.root / key)
        except OSError:
            if self._get(key) is not None:
                return
            temporary.rename(self.root / key)
        if sync:
            sync_folder(self.root)

    def _entries(self) -> list[Path]:
        """Return the paths of all entries, in the order of their names, damaged ones included."""
        return [p for p in _listed(self.root) if _ENTRY.fullmatch(p.name) or _is_entry(p)]

    def _hidden(self) -> list[Path]:
        return [p for p in _listed(self.root) if _HIDDEN.fullmatch(p.name)]

    def _dropped(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        with contextlib.suppress(OSError):
            if require_regular(self.root / _RECORD).st_size > 2 * _MAX_RECORD:
                return counts
            for line in read_regular(self.root / _RECORD).splitlines():
                try:
                    reason = str(json.loads(line)["reason"])[:100]
                except (ValueError, KeyError, TypeError, RecursionError):
                    reason = "unknown"
                counts[reason] = counts.get(reason, 0) + 1
        return counts

    def _keep_within_limit(self) -> None:
        """Remove what was used least recently when the cache is larger than its limit."""
        if not self.limit:
            return
        if self._counted is not None and (
            self._written < self.limit * _RECOUNT and self._counted + self._written <= self.limit
        ):
            return
        now = time.time()
        found: list[tuple[float, int, Path]] = []
        for path in [*self._entries(), *self._hidden()]:
            with contextlib.suppress(OSError):
                size, used = _size(path), path.lstat().st_mtime
                hidden = path.name.startswith(".")
                age = _CHECKPOINT_AGE if path.name.endswith(".checkpoint") else _REMAINS_AGE
                if hidden and now - used > age:
                    remove(path)
                    continue
                # What another process is writing or removing now, and the state of a training, are counted but stay.
                found.append((float("inf") if hidden else used, size, path))
        total = sum(size for _, size, _ in found)
        if total > self.limit:
            for used, size, path in sorted(found):
                if total <= self.limit * _LOW_MARK or used == float("inf"):
                    break
                remove(path)
                total -= size
        self._counted, self._written = total, 0


def open_cache(*, enabled: bool = True, url: str = "") -> Cache:
    """Return the cache of a command, with the part that other machines share where one is configured.

    Args:
        enabled: See `Cache`.
        url: URL of the shared cache, `off` for none; empty for EDGEPACK_CACHE_URL.

    Raises:
        UsageError: The URL or an environment variable of the cache is not valid.
    """
    if not enabled or not (url or os.environ.get("EDGEPACK_CACHE_URL")):
        return Cache(enabled=enabled)
    from edgepack.remote_cache import RemoteCache, shared_cache_url

    shared = shared_cache_url(url)
    return Cache(remote=RemoteCache(shared) if shared else None)


def _is_entry(path: Path) -> bool:
    """Return whether a folder of any name is an intact entry."""
    try:
        return not path.name.startswith(".") and bool(read_index(path, path.name))
    except (OSError, DamagedError):
        return False


def _listed(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except OSError:
        return []


def _size(path: Path) -> int:
    if not stat.S_ISDIR(path.lstat().st_mode):
        return 0
    return sum(entry.lstat().st_size for entry in _walk(path))


def _walk(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)
