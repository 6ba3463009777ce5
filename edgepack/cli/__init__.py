"""The command line: translates words into calls and results into text. Everything printed is printed here."""

from edgepack.cli.main import main

__all__ = ["main"]
