"""What was built last for each cell, and from what: so that a plan can say why something is built again.

One JSON document per line is appended to a file in the output folder, the last line of a cell counts. A killed process
can leave half a line, which is ignored; the file is written anew when it has many lines that no longer count.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from edgepack.files import read_regular, write_atomically

#: The file, relative to the output folder.
FILE = Path(".edgepack") / "cells.jsonl"

#: Lines per cell above which the file is written anew.
_MOST_LINES = 4


@dataclass(frozen=True)
class Record:
    """The last build of one cell.

    Attributes:
        cell: Id of the cell.
        key: Key of the cache entry with its bundle.
        parts: What it depended on: a digest or a short text for each part.
        mark: Identity of the bundle in the output folder (`mark_of`), empty for a failed build.
        error: Kind of the error of a failed build.
        seconds: Duration of the build, of the one before where this one came from the cache.
    """

    cell: str
    key: str
    parts: Mapping[str, str] = field(default_factory=dict)
    mark: str = ""
    error: str = ""
    seconds: float = 0.0


class Records:
    """The records of a project.

    Args:
        out: Folder of the project's bundles.
    """

    def __init__(self, out: Path) -> None:
        self._path = out / FILE
        self.by_cell: dict[str, Record] = {}
        with contextlib.suppress(OSError):
            lines = read_regular(self._path).splitlines()
            for line in lines:
                if (record := _parse(line)) is not None:
                    self.by_cell[record.cell] = record
            if len(lines) > _MOST_LINES * len(self.by_cell) + 100:
                write_atomically(self._path, b"".join(map(_line, self.by_cell.values())))

    def add(self, record: Record) -> None:
        """Append a record.

        Raises:
            OSError: The file cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            # Half a line of a killed process must not swallow this one.
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, (b"\n" if torn else b"") + _line(record))
        finally:
            os.close(descriptor)
        self.by_cell[record.cell] = record


def _line(record: Record) -> bytes:
    return json.dumps(asdict(record), sort_keys=True).encode() + b"\n"


def _parse(line: bytes) -> Record | None:
    """Return the record of a line, None for one that is not whole or that another version wrote."""
    try:
        document = json.loads(line)
        known = {entry.name for entry in fields(Record)}
        record = Record(**{name: value for name, value in document.items() if name in known})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    texts = (record.cell, record.key, record.mark, record.error)
    sound = all(isinstance(text, str) for text in texts) and isinstance(record.parts, dict)
    return record if sound and isinstance(record.seconds, int | float) else None


def mark_of(folder: Path) -> str:
    """Return the identity of a folder's files without reading them, empty where there is none.

    It changes with the name, size or time of any file, and with every file that is added or removed.
    """
    import hashlib

    digest = hashlib.sha256()
    try:
        if not folder.is_dir():
            return ""
        for place, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                status = os.lstat(os.path.join(place, name))  # noqa: PTH118 - thousands of files
                relative = os.path.relpath(os.path.join(place, name), folder)  # noqa: PTH118
                digest.update(
                    f"{relative}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape")
                )
    except OSError:
        return ""
    return digest.hexdigest()[:32]
