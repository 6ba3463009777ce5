"""Progress of a call: passed to the caller's function, or shown where somebody watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from edgepack.api.types import ProgressLike
from edgepack.pipeline.options import Progress, silent


@contextmanager
def shown(progress: ProgressLike) -> Iterator[Progress]:
    """Yield the receiver of progress messages.

    Args:
        progress: A function, False for silence, True or None for the place where the program runs: a line in a
            notebook's cell or, with rich, in a terminal; with None, nothing anywhere else.
    """
    if callable(progress):
        yield progress
    elif progress is False:
        yield silent
    elif _in_notebook():
        with _cell() as show:
            yield show
    elif progress or (sys.stderr is not None and sys.stderr.isatty()):
        with _terminal() as show:
            yield show
    else:
        yield silent


def _in_notebook() -> bool:
    """Return whether this is the process of a notebook; asks only what is loaded already."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def _cell() -> Iterator[Progress]:
    """Show the current step below a notebook's cell, and remove it at the end."""
    display: Any = sys.modules["IPython"].display.display
    handle = display({"text/plain": ""}, raw=True, display_id=True)
    try:
        yield lambda message: handle.update({"text/plain": f"... {message}"}, raw=True)
    finally:
        handle.update({"text/plain": ""}, raw=True)


def _ignore(count: int) -> None:
    """Return nothing, whatever was written."""


@contextmanager
def _terminal() -> Iterator[Progress]:
    """Show the current step on the last line of stderr, and remove it at the end."""
    try:
        from rich.console import Console
        from rich.markup import escape
    except ImportError:
        yield lambda message: _ignore(sys.stderr.write(f"... {message}\n"))
        return
    with suppress(BrokenPipeError), Console(stderr=True).status("") as status:
        yield lambda message: status.update(escape(message))
