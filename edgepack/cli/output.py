"""Text for people and JSON for programs: results on stdout, messages on stderr."""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import typer

from edgepack.errors import EdgepackError
from edgepack.pipeline.reports import document as documents
from edgepack.text import readable_size

#: What moves a terminal's cursor, or does worse; `ESC [ 1 m` only colors.
_CONTROL = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")

#: See there.
json_text = documents.json_text


def out(text: str = "") -> None:
    """Print a result on stdout."""
    typer.echo(safe(text))


def err(text: str) -> None:
    """Print a message on stderr."""
    typer.echo(safe(text), err=True)


def safe(text: str) -> str:
    """Return text without control characters, except line ends, tabs and colors: names in it may be a stranger's."""
    return _CONTROL.sub("\ufffd", text)


def width() -> int:
    """Return the width of the output in columns: the terminal's between 60 and 120, else 80."""
    return max(60, min(120, shutil.get_terminal_size((80, 24)).columns))


def style(text: str, color: str) -> str:
    """Color text when stdout is a terminal and NO_COLOR is not set; the text must say the same without color."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return typer.style(text, fg=color)


def error(problem: EdgepackError) -> None:
    """Print an error, its hint and the last lines of its log on stderr."""
    for line in f"error: {problem.message}".splitlines():
        err(wrap(line))
    if problem.hint:
        err(wrap(f"hint: {problem.hint}"))
    tail = problem.details.get("log_tail", "")
    lines = tail.splitlines() if isinstance(tail, str) else list(tail)
    if lines:
        err("log:")
        for line in lines[-12:]:
            err(f"  {line}")


def warn(text: str) -> None:
    """Print a warning on stderr."""
    err(wrap(f"warning: {text}"))


def progress(message: str) -> None:
    """Print the current step on stderr when stderr is a terminal."""
    if sys.stderr.isatty():
        err(f"... {message}")


def wrap(text: str, indent: str = "  ") -> str:
    """Return text wrapped to the output's width; continuation lines start with `indent`."""
    return textwrap.fill(text, width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def document(command: str, results: Sequence[Any], problem: EdgepackError | None = None, **more: Any) -> None:
    """Print the JSON document of a command on stdout."""
    out(json_text(documents.document(command, results, problem, **more)))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return a table with aligned columns.

    Args:
        header: Column titles.
        rows: Cells as text.
        right: Indices of right-aligned columns (numbers).
    """
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.rjust(widths[column]) if column in right else cell.ljust(widths[column])
            for column, cell in enumerate(row)
        ]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * size for size in widths)
    return "\n".join([line(cells[0]), rule, *[line(row) for row in cells[1:]]])


def change(before: int, after: int) -> str:
    """Return two sizes in the unit of the larger one: `78.0 -> 29.1 kB`."""
    text = readable_size(max(before, after, 1000))
    unit = text.split()[1]
    scale = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    return f"{before / scale:.1f} -> {after / scale:.1f} {unit}"
