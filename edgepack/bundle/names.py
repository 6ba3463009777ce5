"""Legal names and safe strings, for all languages and formats of a bundle.

Names come from users and from model files and may be any text. Identifiers consist of ASCII letters and digits only, so
that none can leave its place in a template, a path or a build file; texts go through the escaping of their format. What
concerns one loader language is in its module under `languages/`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping

_LONGEST = 48


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text, for tables of reserved names."""
    return frozenset(text.split())


def words(name: str) -> list[str]:
    """Return the lower-case ASCII words of any text: `My-Model.v2 (é)` gives `my`, `model`, `v2`, `e`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return [word.lower() for word in re.findall(r"[A-Za-z0-9]+", spaced)]


def stem(name: str, fallback: str) -> list[str]:
    """Return the words that identifiers of a name consist of: at least one, none starting with a digit in front."""
    parts = words(name)
    if not parts:
        # Two names without any ASCII letter must not become one.
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        parts = [fallback, digest] if name.strip() else [fallback]
    if parts[0][0].isdigit():
        parts.insert(0, fallback)
    kept: list[str] = []
    for word in parts:
        if kept and len("_".join([*kept, word])) > _LONGEST:
            break
        kept.append(word[:_LONGEST])
    return kept


def file_stem(name: str) -> str:
    """Return a file name's stem: ASCII letters, digits, underscore and dash; never empty, hidden, `.` or `..`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_-")[:_LONGEST].rstrip("_-")
    if not kept:
        return "_".join(stem(name, "model"))
    # Windows reserves these names for devices, whatever the extension.
    reserved = re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", kept)
    return f"model_{kept}" if reserved else kept


def snake(name: str, fallback: str = "model") -> str:
    """Return `my_model` for any text."""
    return "_".join(stem(name, fallback))


def pascal(name: str, fallback: str = "model") -> str:
    """Return `MyModel` for any text."""
    return "".join(word[:1].upper() + word[1:] for word in stem(name, fallback))


def camel(name: str, fallback: str = "model") -> str:
    """Return `myModel` for any text."""
    text = pascal(name, fallback)
    return text[:1].lower() + text[1:]


def distinct(texts: Iterable[str], legal: Callable[[str], str]) -> list[str]:
    """Return a different identifier for each text.

    Args:
        texts: Names, which may be equal or empty.
        legal: Returns a legal identifier for a text; different texts may get the same one.
    """
    identifiers: list[str] = []
    for text in texts:
        base = candidate = legal(text)
        number = 2
        # Case-insensitively: the names also become macros, and files on systems that ignore case.
        while candidate.lower() in {other.lower() for other in identifiers}:
            candidate = f"{base}{number}"
            number += 1
        identifiers.append(candidate)
    return identifiers


#: Escapes that Python, Kotlin, Java and TOML share.
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str, special: Mapping[str, str], beyond: Callable[[int], str]) -> str:
    r"""Return a text in printable ASCII.

    Args:
        text: Any text.
        special: Replacements by character.
        beyond: Returns the escape of a code point above U+FFFF; others outside printable ASCII become `\uXXXX`.
    """
    parts = []
    for character in text:
        code = ord(character)
        if character in special:
            parts.append(special[character])
        elif 0x20 <= code < 0x7F:
            parts.append(character)
        else:
            parts.append(beyond(code) if code > 0xFFFF else f"\\u{code:04x}")
    return "".join(parts)


def python_code_point(code: int) -> str:
    """Return the escape of a code point above U+FFFF in Python and TOML."""
    return f"\\U{code:08x}"


def utf16_code_units(code: int) -> str:
    """Return the escape of a code point above U+FFFF as a surrogate pair, for Kotlin and Java."""
    return f"\\u{0xD800 + ((code - 0x10000) >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def toml_string(text: str) -> str:
    """Return a TOML basic string. A lone surrogate, which TOML does not allow, becomes U+FFFD."""
    clean = re.sub("[\ud800-\udfff]", "\ufffd", text)
    return f'"{escape(clean, ESCAPES, python_code_point)}"'


def xml_text(text: str) -> str:
    """Return text for an XML element or attribute; characters that XML 1.0 forbids become U+FFFD."""
    clean = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
    table = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;", "\n": "&#10;", "\r": "&#13;"}
    return "".join(table.get(character, character) for character in clean)


def markdown_text(text: str) -> str:
    """Return text that Markdown shows unchanged, on one line."""
    line = comment_text(text)
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", line)


def markdown_code(text: str) -> str:
    """Return an inline code span of the text, whatever backticks are in it."""
    line = comment_text(text) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def comment_text(text: str) -> str:
    """Return text for a comment or docstring: one line without quotes, escapes or marks that could end it."""
    line = "".join(character if character.isprintable() else " " for character in text)
    line = line.replace("*/", "* /").replace("/*", "/ *").replace('"""', "'''").replace("\\", "/")
    return line.encode("utf-8", "replace").decode("utf-8").strip().rstrip('"')


def float32_literal(value: float) -> str:
    """Return a float literal of the same float32 value, for C, Kotlin and Java."""
    import numpy as np

    return f"{np.float32(value)!s}f"
