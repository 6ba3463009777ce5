"""The part of the cache that several machines share: looked up after the local one, written in the background.

A build never fails because of it. Whatever goes wrong with the store (no package, no network, no permission, a time
limit) is a miss; the first such failure is reported once per command, and nothing further is asked of the store. An
entry that is not what `put` writes is a miss as well, and reported. Entries are created once and never replaced, so of
two writers the first one decides, and both have written the same.

Only the parent process uses the network. Nothing in here imports a package before the first call.
"""

import os
import re
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from edgepack.bounded import call_within
from edgepack.cache_entries import DamagedError
from edgepack.cache_packing import pack, unpack, valid_names
from edgepack.errors import UsageError
from edgepack.redaction import describe
from edgepack.remote_stores import (
    SCHEMES,
    Location,
    MissingPackageError,
    Store,
    open_store,
    parse_url,
    platform_folder,
)
from edgepack.shared_keys import SharedKeys

T = TypeVar("T")

#: Default of EDGEPACK_CACHE_TIMEOUT: seconds for one request of at most `_BLOCK` bytes.
DEFAULT_TIMEOUT = 30.0
#: Bytes of one request. In 30 s, 0.5 MB/s suffice for it.
_BLOCK = 16 << 20
#: Bytes that wait for their upload; who stores more waits, so that a slow store does not fill the memory.
_MAX_WAITING = 512 << 20
#: Largest number of keys that are requested one by one, and of requests at once; for more keys, the listing is read.
_FEW, _AT_ONCE = 200, 8
#: Keys that are shared: others, such as those of tests or plugins, stay local.
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,60}-[0-9a-f]{40}")


def shared_cache_url(option: str = "", project: str = "") -> str:
    """Return the URL of the shared cache: the option, else EDGEPACK_CACHE_URL, else that of the project file.

    `off` in a place of higher rank means none.

    Args:
        option: Value of `--cache`.
        project: `cache` of the project file.

    Raises:
        UsageError: It is not a URL of a shared cache.
    """
    url = option or os.environ.get("EDGEPACK_CACHE_URL", "").strip() or project
    if not url or url == "off":
        return ""
    parse_url(url)
    return url


def cache_timeout() -> float:
    """Return EDGEPACK_CACHE_TIMEOUT in seconds.

    Raises:
        UsageError: It is not a number of seconds.
    """
    text = os.environ.get("EDGEPACK_CACHE_TIMEOUT", "").strip()
    if not text:
        return DEFAULT_TIMEOUT
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) or float(text) <= 0:
        raise UsageError(f"EDGEPACK_CACHE_TIMEOUT is '{text[:40]}': expected a number of seconds, such as 30")
    return float(text)


@dataclass(frozen=True)
class RemoteUsage:
    """State of a shared cache.

    Attributes:
        url: Where it is.
        entries: Number of entries by key prefix, for this kind of machine.
        bytes: Their size by key prefix.
        problem: Why it cannot be used, empty when it can.
    """

    url: str
    entries: dict[str, int]
    bytes: dict[str, int]
    problem: str = ""


class RemoteCache:
    """Entries of a shared cache.

    Args:
        url: Where it is.
        timeout: Seconds for one request, None for `cache_timeout()`.

    Raises:
        UsageError: The URL or an environment variable is not valid.
    """

    def __init__(self, url: str, *, timeout: float | None = None) -> None:
        self.location: Location = parse_url(url)
        self.timeout = cache_timeout() if timeout is None else timeout
        self.read_only = os.environ.get("EDGEPACK_CACHE_READ_ONLY", "").strip().lower() in {"1", "true", "yes"}
        self._secret = os.environ.get("EDGEPACK_CACHE_SECRET", "").encode()
        if self._secret and len(self._secret) < 16:
            raise UsageError(
                "EDGEPACK_CACHE_SECRET is too short: expected at least 16 characters",
                hint="for example the output of: openssl rand -hex 32",
            )
        self._store: Store | None = None
        self._opening = threading.Lock()
        self._readable, self._writable = True, not self.read_only
        self._messages: deque[str] = deque()
        self._reported: set[str] = set()
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, Mapping[str, bytes]]] = deque()
        self._waiting_bytes = 0
        self._uploader: threading.Thread | None = None
        #: Keys that are known to be there, where `Cache` gives this object its folder.
        self.known: SharedKeys | None = None
        self._offered: set[str] = set()
        #: Entries that were found, created by this object, and given up.
        self.hits, self.stored, self.lost = 0, 0, 0

    # -- lookup --------------------------------------------------------------------------------------------------------

    def get(self, key: str) -> dict[str, bytes] | None:
        """Return an entry's files by name, verified; None when it is missing, damaged, or the store fails."""
        if not self._readable or not _KEY.fullmatch(key):
            return None
        try:
            files = unpack(
                lambda start, end: self._call(lambda s: s.read(key, start, end)), key, self._secret, block=_BLOCK
            )
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self.report_damage(key, str(error))
            return None
        except OSError as error:
            failures = PermissionError | ConnectionError | TimeoutError | NotADirectoryError
            if error.errno is not None and not isinstance(error, failures):
                # A link or a pipe in the place of an entry, in a shared folder.
                self.report_damage(key, f"cannot be read ({error.strerror or error})")
            else:
                self._fail("read", error)
            return None
        except Exception as error:
            self._fail("read", error)
            return None
        self.hits += 1
        self._know(key)
        return files

    def present(self, keys: Collection[str]) -> set[str]:
        """Return those of some keys that have an object, as far as its name tells; none when the store fails."""
        wanted = {key for key in keys if _KEY.fullmatch(key)}
        if not wanted or not self._readable:
            return set()
        try:
            if len(wanted) > _FEW:
                return wanted & self._call(lambda store: store.sizes(), 1 + len(wanted) // _FEW).keys()
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                found = list(threads.map(self._exists, wanted))
        except Exception as error:
            self._fail("read", error)
            return set()
        return {key for key, there in zip(wanted, found, strict=True) if there}

    def _exists(self, key: str) -> bool:
        try:
            return bool(self._call(lambda store: store.read(key, 0, 1)))
        except FileNotFoundError:
            return False

    def _know(self, key: str) -> None:
        if self.known is not None:
            self.known.add(key)

    def report_damage(self, key: str, reason: str) -> None:
        """Report the first damaged entry of a command, for those who can remove it: it is never replaced."""
        self._report(
            "damage",
            f"an entry of the shared cache {self.location} is damaged and not used: '{key}' {reason}; remove it there",
        )

    # -- uploads -------------------------------------------------------------------------------------------------------

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Store an entry in the background; `finish` waits for it."""
        if not self._writable or not _KEY.fullmatch(key) or not valid_names(files):
            return
        size = sum(map(len, files.values()))
        with self._changed:
            while self._writable and self._waiting and self._waiting_bytes + size > _MAX_WAITING:
                self._changed.wait()
            if not self._writable:
                return
            self._waiting.append((key, files))
            self._waiting_bytes += size
            if self._uploader is None:
                self._uploader = threading.Thread(target=self._upload, name="edgepack-upload", daemon=True)
                self._uploader.start()
            self._changed.notify_all()

    def offer(self, key: str, files: Mapping[str, bytes]) -> None:
        """Store an entry of the local cache, unless this machine knows that it is there already."""
        if self._writable and key not in self._offered and not (self.known is not None and key in self.known):
            self._offered.add(key)
            self.put(key, files)

    def finish(self, seconds: float | None = None) -> int:
        """Wait until everything is stored, and report what went wrong.

        Args:
            seconds: Longest time without any entry being stored, None for what the next one may take by its size.

        Returns:
            The number of entries that this object has not stored.
        """
        with self._changed:
            done, last = -1, time.monotonic()
            while self._waiting:
                if self.stored + self.lost != done:
                    done, last = self.stored + self.lost, time.monotonic()
                size = sum(map(len, self._waiting[0][1].values()))
                limit = self.timeout * (2 + size // _BLOCK) if seconds is None else seconds
                if time.monotonic() - last >= limit:
                    self._give_up()
                    self._report(
                        "write",
                        f"the shared cache {self.location} takes too long: it lacks entries of this command",
                    )
                    break
                self._changed.wait(min(1.0, limit))
        self.emit()
        return self.lost

    def _upload(self) -> None:
        """Store what waits, one entry after the other; the end of the process does not wait for this thread."""
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                key, files = self._waiting[0]
            error: Exception | None = None
            created = False
            try:
                created = self._create(key, files)
                self._know(key)
            except Exception as problem:
                error = problem
            with self._changed:
                if not self._waiting:
                    # Given up in the meantime.
                    continue
                if error is not None:
                    self._give_up()
                else:
                    self._waiting.popleft()
                    self._waiting_bytes -= sum(map(len, files.values()))
                    self.stored += created
                self._changed.notify_all()
            if error is not None:
                self._fail("write", error)

    def _create(self, key: str, files: Mapping[str, bytes]) -> bool:
        data = pack(key, files, self._secret)
        return self._call(lambda store: store.create(key, data), 1 + len(data) // _BLOCK)

    def _give_up(self) -> None:
        self.lost += len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._writable = False

    # -- the store -----------------------------------------------------------------------------------------------------

    def usage(self) -> RemoteUsage:
        """Return what is in the store, or why it cannot be used."""
        try:
            sizes = self._call(lambda store: store.sizes())
        except Exception as error:
            return RemoteUsage(str(self.location), {}, {}, _problem(error))
        entries: dict[str, int] = {}
        total: dict[str, int] = {}
        for name, size in sizes.items():
            if _KEY.fullmatch(name):
                step = name.rpartition("-")[0]
                entries[step] = entries.get(step, 0) + 1
                total[step] = total.get(step, 0) + size
        return RemoteUsage(str(self.location), dict(sorted(entries.items())), total)

    def _call(self, function: Callable[[Store], T], requests: int = 1) -> T:
        """Return the result of a call of the store, which is opened at the first one.

        Raises:
            Exception: Whatever the store's package raises; TimeoutError after the time limit.
        """

        def run() -> T:
            with self._opening:
                if self._store is None:
                    self._store = open_store(self.location, platform_folder())
            return function(self._store)

        return call_within(self.timeout * requests, run)

    def _fail(self, what: str, error: Exception) -> None:
        """Stop reading or writing after a failure, and report it."""
        with self._changed:
            if what == "read":
                # Who cannot be read from is not written to either, unless only reading is denied.
                self._readable = False
            if what == "write" or not isinstance(error, PermissionError):
                self._give_up()
                self._changed.notify_all()
        verb = "not used" if what == "read" else "not written to"
        self._report("failure", f"the shared cache {self.location} is {verb}: {_problem(error)}")

    def _report(self, kind: str, message: str) -> None:
        with self._changed:
            if kind in self._reported:
                return
            self._reported.add(kind)
            self._messages.append(message)
        # Threads leave their warnings to the next call of the thread that uses the cache.
        if threading.current_thread() is threading.main_thread():
            self.emit()

    def emit(self) -> None:
        """Warn of what was found since the last call."""
        while self._messages:
            warnings.warn(self._messages.popleft(), stacklevel=2)


def _problem(error: Exception) -> str:
    if isinstance(error, MissingPackageError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket or folder"
    return describe(error)


def installed_schemes() -> dict[str, str]:
    """Return the schemes of shared caches, with what to install for each one, empty for those that can be used."""
    return {
        name: "" if scheme.installed else f"pip install 'edgepack[{scheme.extra}]'" for name, scheme in SCHEMES.items()
    }
