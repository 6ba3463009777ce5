"""Fixtures of the tests of projects."""

from pathlib import Path

import pytest

from edgepack.cache import Cache
from edgepack.project.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Store with an empty cache."""
    return Store(Cache(tmp_path / "store"))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for the files of drawn documents, above no other test's folder."""
    return tmp_path_factory.mktemp("drawn")
