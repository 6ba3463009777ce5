"""Promise: the size of a download is that of gzip at level 9, compressed once, beside other work."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from edgepack.pipeline import compressed_size as module
from edgepack.pipeline.compressed_size import compressed_size
from edgepack.pipeline.options import ModelOptions
from edgepack.pipeline.session import Session
from edgepack.training.report import gzip_size

DATA = np.random.default_rng(0).integers(0, 40, 300_000, np.uint8).tobytes()


def test_compressed_once_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller goes on meanwhile; the next command reads the size from the cache."""
    threads: list[str] = []

    def recorded(data: bytes) -> int:
        threads.append(threading.current_thread().name)
        return gzip_size(data)

    monkeypatch.setattr(module, "gzip_size", recorded)
    sizes = []
    for _ in range(2):
        with Session(ModelOptions()) as session:
            sizes.append(compressed_size(session, DATA)())
    assert sizes == [gzip_size(DATA)] * 2
    assert len(threads) == 1 and threads[0] != threading.main_thread().name


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the thread runs out of memory, the caller compresses, or gets the error."""

    def fails_in_threads(data: bytes) -> int:
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        return gzip_size(data)

    monkeypatch.setattr(module, "gzip_size", fails_in_threads)
    with Session(ModelOptions(cache=False)) as session:
        wait: Callable[[], int] = compressed_size(session, DATA)
        assert wait() == gzip_size(DATA)
