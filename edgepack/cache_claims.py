"""Claims on cache keys: of several processes that need the same result, one computes it and the others wait.

A claim is a lock on a hidden file beside the entries. The system releases it when the process ends, however it ends.
On a file system without locks nobody waits: a result may then be computed twice, which costs time only.
"""

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Seconds between attempts: waiting in the system call could not be limited.
_POLL = 0.05
#: Seconds after which a process computes the result itself: whoever holds the claim may have been stopped.
_LONGEST = 3600.0


class Claim:
    """The claim of this process on one key.

    Args:
        root: Folder of the cache.
        key: Key of the result.
    """

    def __init__(self, root: Path, key: str) -> None:
        self._path = root / f".{key}.tmp-claim"
        self._held: int | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> bool:
        """Wait until nobody else holds the claim, and hold it.

        Returns:
            Whether another process held it in the meantime, so that the result may be there.
        """
        waited, end = False, time.monotonic() + _LONGEST
        while fcntl is not None and time.monotonic() < end:
            try:
                descriptor = self._open()
            except OSError:
                break
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_named(descriptor):
                    self._held, descriptor = descriptor, -1
                    break
                waited = True
            except BlockingIOError:
                waited = True
                time.sleep(_POLL)
            except OSError:
                break
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        return waited

    def release(self) -> None:
        """Let others compute the result, or find it."""
        held, self._held = self._held, None
        if held is None:
            return
        with contextlib.suppress(OSError):
            # Still locked: whoever opened the file before this sees that it has lost its name.
            self._path.unlink()
        os.close(held)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(self._path, flags, 0o644)
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, flags, 0o644)

    def _is_named(self, descriptor: int) -> bool:
        """Return whether a file still has its name: the one who held the claim before removes it."""
        try:
            there, ours = self._path.stat(), os.fstat(descriptor)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
