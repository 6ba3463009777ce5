"""The Kotlin loader of Android bundles."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edgepack.bundle import names
from edgepack.bundle.languages.base import LoaderCompiler
from edgepack.bundle.languages.jvm import JvmLanguage
from edgepack.bundle.languages.jvm_tensor import JvmTensor
from edgepack.tools import Tool

KOTLINC = Tool(
    name="kotlinc",
    program="kotlinc",
    variable="EDGEPACK_KOTLINC",
    install="install the Kotlin command line compiler, or use --language java",
    version_args=("-version",),
)
_COLUMNS = 140


def kotlin_string(text: str) -> str:
    """Return a Kotlin string literal, ASCII only, in which `$` starts no template."""
    return f'"{names.escape(text, {**names.ESCAPES, "$": chr(92) + "$"}, names.utf16_code_units)}"'


def kotlin_function(start: str, parameters: Iterable[str], end: str, body: str = "") -> str:
    """Return the head of a Kotlin function in ktlint's layout: one line, or a line for each of several parameters.

    Args:
        start: Everything before the opening parenthesis, indented.
        parameters: One text each.
        end: The result's type, with its colon.
        body: A body of one line after the equals sign; empty for one that the template writes.
    """
    texts = list(parameters)
    indent = " " * (len(start) - len(start.lstrip()))
    head = f"{start}({', '.join(texts)}){end}"
    if len(texts) > 1 or len(head) > _COLUMNS:
        head = f"{start}(\n" + "".join(f"{indent}    {text},\n" for text in texts) + f"{indent}){end}"
    if not body:
        return f"{head} ="
    fits = len(f"{head.rpartition(chr(10))[2]} = {body}") <= _COLUMNS
    return f"{head} = {body}" if fits else f"{head} =\n{indent}    {body}"


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
        """Return `kt`, a string literal, `ktfloat`, a float literal, and `ktfun`, the head of a function."""
        return {"kt": kotlin_string, "ktfloat": names.float32_literal, "ktfun": kotlin_function}
