"""The structure of `edgepack.toml`: which tables and keys it has, and what their values must be.

`check_document` finds every fault of a document's structure, exactly where the generated JSON Schema has one. What a
schema cannot state (two models with one name, a target that is not installed) is in `reader`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from edgepack.profiles.faults import did_you_mean, shown
from edgepack.project.lines import KeyPath
from edgepack.project.option_table import BY_NAME, MODEL_KEYS, OPTIONS, TARGET_KEYS
from edgepack.project.values import FILLED, NAME, TARGET, TARGETS, TEXT, Schema, expected, fits, schema_of

#: Faults after which a document is no longer read: the nearest key of each takes time to find.
MOST_FAULTS = 1000


@dataclass(frozen=True)
class Key:
    """A key of the file that is no option.

    Attributes:
        name: The key.
        schema: JSON Schema of its value.
        expected: What the value must be, in words.
        help: Description.
        required: True when the table must have it.
    """

    name: str
    schema: Schema
    expected: str
    help: str
    required: bool = False


PROJECT_KEYS = (
    Key("name", TEXT, "a string", "Name of the project, for the catalog; the folder's name by default."),
    Key("out", FILLED, "a path", "Folder of bundles, logs and the catalog; `out` by default."),
    Key("cache", TEXT, 'a URL such as "s3://bucket/folder"', "URL of a shared cache; none by default."),
)
_TARGETS = Key(
    "targets",
    TARGETS,
    'a list of targets such as ["edgetpu", "hexagon@SM8550"], each once',
    "Targets to build for: an id, an id with a chip, or `all`.",
)
DEFAULT_KEYS = (_TARGETS,)
MODEL_FIELDS = (
    Key("path", FILLED, "a path", "The model: a .keras, .h5 or .tflite file, or a SavedModel folder.", required=True),
    Key(
        "name",
        NAME,
        "a name of at most 100 letters, digits, '_', '.', '+' and '-' that starts with a letter, a digit or '_'",
        "Name of the model in the project and of its bundles; the file's name by default.",
    ),
    _TARGETS,
)


@dataclass(frozen=True)
class Fault:
    """A fault of a project file.

    Attributes:
        path: Where it is.
        message: What is wrong.
    """

    path: KeyPath
    message: str


def check_document(document: Mapping[str, Any]) -> list[Fault]:
    """Return the first faults of a document's structure, in its order; none for a document that the schema accepts."""
    return list(islice(_document(document), MOST_FAULTS))


def _document(document: Mapping[str, Any]) -> Iterator[Fault]:
    tables = ("project", "defaults", "model")
    for key in document:
        if key not in tables:
            yield Fault((key,), f"unknown table or key '{key}'{_hint(key, tables)}")
    project = document.get("project", {})
    if isinstance(project, dict):
        yield from _table(project, ("project",), PROJECT_KEYS, ())
    else:
        yield Fault(("project",), f"[project]: expected a table, got {shown(project)}")
    defaults = document.get("defaults", {})
    if isinstance(defaults, dict):
        yield from _table(defaults, ("defaults",), DEFAULT_KEYS, MODEL_KEYS, targets=True)
    else:
        yield Fault(("defaults",), f"[defaults]: expected a table, got {shown(defaults)}")
    models = document.get("model")
    if not isinstance(models, list) or not models:
        what = "there is none" if models in (None, []) else f"got {shown(models)}"
        yield Fault(("model",) if "model" in document else (), f"expected at least one [[model]], {what}")
        return
    for number, model in enumerate(models):
        if isinstance(model, dict):
            yield from _table(model, ("model", number), MODEL_FIELDS, MODEL_KEYS, targets=True)
        else:
            yield Fault(("model", number), f"[[model]]: expected a table, got {shown(model)}")


def _table(
    table: Mapping[str, Any], path: KeyPath, keys: Sequence[Key], options: Sequence[str], *, targets: bool = False
) -> Iterator[Fault]:
    """Yield the faults of one table with keys of its own and options."""
    own = {key.name: key for key in keys}
    known = (*own, *options, *(("target",) if targets else ()))
    for key in keys:
        if key.required and key.name not in table:
            yield Fault(path, f"{title(path, table)}: '{key.name}' is missing: expected {key.expected}")
    for name, value in table.items():
        place = (*path, name)
        where = f"{title(path, table)}: {name}"
        if name in own:
            if not fits(value, own[name].schema):
                yield Fault(place, f"{where}: expected {own[name].expected}, got {shown(value)}")
        elif targets and name == "target":
            yield from _target_tables(value, place, title(path, table))
        elif name in options:
            option = BY_NAME[name]
            if not fits(value, schema_of(option)):
                yield Fault(place, f"{where}: expected {expected(option)}, got {shown(value)}")
        else:
            yield Fault(place, f"{title(path, table)}: unknown key '{name}'{_hint(name, known)}")


def _target_tables(value: Any, path: KeyPath, where: str) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault(path, f"{where}: target: expected a table such as [model.target.edgetpu], got {shown(value)}")
        return
    for target, table in value.items():
        place = (*path, target)
        if not fits(target, TARGET):
            yield Fault(place, f"{where}: target: expected a target such as edgetpu or hexagon@SM8550, got '{target}'")
        if isinstance(table, dict):
            yield from _table(table, place, (), TARGET_KEYS)
        else:
            yield Fault(place, f"{where}: target.{target}: expected a table, got {shown(table)}")


def title(path: KeyPath, table: Mapping[str, Any]) -> str:
    """Return the name of a table for messages: `[defaults]`, `[[model]] 'kws'`, `[model.target.edgetpu]`."""
    if path[0] == "model" and len(path) == 2:
        name = table.get("name", table.get("path"))
        return f"[[model]] '{name}'" if isinstance(name, str) and name else f"[[model]] number {int(path[1]) + 1}"
    return f"[{'.'.join(str(key) for key in path if isinstance(key, str))}]"


def _hint(key: str, known: Iterable[str]) -> str:
    """Return the key that was probably meant, or where the file has it."""
    named = next((option for option in OPTIONS if key in {option.name, option.parameter}), None)
    if named is not None and named.instead:
        return f": {named.instead}"
    if named is not None and key in MODEL_KEYS:
        return ": it applies to the whole model; move it to [[model]]"
    return did_you_mean(key.replace("_", "-"), known)
