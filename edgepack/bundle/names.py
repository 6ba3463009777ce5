"""Legal names and safe strings for the languages a bundle is written in.

Names come from users and from model files and may be anything. Identifiers are made of ASCII letters and digits only,
so none can leave its place in a template, a path or a build file; texts go through the escaping of their language.
"""

import hashlib
import keyword
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable

_LONGEST = 48


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Kotlin's hard keywords and literals, and Java's: a Kotlin name should stay usable from Java.
_JVM_KEYWORDS = _set("""
    abstract as assert boolean break byte case catch char class const continue default do double else enum extends false
    final finally float for fun goto if implements import in instanceof int interface is long native new null object
    package private protected public return short static strictfp super switch synchronized this throw throws transient
    true try typealias typeof val var void volatile when while yield
""")
_JAVA_COLUMNS = 100
# Names that the generated code itself uses where a model's names are in scope.
_KOTLIN_USED = _set("runner outputs inputs listOf arrayOf mapOf topK labels output k")
_PYTHON_USED = _set("self cls top_k k output status np result labels")
# Packages that a package named after a model would hide.
_PACKAGES_TAKEN = _set("numpy ai_edge_litert tflite_runtime tensorflow edgepack hatchling src test tests")
# Kotlin, Android and loader names that a class named after a model must not shadow in the generated files.
_CLASSES_TAKEN = _set("""
    Activity Any Array ArrayLike ArrayList Arrays AssetManager Assets Attempt Benchmark Bitmap Boolean Buffer Bundle
    Byte ByteArray ByteBuffer ByteOrder Collection Comparable CompatibilityList Context Delegate Double Engine Error
    Exception Executors File Float FloatArray GoldenDifference GpuDelegate HashMap IllegalArgumentException
    IllegalStateException ImageSpec Instrumentation Int IntArray Integer Interpreter Iterable JvmOverloads Label List
    Long LongArray Map Math MessageDigest ModelRunner ModelStatus Nothing Object Pair QnnDelegate Result Runnable
    SelfTest Sequence Set Short ShortArray Status Step String System Tail Tensor TensorSpec Thread Throwable Unit
""")


def words(name: str) -> list[str]:
    """Return the lower-case ASCII words of any text: `My-Model.v2 (é)` gives `my`, `model`, `v2`, `e`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return [word.lower() for word in re.findall(r"[A-Za-z0-9]+", spaced)]


def _stem(name: str, fallback: str) -> list[str]:
    found = words(name)
    if not found:
        # Two names of which nothing is left must not become one.
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        found = [fallback, digest] if name.strip() else [fallback]
    if found[0][0].isdigit():
        found.insert(0, fallback)
    kept: list[str] = []
    for word in found:
        if kept and len("_".join([*kept, word])) > _LONGEST:
            break
        kept.append(word[:_LONGEST])
    return kept


def file_stem(name: str) -> str:
    """Return a file name's stem: ASCII letters, digits, underscore and dash; never empty, hidden, `.` or `..`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_-")[:_LONGEST].rstrip("_-")
    if not kept:
        return "_".join(_stem(name, "model"))
    # Windows keeps these for devices, whatever the extension.
    reserved = re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", kept)
    return f"model_{kept}" if reserved else kept


def snake(name: str, fallback: str = "model") -> str:
    """Return `my_model` for any text."""
    return "_".join(_stem(name, fallback))


def pascal(name: str, fallback: str = "model") -> str:
    """Return `MyModel` for any text."""
    return "".join(word[:1].upper() + word[1:] for word in _stem(name, fallback))


def camel(name: str, fallback: str = "model") -> str:
    """Return `myModel` for any text."""
    text = pascal(name, fallback)
    return text[:1].lower() + text[1:]


def python_package(name: str) -> str:
    """Return an importable package name that is no keyword, no standard module and none of the loader's own imports."""
    found = snake(name)
    taken = keyword.iskeyword(found) or keyword.issoftkeyword(found)
    return f"{found}_model" if taken or found in sys.stdlib_module_names or found in _PACKAGES_TAKEN else found


def distribution(name: str) -> str:
    """Return the name of the installable Python package, as PyPA's name rules want it."""
    return python_package(name).replace("_", "-")


def class_name(name: str) -> str:
    """Return a class name that is legal in Python, Kotlin and Java and shadows nothing the loaders use."""
    found = pascal(name)
    return f"{found}Model" if found in _CLASSES_TAKEN or found.lower() in _JVM_KEYWORDS else found


def jvm_segment(name: str) -> str:
    """Return one segment of a Kotlin package: lower case, no underscore, no keyword."""
    found = "".join(_stem(name, "model"))
    return f"{found}model" if found in _JVM_KEYWORDS else found


def jvm_package(prefix: str, name: str) -> str:
    """Return a Kotlin package: the legal form of each segment of `prefix`, then the model's.

    Args:
        prefix: `com.example` say; illegal segments are made legal, empty ones dropped.
        name: The model's name.
    """
    segments = [jvm_segment(part) for part in prefix.split(".") if part.strip()]
    return ".".join([*(segments or ["com", "example"]), jvm_segment(name)])


def gradle_module(name: str) -> str:
    """Return the name of the Gradle module and of its folder."""
    return snake(name).replace("_", "-")


def python_identifiers(names: Iterable[str], fallback: str) -> list[str]:
    """Return a different legal Python name for each text."""

    def legal(name: str) -> str:
        found = snake(name, fallback)
        taken = keyword.iskeyword(found) or keyword.issoftkeyword(found) or found in _PYTHON_USED
        return f"{found}_" if taken else found

    return _unique(names, legal)


def kotlin_identifiers(names: Iterable[str], fallback: str) -> list[str]:
    """Return a different legal Kotlin (and Java) name for each text."""

    def legal(name: str) -> str:
        found = camel(name, fallback)
        return f"{found}Value" if found in _JVM_KEYWORDS or found in _KOTLIN_USED else found

    return _unique(names, legal)


def _unique(names: Iterable[str], legal: Callable[[str], str]) -> list[str]:
    texts = list(names)
    found: list[str] = []
    for name in texts:
        base = candidate = legal(name)
        number = 2
        # Case-insensitively: the names also become files on systems that ignore case.
        while candidate.lower() in {other.lower() for other in found}:
            candidate = f"{base}{number}"
            number += 1
        found.append(candidate)
    return found


def _escape(text: str, special: dict[str, str], wide: str) -> str:
    """Return ASCII text: `special` characters as told, other ones outside printable ASCII by code point."""
    parts = []
    for character in text:
        code = ord(character)
        if character in special:
            parts.append(special[character])
        elif 0x20 <= code < 0x7F:
            parts.append(character)
        elif code > 0xFFFF:
            parts.append(
                f"\\U{code:08x}"
                if wide == "python"
                else "".join(f"\\u{unit:04x}" for unit in (0xD800 + ((code - 0x10000) >> 10), 0xDC00 + (code & 0x3FF)))
            )
        else:
            parts.append(f"\\u{code:04x}")
    return "".join(parts)


_COMMON = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def python_string(text: str) -> str:
    """Return a Python string literal in double quotes, ASCII only."""
    return f'"{_escape(text, _COMMON, "python")}"'


def kotlin_string(text: str) -> str:
    """Return a Kotlin string literal, ASCII only, with `$` kept from starting a template."""
    return f'"{_escape(text, {**_COMMON, "$": chr(92) + "$"}, "jvm")}"'


def java_string(text: str) -> str:
    """Return a Java string literal, ASCII only."""
    return f'"{_escape(text, _COMMON, "jvm")}"'


def toml_string(text: str) -> str:
    """Return a TOML basic string. A lone surrogate, which TOML cannot hold, becomes U+FFFD."""
    clean = re.sub("[\ud800-\udfff]", "\ufffd", text)
    return f'"{_escape(clean, _COMMON, "python")}"'


def xml_text(text: str) -> str:
    """Return text for an XML element or attribute; characters that XML 1.0 forbids become U+FFFD."""
    clean = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
    table = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;", "\n": "&#10;", "\r": "&#13;"}
    return "".join(table.get(character, character) for character in clean)


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    line = comment_text(text)
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", line)


def markdown_code(text: str) -> str:
    """Return an inline code span that holds the text, whatever backticks are in it."""
    line = comment_text(text) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def java_call(start: str, parameters: Iterable[str], end: str) -> str:
    """Return a Java declaration or call in lines of at most 100, as google-java-format lays it out.

    Args:
        start: Everything up to and with the opening parenthesis, indented.
        parameters: One text each.
        end: Everything from the closing parenthesis on.
    """
    given = list(parameters)
    indent = " " * (len(start) - len(start.lstrip()) + 4)
    joined = ", ".join(given) + end
    if len(start + joined) <= _JAVA_COLUMNS:
        return start + joined
    if len(indent + joined) <= _JAVA_COLUMNS:
        return f"{start}\n{indent}{joined}"
    return f"{start}\n" + ",\n".join(indent + parameter for parameter in given) + end


def comment_text(text: str) -> str:
    """Return text for a comment or docstring: one line, no end of comment, no quotes or escapes that could end it."""
    line = "".join(character if character.isprintable() else " " for character in text)
    line = line.replace("*/", "* /").replace("/*", "/ *").replace('"""', "'''").replace("\\", "/")
    return line.encode("utf-8", "replace").decode("utf-8").strip().rstrip('"')


def kotlin_float(value: float) -> str:
    """Return a Kotlin Float literal of the same float32 value."""
    import numpy as np

    return f"{np.float32(value)!s}f"
