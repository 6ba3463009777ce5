"""What every stage of one command needs: its child processes, its cache, and where progress is reported."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from edgepack import interrupts
from edgepack.cache import open_cache
from edgepack.pipeline.options import ModelOptions, Progress, silent
from edgepack.pipeline.step_cache import StepCache
from edgepack.pipeline.workers import Workers


class Session:
    """The child processes and the cache of one command.

    Args:
        options: How the model is read.
        progress: Called with a sentence about each step that takes time.
        meanwhile: Work for the seconds in which a child imports TensorFlow and converts, None for none. Nothing waits
            for its end.
    """

    def __init__(
        self, options: ModelOptions, progress: Progress = silent, meanwhile: Callable[[], None] | None = None
    ) -> None:
        self.options = options
        self._meanwhile = meanwhile
        self.progress = progress
        self.steps = StepCache(open_cache(enabled=options.cache, url=options.cache_url))
        self.workers = Workers(options.memory_limit, options.timeout)

    def __enter__(self) -> Self:
        self.steps.write_in_background()
        return self

    def start_converting(self) -> None:
        """Start what can be done beside a conversion."""
        if self._meanwhile is not None:
            threading.Thread(target=self._meanwhile, daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.workers.__exit__(kind, error, trace)
        finally:
            with interrupts.hold():
                self.steps.finish_writing()
        # A signal ends this wait; who interrupted the command does not wait for the network either.
        if kind is None or issubclass(kind, Exception):
            self.steps.cache.finish()
