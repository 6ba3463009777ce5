"""Collects everything wrong with a profile, so that its author sees all faults at once."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for a word close to a known one, else an empty string."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean '{close[0]}'?" if close else ""


def shown(value: Any) -> str:
    """Return a TOML value as a message shows it: short, on one line."""
    text = repr(value).replace("True", "true").replace("False", "false") if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass
class Faults:
    """Faults of one file, in the order they are found.

    Attributes:
        file: How messages name the file.
        found: Messages so far: file, key path, what is wrong.
    """

    file: str
    found: list[str] = field(default_factory=list)

    def add(self, path: str, message: str) -> None:
        """Add a fault at a key path; an empty path means the whole file."""
        self.found.append(f"{self.file}: {path}: {message}" if path else f"{self.file}: {message}")

    def expected(self, path: str, what: str, value: Any) -> None:
        """Add "expected ..., got ..."."""
        self.add(path, f"expected {what}, got {shown(value)}")

    def choice(self, path: str, choices: Iterable[str], value: Any) -> None:
        """Add "expected one of ..., got ..."."""
        self.add(path, f"expected one of {', '.join(choices)}, got {shown(value)}")
