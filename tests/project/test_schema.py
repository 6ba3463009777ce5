"""The generated JSON Schema and the reader: an editor marks exactly what a build refuses."""

import copy
import re
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edgepack.documents import read_toml
from edgepack.errors import ProjectError
from edgepack.project.document import DEFAULT_KEYS, MODEL_FIELDS, PROJECT_KEYS, check_document
from edgepack.project.option_table import BY_NAME, MODEL_KEYS, TARGET_KEYS
from edgepack.project.reader import read_project
from edgepack.project.schema import project_schema, schema_text
from edgepack.project.values import schema_of

SCHEMA = Draft202012Validator(project_schema())
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "edgepack.schema.json"

#: What the reader refuses, and no schema can state.
UNSTATED = (
    "another model has the name", "no targets", "unknown target", "has no SoC", "has no chips", "targets are",
    "is listed twice", "options for all targets", "would be written to one folder", "expected at least 64 MiB",
    "has a table already", "the cache URL",
)  # fmt: skip

STRAY: st.SearchStrategy[Any] = st.one_of(
    st.booleans(),
    st.integers(-3, 1 << 32),
    st.floats(-2.0, 1e9) | st.sampled_from([0.0, 1.0, 64.0, float("inf")]),
    st.text("aZ09_-@. \n\x00\u00e9", max_size=4),
    st.sampled_from(["500KB", "0KB", "1.5MiB", "0.2", "2 GB", "1TB", "auto", "int8", "1MB\n", "a" * 3]),
    st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["cpu", "edgetpu", "", "hexagon@SM8550"])), max_size=3),
    st.dictionaries(st.sampled_from(["image", "cpu", "", "x y"]), st.lists(st.integers(0, 9), max_size=3), max_size=2),
)


def right(schema: Any) -> st.SearchStrategy[Any]:
    """Return values that a schema of this package accepts."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "boolean":
        return st.booleans()
    if kind == "number":
        return st.floats(schema["minimum"], 1e9) | st.integers(int(schema["minimum"]), 9)
    if kind == "integer":
        return st.integers(schema["minimum"], 1000)
    if kind == "array":
        items = st.sampled_from(["cpu", "edgetpu", "hexagon@SM8550"]) if "uniqueItems" in schema else st.just("a")
        if schema["items"]["type"] == "integer":
            items = st.integers(1, 9)
        return st.lists(items, min_size=schema.get("minItems", 0), max_size=3, unique="uniqueItems" in schema)
    if kind == "object":
        return st.dictionaries(st.sampled_from(["image", "x y"]), right(schema["additionalProperties"]), max_size=2)
    if isinstance(kind, list):
        return st.sampled_from(["100MB", "64 MiB", "1.25gb", 1 << 30, 1e9])
    return st.sampled_from(["a", "models/net.tflite", "data:generate", "x.y-z"])


def table(keys: dict[str, Any], more: dict[str, Any]) -> Any:
    """Return tables with some keys of a table of the file."""
    known = st.sampled_from(sorted(keys)).flatmap(lambda name: st.tuples(st.just(name), right(keys[name])))
    extra = st.fixed_dictionaries({}, optional=more)
    return st.tuples(st.lists(known, max_size=4), extra).map(lambda found: {**dict(found[0]), **found[1]})


def model(number: int) -> Any:
    """Return models, whose names differ by their number."""
    keys = {key.name: key.schema for key in MODEL_FIELDS if key.name != "name"} | OPTIONS
    base = {"path": f"models/net{number}.tflite", "targets": ["cpu", "edgetpu", "hexagon@SM8550"]}
    return table(keys, {"target": BY_TARGET}).map(lambda found: {**found, **base})


OPTIONS = {name: schema_of(BY_NAME[name]) for name in MODEL_KEYS}
BY_TARGET = st.dictionaries(
    st.sampled_from(["edgetpu", "hexagon@SM8550"]), table({name: OPTIONS[name] for name in TARGET_KEYS}, {}), max_size=2
)
RIGHT = st.fixed_dictionaries(
    {"model": st.one_of(st.tuples(model(0)), st.tuples(model(0), model(1))).map(list)},
    optional={
        "project": table({key.name: key.schema for key in PROJECT_KEYS}, {}),
        "defaults": table({key.name: key.schema for key in DEFAULT_KEYS} | OPTIONS, {"target": BY_TARGET}),
    },
)
#: Keys of the file that stand in the wrong table, keys of nothing, and flags that the file does not have.
WRONG_KEYS = ("sample", "max_drop", "dry-run", "json", "target", "path", "out", "name", "timeout", "models", "Edge TPU")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of every value of a document."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return a document that is right, with up to two changes: another value, a key that is gone, or a further one."""
    document: dict[str, Any] = copy.deepcopy(draw(RIGHT))
    for _ in range(draw(st.integers(0, 2))):
        container, key = draw(st.sampled_from(places(document) or [(document, "model")]))
        change = draw(st.sampled_from(["value", "remove", "add"]))
        if change == "value":
            container[key] = draw(STRAY)
        elif change == "add" and isinstance(container, dict):
            container[draw(st.sampled_from(WRONG_KEYS))] = draw(STRAY)
        else:
            container.pop(key, None) if isinstance(container, dict) else container.pop(key)
    return document


@settings(max_examples=250, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=documents())
def test_reader_and_schema_agree(drawn: Path, document: dict[str, Any]) -> None:
    """Any document is accepted by both or refused by both, except for what no schema can state."""
    file = drawn / "edgepack.toml"
    file.write_text(tomli_w.dumps(document), encoding="utf-8")
    parsed, _ = read_toml(file)
    accepted = SCHEMA.is_valid(parsed)
    assert accepted == (not check_document(parsed)), document
    try:
        read_project(file)
    except ProjectError as error:
        lines = [line for line in str(error).splitlines() if not re.fullmatch(r"and \d+ more|.* has \d+ faults", line)]
        assert all(re.match(r"edgepack\.toml:\d+: ", line) for line in lines), error
        unstated = all(any(phrase in line for phrase in UNSTATED) for line in lines)
        assert not accepted or unstated, error
    else:
        assert accepted


def test_drawn_documents_are_of_both_kinds() -> None:
    """The comparison is worth something: both accepted and refused documents are drawn."""
    drawn: list[bool] = []

    @settings(max_examples=100, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(document=documents())
    def draw(document: dict[str, Any]) -> None:
        drawn.append(SCHEMA.is_valid(document))

    draw()
    assert 20 < sum(drawn) < len(drawn) - 20


def test_the_documented_schema_is_the_generated_one() -> None:
    """docs/reference/edgepack.schema.json is what editors are given; it is a valid schema."""
    Draft202012Validator.check_schema(project_schema())
    assert PAGE.read_text(encoding="utf-8") == schema_text()
