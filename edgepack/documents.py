"""Reads TOML and JSON documents that somebody else wrote: a document of plain values, or one `DocumentError`.

The parsers of the standard library accept more than the formats do: integers of any length, numbers that become
infinite, text that no encoding can write. Such values fail far from the document that has them, so they are refused
here, with their place.
"""

import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Upper limit of a document's size; real ones have some kilobytes.
LARGEST = 64 << 20
#: TOML requires 64-bit integers (toml.io, v1.0.0, Integer); JSON's readers in other languages have no longer ones.
_INTEGERS = range(-(1 << 63), 1 << 63)
#: Upper limit of nested tables and lists; real documents have less than ten levels.
_DEEPEST = 64
#: Upper limit of the parts of a dotted key before it is parsed; far above `_DEEPEST`, because text may look like one.
_MOST_PARTS = 500


class DocumentError(ValueError):
    """A document cannot be read; the message names the fault, and its place where it has one."""


def read_toml(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return a TOML file's contents and its bytes. A byte-order mark is ignored.

    Raises:
        DocumentError: The file cannot be read, is not TOML or has a value that is out of range.
    """
    data = _read(path)
    document: dict[str, Any] = _parse(data, _parse_toml, "TOML")
    # `inf` stands for "no limit" in op tables.
    _check(document, "", infinite=True)
    return document, data


def read_json(path: Path) -> Any:
    """Return a JSON file's contents.

    Raises:
        DocumentError: The file cannot be read, is not JSON or has a value that is out of range.
    """
    document = _parse(_read(path), lambda text: json.loads(text, parse_constant=_no_constant), "JSON")
    _check(document, "", infinite=False)
    return document


def _read(path: Path) -> bytes:
    try:
        # Opening a pipe would wait for a writer; O_NONBLOCK does not.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DocumentError("cannot be read: expected a regular file")
            if status.st_size > LARGEST:
                raise DocumentError(f"expected at most {LARGEST} bytes, got {status.st_size}")
            return stream.read()
    except (OSError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DocumentError(f"cannot be read: {reason}") from error


def _parse(data: bytes, parse: Callable[[str], Any], kind: str) -> Any:
    try:
        return parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DocumentError(f"not valid {kind}: expected UTF-8, got the byte {data[error.start]:#04x}") from error
    except RecursionError as error:
        raise DocumentError(f"not valid {kind}: expected at most {_DEEPEST} levels of tables and lists") from error
    except (ValueError, OverflowError) as error:
        raise DocumentError(f"not valid {kind}: {error}") from error


def _parse_toml(text: str) -> dict[str, Any]:
    # The time that tomllib needs for a dotted key grows with the square of its parts: 31 s for 20,000 of them.
    words = re.split(r"[^\w.-]+", re.sub(r"[ \t]+|(?P<quote>[\"'])[^\"'\\\n]*(?P=quote)", "", text))
    if any(word.count(".") > _MOST_PARTS for word in words):
        raise ValueError(f"expected at most {_MOST_PARTS} parts in a dotted key")
    return tomllib.loads(text)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _check(value: Any, place: str, *, infinite: bool, depth: int = 0) -> None:
    """Raise for a value that is out of range, or text that cannot be encoded."""
    where = f"{place}: " if place else ""
    if depth > _DEEPEST:
        raise DocumentError(f"expected at most {_DEEPEST} levels of tables and lists")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, f"{where}key")
            _check(item, f"{place}.{key[:80]}" if place else key[:80], infinite=infinite, depth=depth + 1)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _check(item, f"{place}[{position}]", infinite=infinite, depth=depth + 1)
    elif isinstance(value, str):
        _check_text(value, place)
    elif isinstance(value, float):
        if math.isnan(value) or (math.isinf(value) and not infinite):
            raise DocumentError(f"{where}expected a {'number' if infinite else 'finite number'}, got {value}")
    elif isinstance(value, int) and value not in _INTEGERS:
        raise DocumentError(f"{where}expected an integer of 64 bits, got one of {value.bit_length() + 1} bits")


def _check_text(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"{place or 'the document'}: expected text, got the surrogate U+{ord(text[error.start]):04X}"
        ) from error
