"""The JSON Schema of `edgepack.toml`, for editors: made from the tables that the reader checks a document by."""

import json
from collections.abc import Iterable
from typing import Any

from edgepack.project.document import DEFAULT_KEYS, MODEL_FIELDS, PROJECT_KEYS, Key
from edgepack.project.option_table import BY_NAME, MODEL_KEYS, TARGET_KEYS
from edgepack.project.values import TARGET, schema_of

#: Name of the file that `edgepack init --schema` writes, and of the one in the documentation.
FILE_NAME = "edgepack.schema.json"


def project_schema() -> dict[str, Any]:
    """Return the schema of a project file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgepack.toml",
        "description": "Models, and the targets to build each for.",
        "type": "object",
        "required": ["model"],
        "additionalProperties": False,
        "properties": {
            "project": _table("The project.", PROJECT_KEYS),
            "defaults": _table("Options of every model.", DEFAULT_KEYS, MODEL_KEYS, targets=True),
            "model": {
                "type": "array",
                "minItems": 1,
                "items": _table("A model.", MODEL_FIELDS, MODEL_KEYS, targets=True),
            },
        },
    }


def schema_text() -> str:
    """Return the schema as the text of its file."""
    return json.dumps(project_schema(), indent=2) + "\n"


def _table(help: str, keys: Iterable[Key], options: Iterable[str] = (), *, targets: bool = False) -> dict[str, Any]:
    keys = list(keys)
    properties: dict[str, Any] = {key.name: {"description": key.help, **key.schema} for key in keys}
    properties |= {name: {"description": BY_NAME[name].help, **schema_of(BY_NAME[name])} for name in options}
    if targets:
        properties["target"] = {
            "description": "Options for one target, by its id or by `ID@CHIP`.",
            "type": "object",
            "propertyNames": TARGET,
            "additionalProperties": _table("Options for one target.", (), TARGET_KEYS),
        }
    table: dict[str, Any] = {
        "description": help,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    required = [key.name for key in keys if key.required]
    return table | ({"required": required} if required else {})
