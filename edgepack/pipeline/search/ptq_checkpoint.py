"""Finished parts of the PTQ steps, in a hidden folder of the cache until the result is there.

The child that runs the steps writes to no folder: it sends each part, and the command stores it.
"""

import contextlib
import re
import shutil
from pathlib import Path

from edgepack.digests import sha256
from edgepack.errors import UsageError
from edgepack.files import read_regular, write_atomically

#: Names that `edgepack.quantize.ptq.checkpoint.part_name` gives.
_NAME = re.compile(r"[0-9a-f]{40}")

#: Bytes of a digest in front of each part.
_DIGEST = 64


class PtqCheckpoint:
    """A folder of parts.

    Args:
        folder: The folder, created for the first part; None keeps nothing.
        limit: Largest size of all parts together, bytes; the child is not trusted with the disk.
    """

    def __init__(self, folder: Path | None, limit: int) -> None:
        self._folder, self._left = folder, limit

    def parts(self) -> dict[str, bytes]:
        """Return the parts of an earlier run by name; damaged ones are left out."""
        if self._folder is None or not self._folder.is_dir():
            return {}
        found = {}
        for path in sorted(self._folder.iterdir()):
            with contextlib.suppress(OSError, UsageError):
                content = read_regular(path) if _NAME.fullmatch(path.name) else b""
                data = content[_DIGEST:]
                if content[:_DIGEST] == sha256(data).encode():
                    found[path.name] = data
                    self._left -= len(content)
        return found

    def save(self, name: str, data: bytes) -> None:
        """Store a part; a full disk costs the checkpoint, not the run."""
        size = _DIGEST + len(data)
        if self._folder is None or not _NAME.fullmatch(name) or size > self._left:
            return
        with contextlib.suppress(UsageError):
            write_atomically(self._folder / name, sha256(data).encode() + data)
            self._left -= size

    def remove(self) -> None:
        """Remove all parts: the result is there."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
