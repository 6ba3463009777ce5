"""The import path: no code from the current folder runs because it has the name of a package.

Python looks for modules in the current folder first when it is started with `-m` or `-c`, or when PYTHONPATH has an
empty entry. A folder from a stranger, such as a bundle, may contain `numpy.py`. This module imports nothing that such a
folder could replace.
"""

import os
import sys

_PACKAGE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is not loaded yet


def trusted() -> list[str]:
    """Return this process's import path without the current folder and other relative entries.

    The current folder stays when the user wrote its full path into PYTHONPATH, or when edgepack itself is imported from
    it (a checkout).
    """
    try:
        current = os.path.realpath(os.getcwd())  # noqa: PTH109
    except OSError:
        current = ""
    explicit = {entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)}  # noqa: PTH117
    home = os.path.dirname(os.path.realpath(_PACKAGE))  # noqa: PTH120
    entries = []
    for entry in sys.path:
        real = os.path.realpath(entry)
        if real == home or (os.path.isabs(entry) and (real != current or entry in explicit)):  # noqa: PTH117
            entries.append(real if real == home else entry)
    return list(dict.fromkeys(entries))


def as_variable() -> str:
    """Return the trusted import path as PYTHONPATH, so that a child imports the same modules."""
    return os.pathsep.join(trusted())


def clean() -> None:
    """Remove the current folder and relative entries from this process's import path."""
    sys.path[:] = trusted()
