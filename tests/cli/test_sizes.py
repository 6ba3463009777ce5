"""Sizes on the command line: decimal and binary units."""

import pytest

from edgepack.errors import UsageError
from edgepack.project.values import size
from edgepack.text import readable_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", None), ("800000", 800_000), ("500KB", 500_000), ("500 kb", 500_000), ("1MB", 1_000_000), ("1M", 1_000_000),
        ("1MiB", 1 << 20), ("1.5KiB", 1536), ("2GB", 2_000_000_000), ("64b", 64),
    ],
)  # fmt: skip
def test_units(text: str, count: int | None) -> None:
    """KB and MB are decimal, KiB and MiB are powers of 1024; a number without a unit is bytes."""
    assert size("--max-size", text) == count


@pytest.mark.parametrize("text", ["big", "-1", "0", "1TB", "MB", "1,5MB", "0.2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The message names the option and the forms that it accepts."""
    with pytest.raises(UsageError, match="--max-size: expected a size such as 500KB"):
        size("--max-size", text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (88_760, "88.8 kB"), (3_600_000, "3.6 MB"), (2.5e12, "2.5 TB")],
)
def test_readable_sizes(count: float, text: str) -> None:
    """Sizes are printed in decimal units with one digit."""
    assert readable_size(count) == text
