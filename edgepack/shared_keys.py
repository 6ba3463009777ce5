"""Which entries of the local cache a shared cache has as well, as far as this machine knows.

A machine may have used its cache for months before it shares one. Each entry that it finds in its own cache is offered
to the shared one once; this record spares every later command the question, and with it the network.
"""

import contextlib
import hashlib
import os
from pathlib import Path

from edgepack.files import read_regular, require_regular

PREFIX = ".shared-"
#: Bytes of a record, about 20,000 keys; no more are recorded, and those are offered again.
_MAX_RECORD = 1 << 20


class SharedKeys:
    """A record of keys: one line for each, appended in one short write, so that concurrent writers do not mix lines.

    Args:
        root: Folder of the local cache.
        url: URL of the shared cache; each one has a record of its own.
    """

    def __init__(self, root: Path, url: str) -> None:
        self._path = root / f"{PREFIX}{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._keys: set[str] | None = None

    def __contains__(self, key: str) -> bool:
        return key in self._read()

    def add(self, key: str) -> None:
        """Record a key; a record that cannot be written only costs time later."""
        keys = self._read()
        if key in keys:
            return
        keys.add(key)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(self._path, flags, 0o644)
            try:
                if os.fstat(descriptor).st_size < _MAX_RECORD:
                    os.write(descriptor, f"{key}\n".encode())
            finally:
                os.close(descriptor)

    def _read(self) -> set[str]:
        if self._keys is None:
            self._keys = set()
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if require_regular(self._path).st_size <= 2 * _MAX_RECORD:
                    self._keys = set(read_regular(self._path).decode().split())
        return self._keys
