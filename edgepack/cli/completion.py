"""Shell completion: the two options of `edgepack`, and what values complete to.

Typer's own options import the code of every shell with every command; these import it when they are used.
"""

import os
from collections.abc import Callable
from pathlib import Path

import typer

from edgepack.choices import Choice

#: Variable in which a shell asks for completions.
VARIABLE = "_EDGEPACK_COMPLETE"


def prepare() -> None:
    """Let Typer answer a shell that asks for completions; nothing without one."""
    if VARIABLE in os.environ:
        from typer.completion import get_completion_inspect_parameters

        # It registers the shells; the parameters that it returns are not needed.
        get_completion_inspect_parameters()


def install(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> None:
    """Install the completion of the shell that runs this command."""
    from typer.completion import install_callback

    _answer(install_callback, context, parameter, value)


def show(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> None:
    """Print the completion of the shell that runs this command."""
    from typer.completion import show_callback

    _answer(show_callback, context, parameter, value)


def _answer(
    callback: Callable[..., object], context: typer.Context, parameter: typer.CallbackParam, value: bool
) -> None:
    if not value:
        return
    try:
        callback(context, parameter, value)
    except SystemExit as end:
        raise typer.Exit(end.code if isinstance(end.code, int) else 0) from None


def target_ids(incomplete: str) -> list[str]:
    """Return the installed targets that start with a text, and `all`."""
    from edgepack.profiles.registry import known_ids

    return [name for name in (*known_ids(), "all") if name.startswith(incomplete)]


def values_of(choices: type[Choice]) -> Callable[[str], list[str]]:
    """Return the completion of an option with fixed values."""

    def complete(incomplete: str) -> list[str]:
        return [str(choice) for choice in choices if str(choice).startswith(incomplete)]

    return complete


def model_names(incomplete: str) -> list[str]:
    """Return the models of the project that start with a text; without any, the shell completes file names."""
    import tomllib

    from edgepack.project.discovery import find_project

    file = find_project().file
    if file is None:
        return []
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8")).get("model")
    except (OSError, ValueError):
        # A file with faults is the business of the commands that read it.
        return []
    models = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    names = (str(entry.get("name") or Path(str(entry.get("path", ""))).stem) for entry in models)
    return [name for name in names if name and name.startswith(incomplete)]
