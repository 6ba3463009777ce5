"""Small helpers for texts that people read."""

from collections.abc import Sequence


def first_line(error: BaseException | str, limit: int = 400, *, default: str = "no message") -> str:
    """Return the first line of an error's text or of a text, cut at `limit` characters.

    Args:
        error: An exception or a text; TensorFlow's run over many lines.
        limit: Most characters of the line.
        default: Returned for an empty text.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else default


def first_few(items: Sequence[str], limit: int = 5) -> str:
    """Return the first items joined with `; `, and how many more there are: `a; b; and 3 more`."""
    shown = "; ".join(items[:limit])
    return f"{shown}; and {len(items) - limit} more" if len(items) > limit else shown
