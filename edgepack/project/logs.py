"""A log file for each cell: what happened in the last run that worked on it."""

import contextlib
import os
import time
from pathlib import Path

from edgepack.errors import EdgepackError
from edgepack.files import create_folder

#: Folder of the logs in the output folder.
FOLDER = "logs"


class CellLogs:
    """The log files of one run.

    Args:
        out: Folder of the project's bundles.
    """

    def __init__(self, out: Path) -> None:
        self._folder = out / FOLDER
        self._started: set[str] = set()

    def path(self, cell: str) -> Path:
        """Return the log file of a cell: `MODEL-TARGET.log`, `MODEL-TARGET@CHIP.log`."""
        return self._folder / f"{cell.replace('/', '-')}.log"

    def write(self, cell: str, line: str) -> None:
        """Append a line with the time of day; the first one of a run replaces the log of the run before.

        Raises:
            UsageError: The folder cannot be created.
        """
        path = self.path(cell)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if cell not in self._started:
            create_folder(self._folder)
            flags |= os.O_TRUNC
            self._started.add(cell)
        # A log that cannot be written ends no build.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, flags, 0o644)
            try:
                os.write(descriptor, f"{time.strftime('%H:%M:%S')} {line}\n".encode("utf-8", "backslashreplace"))
            finally:
                os.close(descriptor)

    def finish(self, cell: str, state: str, error: EdgepackError | None, scheme: str) -> None:
        """Append how the cell ended; a bundle that was left alone keeps the log of its build."""
        if state in {"current", "cached"} and cell not in self._started:
            return
        if error is None:
            self.write(cell, f"{state}{f': {scheme}' if scheme else ''}")
            return
        self.write(cell, f"failed: {error.message}")
        if error.hint:
            self.write(cell, f"hint: {error.hint}")
        tail = error.details.get("log_tail", "")
        for line in tail.splitlines() if isinstance(tail, str) else tail:
            self.write(cell, f"  {line}")
