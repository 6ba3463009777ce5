"""What a project file describes: models, and one cell for each (model, target, chip) that is to be built."""

from dataclasses import dataclass
from pathlib import Path

from edgepack.pipeline.options import BuildOptions


@dataclass(frozen=True)
class Cell:
    """One bundle of a project.

    Attributes:
        model: Name of the model in the project, unique there.
        path: The model's file or folder.
        target: Target id.
        soc: Chip to compile for, empty for none.
        options: Options of its build, complete: defaults, the model's entry, its entry for this target and the flags
            of the command line are merged, paths are resolved against the folder of the project file, and
            `options.target.socs` and `options.out` are those of this cell.
    """

    model: str
    path: Path
    target: str
    soc: str
    options: BuildOptions

    @property
    def id(self) -> str:
        """`MODEL/TARGET` or `MODEL/TARGET@CHIP`, unique in a project."""
        return f"{self.model}/{self.target}{'@' if self.soc else ''}{self.soc}"


@dataclass(frozen=True)
class Project:
    """A project file.

    Attributes:
        path: The file.
        name: Name of the project.
        out: Folder of bundles, logs and the catalog.
        cache: URL of a shared cache, empty for none.
        cells: What it describes, in the order of the file.
    """

    path: Path
    name: str
    out: Path
    cache: str
    cells: tuple[Cell, ...]
