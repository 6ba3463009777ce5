"""Values of options that are written as text: sizes, and shapes of inputs."""

import re

from edgepack.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[kmg]i?)?b?)", re.IGNORECASE)
_UNITS = {
    f"{prefix}{form}{b}": (1024 if form else 1000) ** power
    for power, prefix in enumerate(("", "k", "m", "g"))
    for form in (("", "i") if prefix else ("",))
    for b in ("", "b")
}


def parse_size(option: str, text: str) -> int | None:
    """Return a size in bytes: `500KB`, `1MB`, `1.5MiB` or plain bytes; None for an empty text.

    KB, MB and GB are decimal, as file managers and app stores count; KiB, MiB and GiB are powers of 1024.

    Args:
        option: Option that the text was given for, `--max-size`.
        text: The text.

    Raises:
        UsageError: The text is not a size.
    """
    if not text:
        return None
    match = _SIZE.fullmatch(text.strip())
    count = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if count < 1:
        raise UsageError(
            f"{option}: expected a size such as 500KB, 1MB, 1MiB or 800000, got '{text}'",
            hint="KB and MB are powers of 1000, KiB and MiB of 1024",
        )
    return count


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Return the name and the shape of `NAME=1,224,224,3`.

    Raises:
        UsageError: The text has another form.
    """
    name, separator, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not separator or not name or not shape or min(shape) < 1:
        raise UsageError(f"--input-shape: expected NAME=1,224,224,3, got '{text}'")
    return name, shape
