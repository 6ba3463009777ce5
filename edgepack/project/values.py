"""The values of options in the project file: what they must be, and what they are for a build.

What a value must be is a JSON Schema, so that editors and the reader cannot disagree. `fits` knows the few keywords
that are used here. Python and ECMAScript read the patterns alike: Python's `$` also matches before a last line feed.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from edgepack.choices import alternatives
from edgepack.errors import UsageError
from edgepack.limits import parse_memory
from edgepack.pipeline.options import BuildOptions
from edgepack.project.definition import Kind, Option
from edgepack.project.option_table import BY_NAME

Schema = Mapping[str, Any]

#: Name of a model: it is part of cell ids, and of names of files, which have at most 255 bytes.
NAME: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$(?!\n)"}
#: A target, or a target and a chip.
TARGET: Schema = {"type": "string", "pattern": r"^[a-z0-9][a-z0-9_-]*(@[A-Za-z0-9][A-Za-z0-9_-]*)?$(?!\n)"}
TARGETS: Schema = {"type": "array", "items": TARGET, "minItems": 1, "uniqueItems": True}
#: A text for the system: paths and names must not contain the character NUL.
TEXT: Schema = {"type": "string", "pattern": r"^[^\x00]*$"}
FILLED: Schema = {"type": "string", "pattern": r"^[^\x00]+$"}
#: A size with a unit, of at least one byte: fractions only of kilobytes and more, with three digits.
_SIZE = r"^(?=[0-9.]*[1-9])([0-9]{1,12} *[bB]?|[0-9]{1,12}(\.[0-9]{1,3})? *[kKmMgG][iI]?[bB]?)$(?!\n)"
_MEMORY = _SIZE.replace("gG", "gGtT")
_LARGEST = (1 << 63) - 1
_FINITE = 1.7976931348623157e308

_SIZE_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmg])(i?))?b?", re.IGNORECASE)
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def can_be_unset(option: Option) -> bool:
    """Return whether an empty text takes back what [defaults] set: of a limit or a choice that has no default."""
    kinds = (Kind.NUMBER, Kind.SIZE, Kind.MEMORY, Kind.CHOICE)
    return option.kind in kinds and bool(option.attribute) and default_of(option) is None


def schema_of(option: Option) -> Schema:
    """Return the JSON Schema of an option's value in the file."""
    schema = _schema_of(option)
    if not can_be_unset(option):
        return schema
    if "enum" in schema:
        return {"enum": [*schema["enum"], ""]}
    own = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    pattern = f"({schema['pattern']})|" if "pattern" in schema else ""
    return {**schema, "type": list(dict.fromkeys([*own, "string"])), "pattern": f"{pattern}^$(?!\\n)"}


def _schema_of(option: Option) -> Schema:
    least = option.minimum
    match option.kind:
        case Kind.FLAG:
            return {"type": "boolean"}
        case Kind.INTEGER:
            return {"type": "integer", "minimum": int(least or 0), "maximum": (1 << 31) - 1}
        case Kind.NUMBER:
            return {"type": "number", "minimum": least or 0, "maximum": _FINITE}
        case Kind.SIZE | Kind.MEMORY:
            pattern = _SIZE if option.kind == Kind.SIZE else _MEMORY
            return {"type": ["string", "integer"], "pattern": pattern, "minimum": 1, "maximum": _LARGEST}
        case Kind.CHOICE:
            return {"enum": [str(value) for value in option.choices or ()]}
        case Kind.TEXTS | Kind.PATHS:
            return {"type": "array", "items": FILLED}
        case Kind.SHAPES:
            size = {"type": "integer", "minimum": 1, "maximum": (1 << 31) - 1}
            shape = {"type": "array", "items": size, "minItems": 1}
            return {"type": "object", "additionalProperties": shape}
        case Kind.TEXT | Kind.PATH | Kind.SOURCE:
            return TEXT


def expected(option: Option) -> str:
    """Return what the value of an option must be, in words."""
    return _expected(option) + (', or "" for none' if can_be_unset(option) else "")


def _expected(option: Option) -> str:
    least = f" from {option.minimum or 0:g}"
    match option.kind:
        case Kind.FLAG:
            return "true or false"
        case Kind.INTEGER:
            return f"an integer{least}"
        case Kind.NUMBER:
            return f"a number{least}"
        case Kind.SIZE:
            return 'a size such as "500KB", "1.5MiB" or 800000'
        case Kind.MEMORY:
            return 'a size such as "8GB" or "512MiB"'
        case Kind.CHOICE:
            return alternatives([f'"{value}"' for value in option.choices or ()])
        case Kind.TEXTS:
            return "a list of strings that are not empty"
        case Kind.PATHS:
            return "a list of paths"
        case Kind.SHAPES:
            return "a table of shapes such as { image = [1, 224, 224, 3] }"
        case Kind.PATH:
            return "a path"
        case Kind.SOURCE:
            return "the path of samples, or module:function"
        case Kind.TEXT:
            return "a string"


def fits(value: Any, schema: Schema) -> bool:
    """Return whether a value of a TOML document is valid by a schema of this module."""
    if "enum" in schema:
        return isinstance(value, str) and value in schema["enum"]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, str):
        return "string" in kinds and ("pattern" not in schema or bool(re.search(schema["pattern"], value)))
    if isinstance(value, int | float):
        # JSON does not distinguish 1 and 1.0.
        whole = isinstance(value, int) or value.is_integer()
        known = "number" in kinds or ("integer" in kinds and whole)
        return known and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if isinstance(value, list):
        if "array" not in kinds or len(value) < schema.get("minItems", 0):
            return False
        if not all(fits(item, schema["items"]) for item in value):
            return False
        return not schema.get("uniqueItems") or len(set(value)) == len(value)
    if isinstance(value, dict):
        return "object" in kinds and all(fits(item, schema["additionalProperties"]) for item in value.values())
    # Dates and times, which JSON does not have.
    return False


def stored_value(option: Option, value: Any, root: Path) -> Any:
    """Return a value of the file or of a flag as its field of `BuildOptions` needs it.

    Args:
        option: The option.
        value: A value that fits the option's schema.
        root: Folder that relative paths start from.

    Raises:
        UsageError: The value has the right form, and cannot be used.
    """
    if value == "" and can_be_unset(option):
        return None
    match option.kind:
        case Kind.INTEGER:
            # 0 is the newest runtime version.
            return int(value) or default_of(option)
        case Kind.NUMBER:
            return float(value)
        case Kind.SIZE:
            return size(option.flag, value)
        case Kind.MEMORY:
            return parse_memory(str(value if isinstance(value, str) else int(value)), option.flag) if value else None
        case Kind.CHOICE:
            return None if option.choices is None else option.choices(value)
        case Kind.PATH:
            return root / value if value else None
        case Kind.PATHS:
            return tuple(root / item for item in value)
        case Kind.SOURCE:
            return source(value, root)
        case Kind.TEXTS:
            return tuple(value)
        case Kind.SHAPES:
            return {name: tuple(map(int, shape)) for name, shape in value.items()}
        case Kind.TEXT | Kind.FLAG:
            return value


def size(flag: str, value: str | float) -> int | None:
    """Return a size in bytes: `500KB`, `1MB`, `1.5MiB` or plain bytes; None for an empty text.

    KB, MB and GB are decimal, as file managers and app stores count; KiB, MiB and GiB are powers of 1024.

    Raises:
        UsageError: The text is no size.
    """
    text = value if isinstance(value, str) else str(int(value))
    if not text:
        return None
    match = _SIZE_PARTS.fullmatch(text.strip())
    count = 0
    if match is not None:
        number, prefix, binary = match.groups()
        count = int(float(number) * (1024 if binary else 1000) ** ("kmgt".index(prefix.lower()) + 1 if prefix else 0))
    if count < 1:
        raise UsageError(
            f"{flag}: expected a size such as 500KB, 1MB, 1MiB or 800000, got '{text}'",
            hint="KB and MB are powers of 1000, KiB and MiB of 1024",
        )
    return count


def source(value: str, root: Path) -> str:
    """Return a source of samples that does not depend on the current folder.

    `module:function` becomes `FOLDER/module:function`: the module is looked up in the folder of the project file first.
    """
    if not value or root == Path():
        return value
    return f"{root}/{value}" if _FUNCTION.fullmatch(value) else str(root / value)


def build_options(values: Mapping[str, Any], **more: Any) -> BuildOptions:
    """Return the options of a build.

    Args:
        values: Value by the name of the option, as `BuildOptions` needs it.
        more: Further fields of `BuildOptions`.
    """
    parts: dict[str, dict[str, Any]] = {"": dict(more), "model": {}, "target": {}}
    for name, value in values.items():
        option = BY_NAME[name]
        part, _, attribute = option.attribute.rpartition(".")
        parts[part][attribute] = not value if option.negated else value
    whole = BuildOptions()
    return replace(
        whole,
        model=replace(whole.model, **parts["model"]),
        target=replace(whole.target, **parts["target"]),
        **parts[""],
    )


def default_of(option: Option) -> Any:
    """Return the default of an option's field, None for a flag that is no option of a build."""
    return attrgetter(option.attribute)(BuildOptions()) if option.attribute else None
