"""Mutations of documents (TOML, JSON as Python values): wrong types, values out of range, missing and added parts."""

import copy
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings

Path_ = tuple[str | int, ...]

#: Settings of all property tests here: the same examples in every run, no files kept.
SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=list(HealthCheck),
)

#: Values of every type, at and beyond the limits of the formats.
HOSTILE: tuple[Any, ...] = (
    True, False, 0, 1, -1, 2, 1 << 31, -(1 << 63), (1 << 63) - 1, 0.0, -1.5, 1e308,
    "", " ", "x", "0", "a b", "../up", "/root", "\u00b2", "v\u00b2", "9" * 5000, "n" * 3000, "\u0000", "\u202e",
    [], [[]], [0], [-1], [""], ["x"], [0, 0], [1, 0], [{}], {}, {"x": 0}, {"": ""}, {"if": {}, "then": {}},
)  # fmt: skip


def places(value: Any, here: Path_ = ()) -> Iterator[Path_]:
    """Yield the path of every value below a document."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*here, key)
        yield from places(child, (*here, key))


def at(document: Any, place: Path_) -> Any:
    """Return the value at a path."""
    for key in place:
        document = document[key]
    return document


def replaced(document: Any, place: Path_, value: Any) -> Any:
    """Return a copy with another value at a path."""
    changed = copy.deepcopy(document)
    at(changed, place[:-1])[place[-1]] = value
    return changed


@st.composite
def mutated(draw: st.DrawFn, seed: Any, values: st.SearchStrategy[Any], most: int = 3) -> Any:
    """Draw a document with one to `most` changes: values replaced, removed, added or copied from elsewhere."""
    document = copy.deepcopy(seed)
    for _ in range(draw(st.integers(1, most))):
        known = list(places(document))
        if not known:
            return document
        place = draw(st.sampled_from(known))
        parent, key = at(document, place[:-1]), place[-1]
        kind = draw(st.sampled_from(("replace", "replace", "replace", "remove", "add", "copy")))
        if kind == "remove":
            del parent[key]
        elif kind == "add" and isinstance(parent, list):
            parent.insert(
                draw(st.integers(0, len(parent))), draw(st.one_of(values, st.just(copy.deepcopy(parent[key]))))
            )
        elif kind == "add":
            parent[draw(st.text(max_size=5))] = draw(values)
        elif kind == "copy":
            parent[key] = copy.deepcopy(at(document, draw(st.sampled_from(known))))
        else:
            parent[key] = draw(values)
    return document


def plain_values(*more: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of values that TOML and JSON share, and `more`."""
    return st.one_of(
        st.sampled_from((*HOSTILE, *more)),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
    )
