"""Finds `edgepack.toml` in the current folder or above, as cargo and uv find theirs."""

import os
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import ProjectError

FILE_NAME = "edgepack.toml"


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Attributes:
        file: The project file, None when there is none.
        skipped: Files of other users, which were not read.
    """

    file: Path | None
    skipped: tuple[Path, ...] = ()


def find_project(start: Path | None = None) -> Found:
    """Search a folder and those above it for a project file.

    A file of another user is skipped, unless that user also owns the folder where the search starts: on a machine that
    several people use, anyone may write `/tmp/edgepack.toml`, and a build runs what the project names.

    Args:
        start: Where the search starts; None for the current folder.
    """
    folder = (start or Path()).absolute()
    skipped: list[Path] = []
    for place in (folder, *folder.parents):
        file = place / FILE_NAME
        if not file.is_file():
            continue
        if _is_trusted(file, folder):
            return Found(file, tuple(skipped))
        skipped.append(file)
    return Found(None, tuple(skipped))


def require_project(explicit: Path | None = None, what: str = "MODEL") -> Path:
    """Return the project file that a command works on.

    Args:
        explicit: The file, or its folder, that the user named; None to search.
        what: Argument that the user could have given instead.

    Raises:
        ProjectError: There is none.
    """
    if explicit is not None:
        file = explicit / FILE_NAME if explicit.is_dir() else explicit
        if not file.exists():
            raise ProjectError(f"--project: '{file}' does not exist", hint="edgepack init writes a project file")
        return file.absolute()
    found = find_project()
    if found.file is not None:
        return found.file
    if found.skipped:
        raise ProjectError(
            f"no {what} given, and '{found.skipped[0]}' belongs to another user",
            hint=f"--project {found.skipped[0]} uses it nevertheless; a build runs what the file names",
        )
    raise ProjectError(
        f"no {what} given, and there is no {FILE_NAME} in this folder or above",
        hint=f"give a {what}, or write a project file with `edgepack init`",
    )


def _is_trusted(file: Path, start: Path) -> bool:
    if not hasattr(os, "getuid"):
        return True
    return file.stat().st_uid in {os.getuid(), 0, start.stat().st_uid}
