"""Fixtures of the tests of projects."""

from pathlib import Path

import pytest

from edgepack.cache import Cache
from edgepack.project.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Store with an empty cache."""
    return Store(Cache(tmp_path / "store"))
