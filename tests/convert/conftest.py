"""One child process for all conversion tests, so that TensorFlow is imported once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgepack.child import Worker
from edgepack.convert import ConvertOptions, FloatModel, convert


@pytest.fixture(scope="session")
def tensorflow_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A child process that keeps TensorFlow loaded; it may write the models of the tests."""
    with Worker(writable=[tmp_path_factory.getbasetemp()]) as worker:
        yield worker


@pytest.fixture
def make(tensorflow_worker: Worker, tmp_path: Path) -> Callable[..., Path]:
    """Build a model with a function of convert_models.py and return its path."""

    def build(function: str, name: str, *args: Any) -> Path:
        path = tmp_path / name
        tensorflow_worker.call(f"convert_models:{function}", str(path), *args)
        return path

    return build


@pytest.fixture
def converted(tensorflow_worker: Worker, tmp_path: Path) -> Callable[..., FloatModel]:
    """Convert in the shared child process; options as keywords."""

    def run(path: Path, **options: Any) -> FloatModel:
        return convert(
            path, worker=tensorflow_worker, options=ConvertOptions(**options), timeout=300, log_dir=tmp_path / "logs"
        )

    return run
