"""The lines on which the keys of a TOML file are: `tomllib` returns values without their places."""

import re
import tomllib
from collections.abc import Generator, Sequence

#: A key path: keys of tables, and the numbers of the entries of arrays of tables.
KeyPath = tuple[str | int, ...]

_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*')"
_KEYS = re.compile(rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*")
_HEADER = re.compile(rf"(\[\[?)[ \t]*({_KEYS.pattern})[ \t]*\]\]?")
_ENTRY = re.compile(rf"({_KEYS.pattern})[ \t]*=[ \t]*")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
#: One token of a value: a text of any of four kinds, a bracket, or what is between them.
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\[\s\S])*?"{3,5}|\'\'\'[\s\S]*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
    r"|[\[\]{}\n,]|#[^\n]*|[^\"'\[\]{}\n,#]+"
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line of each key and table, counted from 1.

    Args:
        text: A document that `tomllib` accepts.
    """
    lines: dict[KeyPath, int] = {}
    arrays: dict[KeyPath, int] = {}
    table: KeyPath = ()
    line, counted = 1, 0
    for kind, keys, position in _statements(text):
        line, counted = line + text.count("\n", counted, position), position
        if kind == "":
            path = (*table, *keys)
        else:
            path = _absolute(keys, arrays)
            if kind == "[[":
                arrays[path] = arrays.get(path, -1) + 1
                lines.setdefault(path, line)
                path = (*path, arrays[path])
            table = path
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], line)
    return lines


def line_of(lines: dict[KeyPath, int], path: Sequence[str | int]) -> int:
    """Return the line of a key path, or of the nearest table around it; 1 for the whole document."""
    for end in range(len(path), 0, -1):
        if tuple(path[:end]) in lines:
            return lines[tuple(path[:end])]
    return 1


def _statements(text: str) -> Generator[tuple[str, KeyPath, int], None, None]:
    """Yield (`[`, `[[` or nothing for a key, its keys, its position) for each header and key, also in inline tables."""
    position = _end(_SPACE, text, 0)
    while position < len(text):
        if header := _HEADER.match(text, position):
            yield header[1], _split(header[2]), position
            position = header.end()
        elif entry := _ENTRY.match(text, position):
            keys = _split(entry[1])
            yield "", keys, position
            position = yield from _value(text, entry.end(), keys)
        else:
            return
        position = _end(_SPACE, text, position)


def _value(text: str, position: int, keys: KeyPath) -> Generator[tuple[str, KeyPath, int], None, int]:
    """Yield the keys of inline tables in a value, and return the value's end."""
    # One entry per open bracket: the path of what is inside, and the number of the item in a list.
    stack: list[tuple[str, KeyPath, int]] = []
    current = keys
    while position < len(text):
        if stack and stack[-1][0] == "{" and (entry := _ENTRY.match(text, _end(_SPACE, text, position))):
            inner = _split(entry[1])
            current = (*stack[-1][1], *inner)
            yield "", current, entry.start()
            position = entry.end()
        token = _TOKEN.match(text, position)
        if token is None:
            return len(text)
        mark = token[0]
        if mark == "\n" and not stack:
            return position
        position = token.end()
        if mark in "[{":
            base = (*current, 0) if mark == "[" else current
            stack.append((mark, current, 0))
            current = base
        elif mark in "]}" and stack:
            current = stack.pop()[1]
        elif mark == "," and stack and stack[-1][0] == "[":
            opened, path, number = stack.pop()
            stack.append((opened, path, number + 1))
            current = (*path, number + 1)
    return position


def _split(keys: str) -> KeyPath:
    """Return the parts of a dotted key."""
    parts: list[str | int] = []
    for part in re.findall(_KEY, keys):
        parts.append(next(iter(tomllib.loads(f"{part} = 0"))) if part[0] in "\"'" else part)
    return tuple(parts)


def _absolute(keys: KeyPath, arrays: dict[KeyPath, int]) -> KeyPath:
    """Return a header's path with the number of the last entry of each array of tables that it goes through."""
    path: KeyPath = ()
    for position, key in enumerate(keys):
        path = (*path, key)
        if position < len(keys) - 1 and path in arrays:
            path = (*path, arrays[path])
    return path


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()
