"""Seconds of each stage of a build."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

STAGES = ("convert", "calibrate", "quantize", "check", "compile", "simulate", "measure", "bundle")


class Stopwatch:
    """Adds up seconds by stage; work that several targets share counts for the target that did it."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - start
