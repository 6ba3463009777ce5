"""Mutations of .tflite files through the schema's object API: files that parse, with any content."""

import copy
from collections.abc import Iterator
from typing import Any

import flatbuffers
import hypothesis.strategies as st
import numpy as np

from edgepack.graph.edit import pack, unpack
from edgepack.graph.read import schema

#: Sizes, indices, codes and offsets at and beyond the limits of their types.
INTEGERS = (0, 1, 2, 3, 4, 7, 127, 128, 255, 1 << 16, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
            (1 << 63) - 1, (1 << 64) - 1, -1, -2, -128, -(1 << 31), -(1 << 63))  # fmt: skip
NUMBERS = (0.0, -0.0, -1.0, 1.0, 1e-45, 1e-38, 3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (b"", b" ", b"x", b"\xff\xfe", b"\0", b"a\nb", b"../up", b"\xe2\x80\xae", b"\xed\xa0\x80", b"n" * 3000)

Place = tuple[str | int, ...]


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Yield the path of every field and list entry below an object of the schema; arrays are one value."""
    children: Any = ()
    if isinstance(value, list):
        children = enumerate(value)
    elif type(value).__module__ == schema().__name__:
        children = vars(value).items()
    for key, child in children:
        yield (*here, key)
        yield from places(child, (*here, key))


def _get(value: Any, key: str | int) -> Any:
    return value[key] if isinstance(key, int) else getattr(value, key)


def at(value: Any, place: Place) -> Any:
    """Return the value at a path."""
    for key in place:
        value = _get(value, key)
    return value


def put(value: Any, place: Place, new: Any) -> None:
    """Set the value at a path."""
    parent = at(value, place[:-1])
    if isinstance(place[-1], int):
        parent[place[-1]] = new
    else:
        setattr(parent, place[-1], new)


@st.composite
def mutated_models(draw: st.DrawFn, seeds: st.SearchStrategy[bytes], most: int = 3) -> bytes | None:
    """Draw the bytes of a file with one to `most` changed fields, None where the schema cannot hold a value."""
    model = unpack(draw(seeds))
    for _ in range(draw(st.integers(1, most))):
        known = list(places(model))
        if not known:
            break
        # A kind of field first, then one of its fields: long tables do not hide short ones.
        kinds = sorted({_kind(place) for place in known})
        kind = draw(st.sampled_from(kinds))
        place = draw(st.sampled_from([place for place in known if _kind(place) == kind]))
        put(model, place, draw(_changed(at(model, place))))
    return packed(model)


def packed(model: Any) -> bytes | None:
    """Return the bytes of a model, None where its types cannot hold a value."""
    try:
        if any(buffer.offset or buffer.size for buffer in model.buffers or []):
            builder = flatbuffers.Builder(1 << 16)
            builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
            return bytes(builder.Output())
        return pack(model)
    except Exception:  # the packer's own errors, of any class
        return None


def _kind(place: Place) -> str:
    return ".".join("*" if isinstance(key, int) else key for key in place)


def _changed(value: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of values for a field, by the value that it has."""
    if isinstance(value, bool | np.bool_):
        return st.booleans()
    if isinstance(value, int | np.integer):
        return st.one_of(st.sampled_from(INTEGERS), st.integers(0, 40))
    if isinstance(value, float | np.floating):
        return st.sampled_from(NUMBERS)
    if isinstance(value, bytes | str):
        return st.sampled_from(TEXTS)
    if isinstance(value, np.ndarray):
        return _arrays(value)
    if isinstance(value, list):
        return _lists(value)
    if value is None:
        return st.one_of(st.sampled_from(TEXTS), _arrays(np.zeros(0, np.int32)), st.just([]))
    return st.none()


def _lists(value: list[Any]) -> st.SearchStrategy[Any]:
    positions = range(len(value))
    changes: list[Any] = [None, []]
    changes += [value[:i] + value[i + 1 :] for i in positions[:20]]
    changes += [value + copy.deepcopy(value[i : i + 1]) for i in positions[:20]]
    changes += [value[::-1], value * 2]
    return st.sampled_from(changes)


@st.composite
def _arrays(draw: st.DrawFn, value: Any) -> Any:
    values = list(np.asarray(value).tolist())
    chosen = st.sampled_from(NUMBERS if value.dtype.kind == "f" else INTEGERS)
    for _ in range(draw(st.integers(1, 3))):
        change = draw(st.sampled_from(("replace", "replace", "remove", "add", "empty", "repeat")))
        position = draw(st.integers(0, max(0, len(values) - 1)))
        if change == "replace" and values:
            values[position] = draw(chosen)
        elif change == "remove" and values:
            del values[position]
        elif change == "add":
            values.insert(position, draw(chosen))
        elif change == "repeat":
            values = (values * draw(st.integers(2, 40)))[:4096]
        elif change == "empty":
            values = []
    if value.dtype.kind == "f":
        return np.array(values, value.dtype)
    limits = np.iinfo(value.dtype)
    return np.array([min(max(number, limits.min), limits.max) for number in values], value.dtype)
