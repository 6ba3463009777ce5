"""The Java loader of Android bundles."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edgepack.bundle import names
from edgepack.bundle.languages.base import LoaderCompiler
from edgepack.bundle.languages.jvm import JvmLanguage
from edgepack.bundle.languages.jvm_tensor import JvmTensor
from edgepack.tools import Tool

JAVAC = Tool(
    name="javac",
    program="javac",
    variable="EDGEPACK_JAVAC",
    install="install a JDK, version 17 or later",
    version_args=("-version",),
)
_COLUMNS = 100


def java_string(text: str) -> str:
    """Return a Java string literal, ASCII only."""
    return f'"{names.escape(text, names.ESCAPES, names.utf16_code_units)}"'


def java_call(start: str, parameters: Iterable[str], end: str) -> str:
    """Return a Java declaration or call in lines of at most 100 columns, in google-java-format's layout.

    Args:
        start: Everything up to and with the opening parenthesis, indented.
        parameters: One text each.
        end: Everything from the closing parenthesis on.
    """
    texts = list(parameters)
    indent = " " * (len(start) - len(start.lstrip()) + 4)
    joined = ", ".join(texts) + end
    if len(start + joined) <= _COLUMNS:
        return start + joined
    if len(indent + joined) <= _COLUMNS:
        return f"{start}\n{indent}{joined}"
    return f"{start}\n" + ",\n".join(indent + text for text in texts) + end


@dataclass(frozen=True)
class JavaTensor(JvmTensor):
    """A tensor as the Java templates see it."""

    new = "new "

    @property
    def type(self) -> str:
        """Java array type of the loader's parameter or getter.

        Raises:
            BundleError: The Android runtime's Java classes have no such type.
        """
        return f"{self.array.removesuffix('Array').lower()}[]"

    def declare(self, type_name: str) -> str:
        """Return a parameter of a type that has the tensor's name."""
        return f"{type_name} {self.field}"

    @staticmethod
    def string(text: str) -> str:
        """Return a Java string literal."""
        return java_string(text)


class Java(JvmLanguage):
    """Java sources in the Gradle module."""

    id = "java"
    title = "Java"
    tensor = JavaTensor
    compiler = LoaderCompiler(JAVAC, ".java", ("--release", "17", "-proc:none", "-encoding", "UTF-8"))

    def filters(self) -> Mapping[str, Callable[..., str]]:
        """Return `java`, a string literal, and `jcall`, the layout of a declaration or call."""
        return {"java": java_string, "jcall": java_call}
