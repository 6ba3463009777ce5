"""Helpers for messages."""

import unicodedata
from collections.abc import Sequence


def first_line(error: BaseException | str, limit: int = 400, *, default: str = "no message") -> str:
    """Return the first line of an exception's message or of a text, truncated to `limit` characters.

    Args:
        error: An exception or a text; TensorFlow's messages have many lines.
        limit: Maximum number of characters.
        default: Returned for an empty text.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else default


def readable_size(count: float) -> str:
    """Return a size in bytes as text, `88.8 kB`: decimal units, as file managers and app stores use them."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def whole_number(text: str) -> int | None:
    """Return the number of a text of decimal digits, None for other text and for more digits than any version has."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


def first_few(items: Sequence[str], limit: int = 5) -> str:
    """Return the first items joined with `; `, and how many more there are: `a; b; and 3 more`."""
    shown = "; ".join(items[:limit])
    return f"{shown}; and {len(items) - limit} more" if len(items) > limit else shown


def printable(text: str, limit: int) -> str:
    """Return a name of unknown origin for a page: one line, at most `limit` characters, nothing that hides or reorders.

    Control and format characters (such as those that turn the direction of text) and lone surrogates, which file names
    may have and UTF-8 cannot encode, become U+FFFD; joiners, which some scripts need, stay.

    Args:
        text: The name.
        limit: Maximum number of characters; what is cut ends in an ellipsis.
    """
    joiners = "\u200c\u200d"
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(
        character if character in joiners or unicodedata.category(character)[0] != "C" else "\ufffd"
        for character in cut
    )
