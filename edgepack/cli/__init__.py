"""The command line: turns arguments into library calls and results into text. No other package prints."""

from edgepack import import_path

# Before any other import: `python -m edgepack`, or an empty entry in PYTHONPATH, puts the current folder first.
import_path.clean()

from edgepack.cli.main import main  # noqa: E402

__all__ = ["main"]
