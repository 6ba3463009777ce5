"""Atomic writes: a reader sees the complete file or none."""

import os
import tempfile
from pathlib import Path

from edgepack.errors import UsageError


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
