"""One child process for all training tests, so that TensorFlow is imported once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgepack.child import Worker


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A child process that keeps TensorFlow loaded; it may write the models of the tests."""
    with Worker(writable=[tmp_path_factory.getbasetemp()]) as worker:
        yield worker


@pytest.fixture
def make(trainer: Worker, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that builds a model of train_models.py and returns its path."""

    def build(function: str, suffix: str = ".keras") -> Path:
        path = tmp_path / f"{function}{suffix}"
        trainer.call(f"train_models:{function}", str(path))
        return path

    return build
