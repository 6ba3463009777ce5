"""The command line: turns arguments into library calls and results into text. No other package prints."""

from edgepack.cli.main import main

__all__ = ["main"]
