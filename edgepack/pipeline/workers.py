"""The child processes of one command: one for TensorFlow, one for the runtime and the quantizer."""

import contextlib
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from edgepack.child import JobCall, Worker
from edgepack.errors import EdgepackError

R = TypeVar("R")


class Workers:
    """Owner of the child processes.

    Attributes:
        threads: Threads that the runtime may use in the native child.
        tensorflow: The child that loads TensorFlow.
    """

    def __init__(self) -> None:
        # More threads do not help one small model, and a machine's other jobs need theirs.
        self.threads = max(1, min(4, os.cpu_count() or 1))
        self.tensorflow = Worker()
        self._native = Worker()
        self._warming: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # Loading packages takes seconds, and nobody needs them any more.
            self._native.kill()
        self._wait_until_warm()
        self.tensorflow.close()
        self._native.close()

    def run(self, call: JobCall[R], *, on_event: Callable[[Any], None] | None = None) -> R:
        """Run a job in the native child.

        Raises:
            EdgepackError: The job raised it, or the child failed: then it is of the job's error class.
        """
        self._wait_until_warm()
        return self._native.run(call, on_event=on_event)

    def warm(self, call: JobCall[None]) -> None:
        """Run a job in the native child in the background, such as loading packages while TensorFlow converts."""

        def load() -> None:
            with contextlib.suppress(EdgepackError):
                self._native.run(call)

        # Linux ends a child with the thread that started it: start it here.
        self._native.start()
        self._warming = threading.Thread(target=load, daemon=True)
        self._warming.start()

    def _wait_until_warm(self) -> None:
        warming, self._warming = self._warming, None
        if warming is not None:
            warming.join()
