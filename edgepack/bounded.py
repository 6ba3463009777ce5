"""Calls that may never return, such as those of a network library, with a bound on the time that anybody waits."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """Return the result of a function, or raise what it raised, unless it takes too long.

    The function runs in a daemon thread: after the limit nobody waits for it, not even the end of the process.

    Args:
        seconds: The limit.
        function: Takes no arguments.

    Raises:
        TimeoutError: It did not return within the limit.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="edgepack-bounded", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if errors:
        raise errors[0]
    return results[0]
