"""The generated pages agree with targets/ and the rules."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgepack.compat import REASONS
from edgepack.profiles.vocabulary import CONSTRAINTS, QUANTITIES

REPOSITORY = Path(__file__).resolve().parents[2]


def test_pages_are_up_to_date() -> None:
    """`scripts/render_target_docs --check` finds no difference."""
    command = [sys.executable, "scripts/render_target_docs", "--check"]
    completed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert (completed.returncode, completed.stderr) == (0, "")


@pytest.mark.parametrize(
    ("page", "words"), [("reasons.md", REASONS), ("constraints.md", CONSTRAINTS), ("constraints.md", QUANTITIES)]
)
def test_every_word_has_its_place(page: str, words: dict[str, object]) -> None:
    """Every reason code, constraint and quantity is on its page."""
    text = (REPOSITORY / "docs" / "reference" / page).read_text()
    assert [word for word in words if f"`{word}`" not in text and f"## {word}\n" not in text] == []
