"""What the values of arguments and options complete to in a shell."""

from collections.abc import Callable
from pathlib import Path

from edgepack.choices import Choice


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
