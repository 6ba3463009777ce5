"""One child process for all attacks by SavedModels, so that TensorFlow is imported once."""

from collections.abc import Iterator

import pytest

from edgepack.child import Worker


@pytest.fixture(scope="session")
def attack_worker() -> Iterator[Worker]:
    """A child process that keeps TensorFlow loaded."""
    with Worker() as worker:
        yield worker
