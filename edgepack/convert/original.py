"""The user's model in the child: its inputs, its outputs, and how to call it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OpenInput:
    """An input as the model declares it.

    Attributes:
        name: The author's name.
        shape: None for dynamic dimensions; None altogether when the rank is unknown.
        dtype: TensorFlow's name of the type, such as `float32`.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


@dataclass(frozen=True)
class Original:
    """A loaded model.

    Attributes:
        inputs: In the model's own order.
        call: Maps flat tensors in that order to (name, tensor) pairs of the outputs, in the model's own order.
        documented: Returns a TFLiteConverter from the documented call for this kind of model.
        signature: Signature key of the .tflite.
        notes: Sentences for the user.
        keep: Objects that have to stay alive while `call` is used.
    """

    inputs: tuple[OpenInput, ...]
    call: Callable[[Sequence[Any]], list[tuple[str, Any]]]
    documented: Callable[[], Any]
    signature: str = "serving_default"
    notes: tuple[str, ...] = ()
    keep: tuple[Any, ...] = field(default=(), repr=False)


def named_leaves(structure: Any, name: str = "") -> list[tuple[str, Any]]:
    """Return (name, leaf) of nested dicts, lists and tuples, in their own order.

    A leaf's name is the path to it joined with `_`: `{"boxes": [a, b]}` gives `boxes_0`, `boxes_1`. A leaf
    outside any dict has a name of digits only, or none.
    """
    if isinstance(structure, dict):
        pairs = [(str(key), value) for key, value in structure.items()]
    elif isinstance(structure, list | tuple):
        pairs = [(str(position), value) for position, value in enumerate(structure)]
    else:
        return [(name, structure)]
    return [leaf for key, value in pairs for leaf in named_leaves(value, f"{name}_{key}" if name else key)]


def rebuilt(structure: Any, leaves: Sequence[Any]) -> Any:
    """Return `structure` with its leaves replaced, in the order of `named_leaves`."""
    rest = iter(leaves)

    def build(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: build(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [build(value) for value in part]
        return next(rest)

    return build(structure)


def is_positional(name: str) -> bool:
    """Return whether a name from `named_leaves` is only a position."""
    return re.fullmatch(r"[0-9_]*", name) is not None


def unique(names: Sequence[str]) -> list[str]:
    """Return the names, with `_1`, `_2`, ... appended to repeated ones."""
    taken = set(names)
    result: list[str] = []
    for name in names:
        free, number = name, 0
        while free in result or (number and free in taken):
            number += 1
            free = f"{name}_{number}"
        result.append(free)
    return result
