"""Entry points of a plugin group: the built-in ones and those of installed packages, read by the same code."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class EntryPoints:
    """Entry points of one group.

    Attributes:
        entries: Entry points by name, sorted; nothing is loaded yet.
        warnings: One sentence for each entry point that is ignored because another one has its name.
    """

    entries: Mapping[str, metadata.EntryPoint]
    warnings: tuple[str, ...]


def collect_entry_points(group: str, builtin: Mapping[str, str], noun: str) -> EntryPoints:
    """Collect the entry points of a group without loading them.

    Of two entry points with one name the built-in one wins, else the first in the order of their values.

    Args:
        group: Entry-point group, `edgepack.importers`.
        builtin: Name and `module:attribute` of each built-in, as pyproject.toml declares them: a checkout on
            PYTHONPATH has no installed metadata.
        noun: What an entry point of the group provides, for messages: `importer`.
    """
    declared = [metadata.EntryPoint(name, value, group) for name, value in builtin.items()]
    return index_entry_points([*declared, *metadata.entry_points(group=group)], builtin, noun)


def index_entry_points(points: Iterable[metadata.EntryPoint], builtin: Mapping[str, str], noun: str) -> EntryPoints:
    """Index entry points by name; arguments and result as for `collect_entry_points`."""
    # Of two equal ones the later is kept: an installed entry point knows the name of its package.
    candidates = {(entry.name, entry.value): entry for entry in points}
    entries: dict[str, metadata.EntryPoint] = {}
    warnings = []
    for (name, value), entry in sorted(
        candidates.items(), key=lambda item: (item[0][0], builtin.get(item[0][0]) != item[0][1], item[0][1])
    ):
        chosen = entries.setdefault(name, entry)
        if chosen.value != value:
            warnings.append(
                f"two packages provide the {noun} '{name}': {chosen.value} is used, {value}{origin(entry)} is ignored"
            )
    return EntryPoints(entries, tuple(warnings))


def origin(entry: metadata.EntryPoint) -> str:
    """Return ` of package NAME` for an entry point of an installed package, else an empty text."""
    return f" of package {entry.dist.name}" if entry.dist else ""
