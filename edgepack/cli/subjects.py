"""What a command works on: one model or bundle that is named by its path, or cells of the project.

A word with the suffix of a model, or that starts like a path, is a path, and no project file is read. Any other word is
a name of the project where that has it, else a path.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.cli.flags import Given
from edgepack.errors import EdgepackError, ProjectError, UsageError
from edgepack.project.cells import Cell, Project

#: Flags that mean one model, with what a project has instead.
_ONE_MODEL = {
    "name": "a model's name in the project file is the name of its bundles",
    "soc": "a chip is part of the target: -t hexagon@SM8550, or `targets` of the project file",
}


@dataclass(frozen=True)
class Selection:
    """Cells of a project.

    Attributes:
        project: The project.
        cells: Those to work on, in the order of the file.
    """

    project: Project
    cells: tuple[Cell, ...]

    @property
    def models(self) -> dict[str, tuple[Cell, ...]]:
        """The cells of each model by its name."""
        names = dict.fromkeys(cell.model for cell in self.cells)
        return {name: tuple(cell for cell in self.cells if cell.model == name) for name in names}


@dataclass(frozen=True)
class Paths:
    """How the paths of a command's subject are recognized, and what they are called.

    Attributes:
        noun: Name of the argument: `MODEL`.
        by_form: Whether a word is such a path, whatever exists.
        exists: Whether there is such a file or folder.
        of_cell: The path that a cell of the project has.
    """

    noun: str
    by_form: Callable[[str], bool]
    exists: Callable[[Path], bool]
    of_cell: Callable[[Cell], Path]


def find_subject(words: Sequence[str], file: Path | None, given: Given, paths: Paths | None = None) -> Path | Selection:
    """Return what the arguments of a command name.

    Args:
        words: The arguments.
        file: The project file that the user named, None to search when it is needed.
        given: The flags; they win over the project file.
        paths: How paths are recognized; models by default.

    Raises:
        UsageError: There is no argument and no project, the project file has faults, a name selects nothing, or a word
            is the name of a model and another file.
    """
    from edgepack.project.discovery import find_project, require_project
    from edgepack.project.selection import matches, select_cells

    paths = paths or _models()
    if file is None and len(words) == 1 and paths.by_form(words[0]):
        return Path(words[0])
    found = require_project(file, paths.noun) if file is not None or not words else find_project().file
    if found is None:
        if len(words) == 1:
            return Path(words[0])
        raise UsageError(
            f"expected one {paths.noun}, got {len(words)}: names need a project file, and there is none here or above",
            hint="`edgepack init` writes a project file",
        )
    if len(words) > 1 and (path := next(filter(paths.by_form, words), None)):
        raise UsageError(
            f"'{path}' is a path: give one {paths.noun}, or names of the project file",
            hint="`edgepack init` adds the models of a folder to a new project file",
        )
    existing = len(words) == 1 and file is None and paths.exists(Path(words[0]))
    try:
        project = _read(found, given, paths.noun, words)
    except UsageError:
        # A path needs no project: faults of a file somewhere above, and flags that no project takes, do not concern it.
        if existing:
            return Path(words[0])
        raise
    if existing and not matches(project, words[0]):
        return Path(words[0])
    cells = select_cells(project, words)
    for word in words:
        mine = [paths.of_cell(cell) for cell in select_cells(project, [word])]
        if file is None and paths.exists(Path(word)) and not all(_same(path, Path(word)) for path in mine):
            raise UsageError(
                f"'{word}' is a name of '{found}' and another {paths.noun.lower()} in this folder",
                hint=f"give './{word}' for the {paths.noun.lower()}, or --project '{found}' for the name",
            )
    return Selection(project, cells)


def require_no_model_flags(given: Given) -> None:
    """Refuse flags that mean one model where a command works on a project.

    Raises:
        UsageError: There is one.
    """
    for name, reason in _ONE_MODEL.items():
        if given.get(name):
            raise UsageError(f"--{name} is for one model", hint=reason)


def _read(file: Path, given: Given, noun: str, words: Sequence[str]) -> Project:
    from edgepack.project.reader import read_project

    require_no_model_flags(given)
    values = given.values(Path.cwd())
    out = values.pop("out", None)
    try:
        return read_project(file, values=values, targets=given.targets, out=out)
    except ProjectError as error:
        if words and not error.hint:
            error.hint = f"give './{words[0]}' for a {noun.lower()} of that name, which needs no project file"
        raise


def _models() -> Paths:
    from edgepack.convert.importers.registry import all_importers

    suffixes = tuple(suffix for importer in all_importers() for suffix in importer.suffixes)

    def by_form(word: str) -> bool:
        return looks_like_path(word) or word.lower().rstrip("/").endswith(suffixes)

    def exists(path: Path) -> bool:
        return path.is_file() or (path / "saved_model.pb").is_file()

    return Paths("MODEL", by_form, exists, lambda cell: cell.path)


def looks_like_path(word: str) -> bool:
    """Return whether a word starts or ends like a path, as no name does: `./a`, `../a`, `/a`, `~/a`, `a/`."""
    return word.startswith((".", "/", "~", "\\")) or word.endswith("/") or word[1:3] in {":\\", ":/"}


def worst(errors: Sequence[EdgepackError | None]) -> EdgepackError | None:
    """Return the error that decides the exit code of a run: the first with the lowest code, None without errors."""
    found = [error for error in errors if error is not None]
    return min(found, key=lambda error: error.exit_code, default=None)


def shown_path(path: Path) -> Path:
    """Return a path relative to the current folder where it is inside, for messages and reports."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
