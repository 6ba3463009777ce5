"""The schema of manifest.json and golden/index.json as a table, and the validation that reports every fault."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Field:
    """Schema of a JSON value.

    Attributes:
        kind: `text`, `integer`, `number`, `flag`, `object`, `list`, `sha256` or `path`.
        optional: True when null is allowed too.
        absent: True when the key may be missing.
        choices: Allowed texts; empty for any.
        items: Schema of each item of a list or each value of an object; None for any value.
        fields: Schema of each key of an object; None for an object with any keys.
    """

    kind: str
    optional: bool = False
    absent: bool = False
    choices: tuple[str, ...] = ()
    items: "Field | None" = None
    fields: "Mapping[str, Field] | None" = None


TEXT, INTEGER, NUMBER, FLAG, SHA, PATH = (
    Field(kind) for kind in ("text", "integer", "number", "flag", "sha256", "path")
)
_SHAPE = Field("list", items=INTEGER)
_TENSOR = {
    "name": TEXT,
    "tensor": TEXT,
    "shape": _SHAPE,
    "dtype": TEXT,
    "scale": Field("number", optional=True),
    "zero_point": Field("integer", optional=True),
    "labels": Field("list", optional=True, items=TEXT),
    "preprocessing": Field("object", optional=True),
}
_STEP = Field(
    "object",
    fields={
        "op": Field("text", choices=("ARG_MAX", "SOFTMAX")),
        "axis": INTEGER,
        "beta": NUMBER,
        "shape": _SHAPE,
        "dtype": Field("text", choices=("FLOAT32", "INT32", "INT64")),
    },
)
_INPUT = Field("object", fields=_TENSOR)
_OUTPUT = Field("object", fields={**_TENSOR, "tail": Field("list", absent=True, items=_STEP)})

_RUN = {
    "accelerator": TEXT,
    "reasons": Field("list", items=TEXT),
    "differences": Field(
        "list",
        items=Field(
            "object",
            # JSON has no infinity: null stands for a result that cannot be compared.
            fields={"case": INTEGER, "output": TEXT, "largest": Field("number", optional=True), "allowed": NUMBER},
        ),
    ),
    "runs": INTEGER,
    "median_ms": NUMBER,
    "p90_ms": NUMBER,
}
_FACTS = {"manufacturer": TEXT, "model": TEXT, "android": TEXT, "sdk": INTEGER, "soc": TEXT, "abi": TEXT}

#: Report of the generated self-test on a device.
DEVICE_REPORT = Field("object", fields={"model_sha256": SHA, **_RUN})

MANIFEST = Field(
    "object",
    fields={
        "schema": INTEGER,
        "edgepack": TEXT,
        "name": TEXT,
        "source": Field("object", fields={"format": TEXT, "sha256": SHA, "bytes": INTEGER}),
        "target": Field("object", fields={"id": TEXT, "title": TEXT, "profile_sha256": TEXT}),
        "scheme": Field("object", fields={"id": TEXT, "reason": TEXT}),
        "model": Field(
            "object",
            fields={
                "runs": PATH,
                "host": PATH,
                "files": Field(
                    "list",
                    items=Field(
                        "object",
                        fields={
                            "path": PATH,
                            "role": Field("text", choices=("main", "host", "compiled", "segment", "co-compiled")),
                            "bytes": INTEGER,
                            "sha256": SHA,
                        },
                    ),
                ),
            },
        ),
        "inputs": Field("list", items=_INPUT),
        "outputs": Field("list", items=_OUTPUT),
        "compile": Field(
            "object",
            fields={
                "status": Field("text", choices=("compiled", "skipped", "failed", "none")),
                "tool": Field("text", optional=True),
                "version": Field("text", optional=True),
                "reason": Field("text", optional=True),
                # Of libedgetpu, for files that require one.
                "runtime_version": Field("integer", absent=True),
            },
        ),
        "quality": Field("object", optional=True),
        "ladder": Field("list", absent=True, items=Field("object")),
        "placement": Field("object", optional=True),
        "calibration": Field("object", optional=True, fields={"samples": INTEGER, "random": FLAG, "method": TEXT}),
        "golden": Field("object", fields={"index": PATH, "cases": INTEGER}),
        "warnings": Field("list", items=TEXT),
        "notes": Field("list", items=TEXT),
        "files": Field("object", items=SHA),
        # Written by `verify --device`.
        "device": Field("object", absent=True, fields={**_FACTS, **_RUN}),
    },
)

_ARRAY = Field("object", fields={"file": PATH, "dtype": TEXT, "shape": _SHAPE})
_ARRAYS = Field("list", items=_ARRAY)
_FINISHED = Field("list", absent=True, items=Field("object", optional=True, fields=_ARRAY.fields))
_CASE = Field("object", fields={"inputs": _ARRAYS, "outputs": _ARRAYS, "finished": _FINISHED})
_TOLERANCE = Field("object", fields={"steps": INTEGER, "relative": NUMBER})
GOLDEN_INDEX = Field(
    "object",
    fields={
        "schema": INTEGER,
        "model": PATH,
        "machine": TEXT,
        "runtime": TEXT,
        "quantized_outputs": Field("list", items=FLAG),
        "tolerance": Field("object", fields={"same": _TOLERANCE, "other": _TOLERANCE, "accelerator": _TOLERANCE}),
        "cases": Field("list", items=_CASE),
    },
)

_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "sha256": (str,),
    "path": (str,),
    "integer": (int,),
    "number": (int, float),
    "flag": (bool,),
    "object": (dict,),
    "list": (list,),
}


def is_inside(path: str) -> bool:
    """Return whether a relative path stays inside its folder: no root, no drive, no `..`, no backslash."""
    parts = path.split("/")
    return bool(path) and not any(part in {"", ".", ".."} for part in parts) and not set(path) & set("\\:\0")


def faults(value: Any, field: Field, where: str = "") -> Iterator[str]:
    """Yield a sentence for each place where a value does not match its schema.

    Args:
        value: A decoded JSON value.
        field: Its schema.
        where: Dotted path of the value, empty at the top.
    """
    place = where or "the document"
    if value is None and field.optional:
        return
    # bool is an int in Python, but not in JSON.
    fits = isinstance(value, _TYPES[field.kind]) and isinstance(value, bool) == (field.kind == "flag")
    if not fits:
        yield f"{place}: expected {field.kind}{' or null' if field.optional else ''}, got {_kind_of(value)}"
        return
    if field.kind == "sha256" and not _SHA256.fullmatch(value):
        yield f"{place}: expected 64 hexadecimal digits, got '{value[:80]}'"
    if field.kind == "path" and not is_inside(value):
        yield f"{place}: expected a path inside the bundle, got '{value[:80]}'"
    if field.choices and value not in field.choices:
        yield f"{place}: expected one of {', '.join(field.choices)}, got '{str(value)[:80]}'"
    dot = f"{where}." if where else ""
    if field.fields is not None:
        for key, inner in field.fields.items():
            if key in value:
                yield from faults(value[key], inner, f"{dot}{key}")
            elif not inner.absent:
                yield f"{dot}{key}: missing"
        for key in sorted(set(value) - set(field.fields)):
            yield f"{dot}{key[:80]}: unknown key"
    if field.items is not None:
        entries: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in entries:
            yield from faults(item, field.items, f"{dot}{str(key)[:80]}")


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "flag"
    return {str: "text", int: "integer", float: "number", list: "list", dict: "object"}.get(
        type(value), "something else"
    )
