"""`edgepack.load_project`."""

import os
from pathlib import Path

from edgepack.project.cells import Project


def load_project(path: str | os.PathLike[str] | None = None) -> Project:
    """Read a project file; each of its cells is one call of `build`.

    `edgepack.build(cell.path, cell.target, options=cell.options)` builds a cell.

    Args:
        path: The file or its folder; None for the `edgepack.toml` in the current folder or the nearest one above.

    Raises:
        EdgepackError: There is no such file, or it has faults: the message has each with its line.
    """
    from edgepack.project.discovery import require_project
    from edgepack.project.reader import read_project

    return read_project(require_project(None if path is None else Path(path)))
