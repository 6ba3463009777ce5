"""The Kotlin loader of Android bundles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgepack.bundle import names
from edgepack.bundle.languages.base import LoaderCompiler
from edgepack.bundle.languages.jvm import JvmLanguage, JvmTensor
from edgepack.tools import Tool

KOTLINC = Tool(
    name="kotlinc",
    program="kotlinc",
    variable="EDGEPACK_KOTLINC",
    install="install the Kotlin command line compiler, or use --language java",
    version_args=("-version",),
)


def kotlin_string(text: str) -> str:
    """Return a Kotlin string literal, ASCII only, in which `$` starts no template."""
    return f'"{names.escape(text, {**names.ESCAPES, "$": chr(92) + "$"}, names.utf16_code_units)}"'


@dataclass(frozen=True)
class KotlinTensor(JvmTensor):
    """A tensor as the Kotlin templates see it."""

    def declare(self, type_name: str) -> str:
        """Return a parameter of a type that has the tensor's name."""
        return f"{self.field}: {type_name}"

    @staticmethod
    def string(text: str) -> str:
        """Return a Kotlin string literal."""
        return kotlin_string(text)


class Kotlin(JvmLanguage):
    """Kotlin sources in the Gradle module."""

    id = "kotlin"
    title = "Kotlin"
    tensor = KotlinTensor
    compiler = LoaderCompiler(KOTLINC, ".kt", ("-jvm-target", "17"))

    def filters(self) -> Mapping[str, Callable[..., str]]:
        """Return `kt`, a string literal, and `ktfloat`, a float literal of Kotlin and Java."""
        return {"kt": kotlin_string, "ktfloat": names.float32_literal}
