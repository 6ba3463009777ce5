"""A temporary folder for one command or child process, removed even when its owner was killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

_PREFIX = "edgepack-run-"


class PrivateFolder:
    """A temporary folder that its owner holds a lock on; creating one removes those whose owner has been killed.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Where the file system has no locks, nobody can lock the folder in order to remove it.
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_abandoned(parent: Path) -> None:
    # A folder just created is not locked yet, so that one is kept for a minute.
    with contextlib.suppress(OSError):
        newest = time.time() - 60
        for path in parent.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < newest and path.lstat().st_uid == os.getuid():
                    _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
