"""The child processes of one command: one for TensorFlow, one for the runtime and the quantizer."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from edgepack.child import JobCall, Worker
from edgepack.errors import EdgepackError
from edgepack.limits import TARGET_SECONDS

R = TypeVar("R")


class Workers:
    """Owner of the child processes, and of the time that they may take.

    Args:
        memory: Bytes that each child may hold; None for the default.
        seconds: Time limit of the conversion, and then of each target.

    Attributes:
        threads: Threads that the runtime may use in the native child.
        tensorflow: The child that loads TensorFlow.
    """

    def __init__(self, memory: int | None = None, seconds: float = TARGET_SECONDS) -> None:
        # More threads do not help one small model, and a machine's other jobs need theirs.
        self.threads = max(1, min(4, os.cpu_count() or 1))
        self.tensorflow = Worker(memory=memory)
        self._native = Worker(memory=memory)
        self._seconds = seconds
        self._warming: threading.Thread | None = None
        self.start_clock()

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

    def start_clock(self) -> None:
        """Give the calls from here on, together, the whole time limit: at the start of each target."""
        self._set_deadline(time.monotonic() + self._seconds)

    @property
    def remaining(self) -> float:
        """Seconds until the time limit of the target, at least 0.1."""
        deadline = self.tensorflow.deadline
        return self._seconds if deadline is None else max(0.1, deadline - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether the time limit of the target is over, so that nothing else can run for it."""
        return self.tensorflow.deadline is not None and time.monotonic() >= self.tensorflow.deadline

    @contextlib.contextmanager
    def paused_clock(self) -> Iterator[None]:
        """Do not count the time in this block: training has a limit of its own."""
        start = time.monotonic()
        try:
            yield
        finally:
            if self.tensorflow.deadline is not None:
                self._set_deadline(self.tensorflow.deadline + time.monotonic() - start)

    def _set_deadline(self, deadline: float) -> None:
        for worker in (self.tensorflow, self._native):
            worker.seconds, worker.deadline = self._seconds, deadline

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
