"""The schema of manifest.json and golden/index.json as a table, and the validation that reports every fault."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgepack.bundle.manifest import SIGNATURE_FILE
from edgepack.choices import AndroidRuntime, Task, Verdict

#: How a bundle can be signed: with a private key, or with an identity of Sigstore.
SIGNERS = ("key", "sigstore")
#: What `is_inside` accepts, as a regular expression of JSON Schema.
_PATH = r"^(?!\.{0,2}(/|$))(?!.*/\.{0,2}(/|$))[^\\:\u0000]+$"
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
        minimum: Smallest number; None for any.
        maximum: Largest number; None for any.
    """

    kind: str
    optional: bool = False
    absent: bool = False
    choices: tuple[str, ...] = ()
    items: "Field | None" = None
    fields: "Mapping[str, Field] | None" = None
    minimum: float | None = None
    maximum: float | None = None


TEXT, INTEGER, NUMBER, FLAG, SHA, PATH = (
    Field(kind) for kind in ("text", "integer", "number", "flag", "sha256", "path")
)
COUNT = Field("integer", minimum=0)
_POSITIVE = Field("number", minimum=0)
_SHAPE = Field("list", items=INTEGER)
_PERCENT = Field("number", optional=True, absent=True, minimum=0, maximum=100)
_DECIBEL = Field("number", optional=True, absent=True)
_OUTPUT_QUALITY = {
    "name": TEXT,
    "kind": Field("text", absent=True),
    "snr_db": _DECIBEL,
    "interval_db": Field("list", optional=True, absent=True, items=NUMBER),
    "columns": Field("list", absent=True, items=COUNT),
    "axis": Field("integer", optional=True, absent=True, minimum=0),
    "logits_snr_db": _DECIBEL,
    "max_error": Field("number", optional=True, absent=True, minimum=0),
    "constant": Field("flag", absent=True),
    "changed": _PERCENT,
}
_TASK_QUALITY = {
    "metric": Field("text", choices=("mAP@50", "mIoU")),
    **dict.fromkeys(("value", "value_float"), Field("number", minimum=0, maximum=100)),
    "interval": Field("list", optional=True, items=NUMBER),
    **dict.fromkeys(("strict", "strict_float"), Field("number", optional=True, minimum=0, maximum=100)),
}
_QUALITY = {
    "snr_db": _DECIBEL,
    "logits_snr_db": _DECIBEL,
    # A cosine, with what rounding adds.
    "cosine": Field("number", absent=True, minimum=-1.000001, maximum=1.000001),
    "max_error": Field("number", optional=True, absent=True, minimum=0),
    "agreement": _PERCENT,
    "top1": _PERCENT,
    "top1_float": _PERCENT,
    "task": Field("object", absent=True, fields=_TASK_QUALITY),
    "samples": Field("integer", absent=True, minimum=0),
    "collapsed": Field("list", absent=True, items=TEXT),
    "expected_drop": _PERCENT,
    "verdict": Field("text", absent=True, choices=tuple(Verdict)),
    "worst_output": Field("text", optional=True, absent=True),
    "drop_interval": Field("list", optional=True, absent=True, items=NUMBER),
    "outputs": Field("list", absent=True, items=Field("object", fields=_OUTPUT_QUALITY)),
}
_DIFFERENCE = {
    "steps": COUNT,
    "relative": Field("number", minimum=0),
    "differing": Field("number", minimum=0, maximum=100),
    "snr_db": Field("number", optional=True),
}
_FIGURES = {key: _QUALITY[key] for key in ("snr_db", "agreement", "top1", "top1_float", "max_error", "verdict")}
_SIMULATION = {
    "chip": TEXT,
    "architecture": TEXT,
    "file": TEXT,
    "simulator": TEXT,
    "version": TEXT,
    "caveat": TEXT,
    "samples": COUNT,
    "quality": Field("object", optional=True, fields=_FIGURES),
    "cpu": Field("object", optional=True, fields=_FIGURES),
    "difference": Field("object", fields=_DIFFERENCE),
    "same_class": Field("number", optional=True, minimum=0, maximum=100),
    "ops": Field(
        "list",
        items=Field(
            "object",
            fields={
                "op": TEXT,
                "index": COUNT,
                "output": TEXT,
                "difference": Field("object", fields=_DIFFERENCE),
            },
        ),
    ),
    "located": TEXT,
}
_TRIAL = {
    "rung": TEXT,
    "scheme": Field("text", absent=True),
    "tried": Field("flag", absent=True),
    "holds": Field("flag", absent=True),
    "bytes": Field("integer", optional=True, absent=True, minimum=0),
    "gzip_bytes": Field("integer", optional=True, absent=True, minimum=0),
    "top1_float": _PERCENT,
    "top1": _PERCENT,
    "snr_db": _DECIBEL,
    "why": Field("text", absent=True),
}
_PLACES = ("total", "accelerator", "host", "unsupported", "partitions")
_PLACEMENT = dict.fromkeys(_PLACES, Field("integer", absent=True, minimum=0))
_RUNTIME = Field("text", choices=tuple(AndroidRuntime))
_ANDROID = {"runtime": _RUNTIME, **dict.fromkeys(("reason", "artifact", "higher_version"), TEXT)}
_LATENCY = {
    "by": TEXT,
    "kind": Field("text", choices=("estimate", "lower-bound")),
    "text": TEXT,
    "figures": Field("list", items=Field("object", fields={"host": TEXT, "title": TEXT, "ms": _POSITIVE})),
    "unfitted_ops": Field("list", items=TEXT),
    "source": Field("text", absent=True),
    "fitted": Field("text", absent=True),
    "error": Field(
        "object",
        absent=True,
        fields={
            **dict.fromkeys(("median", "within_25", "most_within"), _POSITIVE),
            **dict.fromkeys(("figures", "networks"), COUNT),
        },
    ),
    "details": Field("object", absent=True),
}
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

_SHARE = Field("number", absent=True, minimum=0, maximum=1)
_TASK = {
    "kind": Field("text", choices=tuple(map(str, Task))),
    "outputs": Field("list", items=COUNT),
    "labels": Field("list", items=TEXT),
    **dict.fromkeys(("layout", "boxes", "units", "points", "activation"), Field("text", absent=True)),
    **dict.fromkeys(("transposed", "objectness", "background"), Field("flag", absent=True)),
    **dict.fromkeys(("score", "iou"), _SHARE),
    **dict.fromkeys(("limit", "rate"), Field("integer", absent=True, minimum=0)),
}

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

_TARGET = {
    "id": TEXT,
    "title": TEXT,
    "profile_sha256": SHA,
    "variant": Field("text", optional=True, absent=True),
    "soc": Field("text", optional=True, absent=True),
    "runtime_version": Field("integer", optional=True, absent=True),
}

MANIFEST = Field(
    "object",
    fields={
        "schema": INTEGER,
        "edgepack": TEXT,
        "name": TEXT,
        "source": Field("object", fields={"format": TEXT, "sha256": SHA, "bytes": COUNT}),
        "target": Field("object", fields=_TARGET),
        "scheme": Field("object", fields={"id": TEXT, "reason": TEXT}),
        "model": Field(
            "object",
            fields={
                "runs": PATH,
                "host": PATH,
                # Present where a run leaves a state to the next one.
                "stateful": Field("flag", absent=True),
                "files": Field(
                    "list",
                    items=Field(
                        "object",
                        fields={
                            "path": PATH,
                            "role": Field("text", choices=("main", "host", "compiled", "segment", "co-compiled")),
                            "bytes": COUNT,
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
        "quality": Field("object", optional=True, fields=_QUALITY),
        # Present where it is known what the outputs mean.
        "task": Field("object", absent=True, fields=_TASK),
        # Present where the build ran the compiled files on a simulator.
        "simulation": Field("list", absent=True, items=Field("object", fields=_SIMULATION)),
        "ladder": Field("list", absent=True, items=Field("object", fields=_TRIAL)),
        "placement": Field("object", optional=True, fields=_PLACEMENT),
        "latency": Field("object", absent=True, fields=_LATENCY),
        "android": Field("object", absent=True, fields=_ANDROID),
        "calibration": Field("object", optional=True, fields={"samples": COUNT, "random": FLAG, "method": TEXT}),
        "golden": Field("object", fields={"index": PATH, "cases": INTEGER}),
        "warnings": Field("list", items=TEXT),
        "notes": Field("list", items=TEXT),
        # Absent in bundles of versions that did not write them.
        "sbom": Field("path", absent=True),
        "signature": Field(
            "object",
            optional=True,
            absent=True,
            fields={"path": Field("text", choices=(SIGNATURE_FILE,)), "method": Field("text", choices=SIGNERS)},
        ),
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
        # Outputs on a simulated accelerator for the same inputs.
        "simulated": Field(
            "list",
            absent=True,
            items=Field(
                "object",
                fields={
                    "chip": TEXT,
                    "simulator": TEXT,
                    "version": TEXT,
                    "cases": Field("list", items=Field("object", fields={"outputs": _ARRAYS})),
                },
            ),
        ),
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
    if field.kind in {"integer", "number"}:
        yield from _number_faults(value, field, place)
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


def _number_faults(value: float, field: Field, place: str) -> Iterator[str]:
    # JSON has no infinity, but Python reads 1e999 as one; larger integers than these fit no field.
    if (isinstance(value, int) and not -(2**63) <= value < 2**63) or not math.isfinite(value):
        yield f"{place}: expected a number of 64 bits"
        return
    if field.minimum is not None and value < field.minimum:
        yield f"{place}: expected at least {field.minimum:g}, got {value:g}"
    if field.maximum is not None and value > field.maximum:
        yield f"{place}: expected at most {field.maximum:g}, got {value:g}"


def json_schema(field: Field) -> dict[str, Any]:
    """Return a schema as a document of JSON Schema (2020-12)."""
    types = {"flag": "boolean", "text": "string", "sha256": "string", "path": "string", "list": "array"}
    kind = types.get(field.kind, field.kind)
    schema: dict[str, Any] = {"type": [kind, "null"] if field.optional else kind}
    if field.choices:
        schema["enum"] = [*field.choices, *([None] if field.optional else [])]
    if field.kind == "sha256":
        schema["pattern"] = f"^{_SHA256.pattern}$"
    if field.kind == "path":
        schema["pattern"] = _PATH
    if field.minimum is not None:
        schema["minimum"] = field.minimum
    if field.maximum is not None:
        schema["maximum"] = field.maximum
    if field.fields is not None:
        schema["properties"] = {key: json_schema(inner) for key, inner in field.fields.items()}
        schema["required"] = [key for key, inner in field.fields.items() if not inner.absent]
        schema["additionalProperties"] = False
    elif field.items is not None:
        schema["items" if field.kind == "list" else "additionalProperties"] = json_schema(field.items)
    return schema


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "flag"
    return {str: "text", int: "integer", float: "number", list: "list", dict: "object"}.get(
        type(value), "something else"
    )
