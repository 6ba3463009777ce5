"""Imports of large packages in child processes, without what costs time and serves nothing there."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lean_import(*unused: str) -> Iterator[None]:
    """Import large packages in the block faster.

    The garbage collector is off: TensorFlow's import creates a million objects that all stay, and the collector would
    look through them again and again. Afterwards everything that is alive is exempt from it, so a process does this
    before it creates what it has to free.

    Args:
        unused: Packages that count as not installed in the block: others import them only where they are there, for
            parts that this process never calls.
    """
    # None in `sys.modules` makes an import fail as that of a missing package does.
    hidden = [name for name in unused if name not in sys.modules]
    collecting = gc.isenabled()
    gc.disable()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        gc.freeze()
        if collecting:
            gc.enable()
