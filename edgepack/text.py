"""Helpers for messages."""


def first_line(error: BaseException | str, limit: int = 400, *, default: str = "no message") -> str:
    """Return the first line of an exception's message or of a text, truncated to `limit` characters.

    Args:
        error: An exception or a text; TensorFlow's messages have many lines.
        limit: Maximum number of characters.
        default: Returned for an empty text.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else default
