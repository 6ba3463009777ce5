"""Files of users: atomic writes, and reads that never block on a named pipe or a device."""

import contextlib
import errno
import os
import stat
import tempfile
from io import BufferedReader
from pathlib import Path

from edgepack import interrupts
from edgepack.errors import UsageError


def create_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        UsageError: It cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error


def remove_when_empty(path: Path) -> None:
    """Remove a folder in which nothing is left."""
    with contextlib.suppress(OSError):
        path.rmdir()


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file under a temporary name and move it into place in one step.

    Args:
        path: Destination; missing parent folders are created.
        data: Bytes, or text that is written as UTF-8.

    Raises:
        UsageError: The folder cannot be created or written.
    """
    content = data.encode() if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with interrupts.hold():
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(content)
                # mkstemp creates files that only the owner can read.
                Path(name).chmod(0o644)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error


def require_regular(path: Path, *, folder: bool = False) -> os.stat_result:
    """Refuse what is not a regular file, without opening it: opening a named pipe blocks, a device may never end.

    Args:
        path: A file; symbolic links are followed.
        folder: Accept a folder as well.

    Returns:
        The file's status.

    Raises:
        OSError: The file does not exist, or it is of another kind; the message names the kind.
    """
    status = path.stat()
    _refuse_special(status.st_mode, path, folder)
    return status


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading in binary mode.

    Raises:
        OSError: The file cannot be read, or it is not a regular file.
    """
    require_regular(path)
    # Judged again once open, and without blocking, because the file may have been replaced in between.
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    stream = open(os.open(path, flags), "rb")  # noqa: PTH123, SIM115
    try:
        _refuse_special(os.fstat(stream.fileno()).st_mode, path, folder=False)
    except BaseException:
        stream.close()
        raise
    return stream


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: The file cannot be read, or it is not a regular file.
    """
    with open_regular(path) as stream:
        return stream.read()


_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def _refuse_special(mode: int, path: Path, folder: bool) -> None:
    if stat.S_ISREG(mode) or (folder and stat.S_ISDIR(mode)):
        return
    kind = next((name for test, name in _SPECIAL if test(mode)), "of another kind")
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, f"it is {kind}, not a regular file", str(path))
