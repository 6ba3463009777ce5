"""Collects the faults of a profile, so that its author sees all of them at once."""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: Largest integer of an int32, the type of versions, dimensions and positions in the TFLite schema.
LARGEST_INTEGER = (1 << 31) - 1


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for a word similar to a known one, else an empty string."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean '{close[0]}'?" if close else ""


def shown(value: Any) -> str:
    """Return a TOML value for a message: short, on one line."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_integer(value: Any) -> bool:
    """Return whether a TOML value is an integer; Python's bool is one, TOML's is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether a TOML value is an integer or a float."""
    return isinstance(value, float) or is_integer(value)


def integer_fault(value: Any, lowest: int, highest: int = LARGEST_INTEGER) -> str:
    """Return what is expected in place of a value that is no integer of a range, empty for one that is."""
    if not is_integer(value) or value < lowest:
        return f"an integer from {lowest}"
    return f"an integer up to {highest}" if value > highest else ""


def is_finite(value: Any) -> bool:
    """Return whether a TOML value is a number other than `inf`."""
    return is_number(value) and math.isfinite(value)


@dataclass
class Faults:
    """The faults of one file, in the order in which they are found.

    Attributes:
        file: Name of the file in messages.
        messages: One message per fault: file, key path, what is wrong.
    """

    file: str
    messages: list[str] = field(default_factory=list)

    def add(self, path: str, message: str) -> None:
        """Add a fault at a key path; an empty path stands for the whole file."""
        self.messages.append(f"{self.file}: {path}: {message}" if path else f"{self.file}: {message}")

    def expected(self, path: str, what: str, value: Any) -> None:
        """Add "expected ..., got ..."."""
        self.add(path, f"expected {what}, got {shown(value)}")

    def choice(self, path: str, choices: Iterable[str], value: Any) -> None:
        """Add "expected one of ..., got ..."."""
        self.add(path, f"expected one of {', '.join(choices)}, got {shown(value)}")
