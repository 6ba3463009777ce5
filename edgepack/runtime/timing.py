"""Latency of a model on this machine, which says nothing about the device and is never reported as the device's."""

import statistics
from dataclasses import dataclass
from time import perf_counter

from edgepack.runtime.evaluate import synthetic_samples
from edgepack.runtime.runner import Runner, quantize

#: Runs before the first one that is timed: they fill caches.
_WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """Time of one run on this machine, milliseconds.

    Attributes:
        median_ms: Median of all runs.
        fastest_ms: Fastest run.
        runs: Number of timed runs.
        threads: Threads of the interpreter.
    """

    median_ms: float
    fastest_ms: float
    runs: int
    threads: int


def latency(tflite: bytes, *, threads: int = 1, seconds: float = 0.5, most: int = 500) -> Latency:
    """Time a model: warm up, then run it for about `seconds`, at least five times.

    Args:
        tflite: The model.
        threads: Threads of the interpreter.
        seconds: Duration of the measurement.
        most: Upper limit of the number of timed runs.

    Raises:
        UnfitModelError: The model does not load or run on this machine.
    """
    runner = Runner(tflite, threads=threads)
    (sample,) = synthetic_samples(runner.inputs, 1)
    arrays = [quantize(info, sample[info.name]) for info in runner.inputs]
    for _ in range(_WARM_UP):
        runner.run(arrays, keep_state=True)
    times: list[float] = []
    end = perf_counter() + seconds
    while len(times) < 5 or (perf_counter() < end and len(times) < most):
        start = perf_counter()
        runner.run(arrays, keep_state=True)
        times.append(perf_counter() - start)
    return Latency(1000 * statistics.median(times), 1000 * min(times), len(times), threads)
