"""Text for people and documents for machines: data on stdout, talk on stderr."""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import typer

from edgepack.errors import EdgepackError


def out(text: str = "") -> None:
    """Print data on stdout."""
    typer.echo(text)


def err(text: str) -> None:
    """Print talk on stderr."""
    typer.echo(text, err=True)


def width() -> int:
    """Return the columns to write for: the terminal's, else 80."""
    return max(60, min(120, shutil.get_terminal_size((80, 24)).columns))


def style(text: str, color: str) -> str:
    """Colour text when stdout is a terminal and NO_COLOR is not set; the words alone carry the meaning."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return typer.style(text, fg=color)


def error(problem: EdgepackError) -> None:
    """Print an error with its hint and the tail of a log, on stderr."""
    err(wrap(f"error: {problem.message}"))
    if problem.hint:
        err(wrap(f"hint: {problem.hint}"))
    tail = problem.details.get("log_tail", "")
    lines = tail.splitlines() if isinstance(tail, str) else list(tail)
    if lines:
        err("log:")
        for line in lines[-12:]:
            err(f"  {line[: width() - 2]}")


def warn(text: str) -> None:
    """Print a warning on stderr."""
    err(wrap(f"warning: {text}"))


def progress(message: str) -> None:
    """Say on stderr what is being done, when somebody watches."""
    if sys.stderr.isatty():
        err(f"... {message}")


def wrap(text: str, indent: str = "  ") -> str:
    """Return text folded to the terminal's width; following lines are indented."""
    return textwrap.fill(text, width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def document(command: str, results: Sequence[Any], problem: EdgepackError | None = None, **more: Any) -> None:
    """Print the one JSON document of a command on stdout."""
    out(
        json.dumps(
            {
                "schema": 1,
                "command": command,
                "ok": problem is None,
                "error": None if problem is None else problem.to_json(),
                "results": list(results),
                **more,
            },
            indent=2,
        )
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return a table with aligned columns.

    Args:
        header: Column titles.
        rows: Cells as text.
        right: Columns whose cells are aligned to the right (numbers).
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


def size(count: int) -> str:
    """Return bytes for people: `88.8 kB`, decimal units as file managers and stores use them."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def change(before: int, after: int) -> str:
    """Return two sizes in the unit of the larger: `78.0 -> 29.1 kB`."""
    text = size(max(before, after, 1000))
    unit = text.split()[1]
    scale = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    return f"{before / scale:.1f} -> {after / scale:.1f} {unit}"
