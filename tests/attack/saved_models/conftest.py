"""One child process for all attacks by SavedModels, so that TensorFlow is imported once."""

from collections.abc import Iterator

import pytest

from edgepack.child import Worker


@pytest.fixture(scope="session")
def attack_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A child process that keeps TensorFlow loaded; it may write the models of the tests."""
    with Worker(writable=[tmp_path_factory.getbasetemp()]) as worker:
        yield worker
