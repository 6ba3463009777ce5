"""The options of build, check and compare: one definition for the command line, the project file and its schema.

A key of `edgepack.toml` is the flag without its dashes, `max-drop` for `--max-drop`. What a value must be is stated
here as data: `values` reads the file by it, `schema` writes it as JSON Schema, and `cli.flags` makes the flags.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Panel(StrEnum):
    """Panels of the help pages, which are also the groups of the reference of the project file."""

    MODEL = "Model"
    DATA = "Data"
    ACCURACY = "Accuracy"
    TARGET = "Target"
    BUNDLE = "Bundle"
    RUN = "Run"
    OUTPUT = "Output"


class Kind(StrEnum):
    """What the value of an option is."""

    TEXT = "text"
    FLAG = "flag"
    INTEGER = "integer"
    NUMBER = "number"
    SIZE = "size"
    MEMORY = "memory"
    CHOICE = "choice"
    PATH = "path"
    SOURCE = "source"
    PATHS = "paths"
    TEXTS = "texts"
    SHAPES = "shapes"


class Scope(StrEnum):
    """Where the file may set an option: per target too, per model only, or not as an option at all."""

    TARGET = "target"
    MODEL = "model"
    NOWHERE = "nowhere"


@dataclass(frozen=True)
class Variation:
    """What differs on the help page of one command.

    Attributes:
        help: Description; empty for the option's own.
        panel: Panel; None for the option's own.
        show_default: Text shown as the default; empty for the option's own.
    """

    help: str = ""
    panel: Panel | None = None
    show_default: str = ""


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        panel: Panel of the help page.
        name: Flag without its dashes, and key of the project file.
        kind: What its value is.
        help: Description, for the help page, the schema and the reference.
        attribute: Field of `BuildOptions`; `model.timeout` and `target.variant` are fields of its parts. Empty for a
            flag that is no option of a build.
        metavar: What the value is on the help page: `DIR`.
        choices: Values, for a choice.
        minimum: Smallest number, None for any.
        short: One-letter flag with its dash, `-o`.
        negated: True when the flag sets its field to False.
        show_default: Text shown as the default, empty to show the value itself.
        commands: Commands that have the flag.
        variations: What differs on the help page of a command.
        scope: Where the file may set it.
        instead: Why the file has no such key, and which key replaces it; for `Scope.NOWHERE` only.
        in_project: Value that the file's cells have unless they set another one, None for the field's default.
    """

    panel: Panel
    name: str
    kind: Kind
    help: str
    attribute: str = ""
    metavar: str = ""
    choices: type[StrEnum] | None = None
    minimum: float | None = None
    short: str = ""
    negated: bool = False
    show_default: str = ""
    commands: tuple[str, ...] = ("build",)
    variations: Mapping[str, Variation] = field(default_factory=dict)
    scope: Scope = Scope.TARGET
    instead: str = ""
    in_project: bool | None = None

    @property
    def flag(self) -> str:
        """The long flag, `--max-drop`."""
        return f"--{self.name}"

    @property
    def parameter(self) -> str:
        """Name of the parameter in Python, `max_drop`."""
        return self.name.replace("-", "_")

    def variation(self, command: str) -> Variation:
        """Return what differs on the help page of a command."""
        return self.variations.get(command, Variation())
