"""`edgepack.load_project`."""

import os
from importlib import import_module
from pathlib import Path

from edgepack.errors import ToolMissingError
from edgepack.project.cells import Project


def load_project(path: str | os.PathLike[str] | None = None) -> Project:
    """Read a project file; each of its cells is one call of `build`.

    `edgepack.build(cell.path, cell.target, options=cell.options)` builds a cell.

    Args:
        path: The file or its folder; None for the `edgepack.toml` in the current folder or the nearest one above.

    Raises:
        EdgepackError: There is no such file, or it has faults: the message has each with its line.
    """
    try:
        discovery, reader = (import_module(f"edgepack.project.{name}") for name in ("discovery", "reader"))
    except ModuleNotFoundError as error:
        raise ToolMissingError(
            f"edgepack.load_project needs '{error.name}', which is not installed", hint="install edgepack again"
        ) from error
    file: Path = discovery.require_project(None if path is None else Path(path))
    project: Project = reader.read_project(file)
    return project
