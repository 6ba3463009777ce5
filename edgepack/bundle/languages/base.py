"""What a loader language brings: its names, what its templates see, and its template folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.views import TensorView
from edgepack.choices import Platform
from edgepack.resources import templates_dir
from edgepack.tools import Tool

#: Template of a language's section in the bundle's README, at the top of the language's template folder.
USAGE = "README.md.j2"


@dataclass(frozen=True)
class LoaderCompiler:
    """The compiler that turns an Android loader into the classes of an .aar.

    Attributes:
        tool: The program.
        suffix: Suffix of the source files, with the dot.
        flags: Arguments besides class path, output folder and sources.
    """

    tool: Tool
    suffix: str
    flags: tuple[str, ...]


class LoaderLanguage:
    """A language in which bundles carry a loader.

    A package adds a language with a subclass that the entry-point group `edgepack.languages` names; the entry point's
    name is the language's id. On Linux a bundle carries the loader of every installed language that serves Linux, on
    Android the one of the app's language.

    Attributes:
        id: Identifies the language, `kotlin`.
        title: Name for people, `Kotlin`.
        platforms: Platforms whose bundles carry a loader in this language.
        class_names: Class names that the generated code uses itself, so that no model's class may have them.
        keywords: Lower-case words that are no class name in any spelling.
        compiler: Compiles the loader for `--delivery aar`; None for a language that ships as sources only.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    platforms: ClassVar[tuple[Platform, ...]]
    class_names: ClassVar[frozenset[str]] = frozenset()
    keywords: ClassVar[frozenset[str]] = frozenset()
    compiler: ClassVar[LoaderCompiler | None] = None

    @property
    def folder(self) -> Path:
        """Template folder, rendered into the bundle as it is laid out; `README.md.j2` at its top is the usage section.

        Built-in languages have theirs under `templates/languages/`; a package returns a folder of its own.
        """
        return templates_dir() / "languages" / self.id

    def filters(self) -> Mapping[str, Callable[..., str]]:
        """Return the Jinja2 filters of the language, its string literals above all."""
        return {}

    def placeholders(self, spec: BundleSpec) -> Mapping[str, str]:
        """Return the words in template paths that stand for names in this language, with their values."""
        return {}

    def context(
        self, spec: BundleSpec, inputs: Sequence[TensorView], outputs: Sequence[TensorView]
    ) -> Mapping[str, Any]:
        """Return the template variables of the language.

        Args:
            spec: The bundle's values.
            inputs: Inputs, in file order.
            outputs: Outputs, in file order.
        """
        return {}
