"""All installed targets, through one door: the entry-point group `edgepack.targets`.

An entry point's name is the target's id. Its object is a package whose folder has `profile.toml`, or a function that
takes the id and returns that folder. Built-in targets come the same way. A broken plugin is a warning, never a crash.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from edgepack.errors import ProfileError, UsageError
from edgepack.profiles.faults import did_you_mean
from edgepack.profiles.load import load_profile
from edgepack.profiles.model import TargetProfile
from edgepack.resources import data_root

GROUP = "edgepack.targets"

_BUILTIN = "edgepack.resources:builtin_target_dir"


@dataclass(frozen=True)
class Registry:
    """Entry points by target id.

    Attributes:
        doors: Entry points by name, sorted.
        warnings: What is wrong with the installation (two packages that claim one id).
    """

    doors: dict[str, metadata.EntryPoint]
    warnings: tuple[str, ...]


def collect(entry_points: Iterable[metadata.EntryPoint]) -> Registry:
    """Sort entry points by target id; of two that claim one id, the built-in or else the first by address is kept."""
    doors: dict[str, metadata.EntryPoint] = {}
    warnings = []
    for entry in sorted(set(entry_points), key=lambda e: (e.name, e.value != _BUILTIN, e.value)):
        kept = doors.setdefault(entry.name, entry)
        if kept.value != entry.value:
            warnings.append(
                f"two packages provide the target '{entry.name}': {kept.value} is used, "
                f"{entry.value}{_origin(entry)} is left out"
            )
    return Registry(doors, tuple(warnings))


def load_door(entry: metadata.EntryPoint) -> TargetProfile:
    """Load the target behind an entry point.

    Raises:
        ProfileError: The plugin cannot be imported, names no folder, or its profile has faults or another id.
    """
    folder = _folder(entry)
    profile = load_profile(folder)
    if profile.id != entry.name:
        raise ProfileError(
            f"{folder / 'profile.toml'}: id: expected '{entry.name}', the name of its entry point, got '{profile.id}'"
        )
    return profile


def all_targets() -> dict[str, TargetProfile]:
    """Return every target that loads, by id, sorted; what does not load is in `warnings()`."""
    found = {}
    for target_id in sorted(_installed().doors):
        loaded = _try(target_id)
        if isinstance(loaded, TargetProfile):
            found[target_id] = loaded
    return found


def warnings() -> tuple[str, ...]:
    """Return a sentence for every plugin that is broken or in the way of another."""
    broken = [loaded for loaded in map(_try, sorted(_installed().doors)) if isinstance(loaded, str)]
    return (*_installed().warnings, *broken)


def known_ids() -> tuple[str, ...]:
    """Return the ids of all installed targets, sorted, without loading them."""
    return tuple(sorted(_installed().doors))


def get_target(target_id: str) -> TargetProfile:
    """Return one target.

    Raises:
        UsageError: No installed target has that id.
        ProfileError: The target's plugin or profile is broken.
    """
    entry = _installed().doors.get(target_id)
    if entry is None:
        known = known_ids()
        raise UsageError(
            f"unknown target '{target_id}'{did_you_mean(target_id, known)}",
            hint=f"targets are: {', '.join(known)}; `all` means every one of them",
        )
    loaded = _try(target_id)
    if isinstance(loaded, str):
        raise ProfileError(loaded, hint="mend or uninstall the package that provides it")
    return loaded


def resolve_targets(targets: Sequence[str]) -> list[TargetProfile]:
    """Return the profiles of target ids in the order given, each once; `all` means every installed target.

    Raises:
        UsageError: An unknown target.
        ProfileError: A target that is installed but broken was asked for by name.
    """
    found: dict[str, TargetProfile] = {}
    for target in targets:
        if target == "all":
            for profile in all_targets().values():
                found.setdefault(profile.id, profile)
        else:
            found.setdefault(target, get_target(target))
    return list(found.values())


def refresh() -> None:
    """Forget what was found, so that the next call looks again; for tests and long-lived processes."""
    _installed.cache_clear()
    _try.cache_clear()


@cache
def _installed() -> Registry:
    entries = tuple(metadata.entry_points(group=GROUP))
    if not any(entry.value == _BUILTIN for entry in entries):
        # A checkout on PYTHONPATH has no metadata: its targets come through the same function all the same.
        folders = sorted((data_root() / "targets").glob("*/profile.toml"))
        entries += tuple(metadata.EntryPoint(folder.parent.name, _BUILTIN, GROUP) for folder in folders)
    return collect(entries)


@cache
def _try(target_id: str) -> TargetProfile | str:
    """Return the target, or a sentence that says why there is none."""
    entry = _installed().doors[target_id]
    try:
        return load_door(entry)
    except ProfileError as error:
        return f"target '{target_id}'{_origin(entry)} is left out:\n{error.message}"


def _origin(entry: metadata.EntryPoint) -> str:
    return f" of package {entry.dist.name}" if entry.dist else ""


def _folder(entry: metadata.EntryPoint) -> Path:
    try:
        found = entry.load()
        if isinstance(found, ModuleType):
            return _package_folder(found)
        if callable(found):
            return _called(found, entry)
    except ProfileError:
        raise
    except (Exception, SystemExit) as error:
        # Whatever a plugin raises is its own fault and must not take edgepack down.
        raise ProfileError(f"{entry.value}: {type(error).__name__}: {error}") from error
    raise ProfileError(
        f"{entry.value}: expected a package or a function that returns a folder, got {type(found).__name__}"
    )


def _package_folder(package: ModuleType) -> Path:
    places = list(getattr(package, "__path__", []))
    for place in places:
        if (Path(place) / "profile.toml").is_file():
            return Path(place)
    raise ProfileError(
        f"{package.__name__}: expected a package whose folder holds profile.toml, found none in {places}"
    )


def _called(function: Callable[[str], object], entry: metadata.EntryPoint) -> Path:
    folder = function(entry.name)
    if not isinstance(folder, str | Path):
        name = getattr(function, "__qualname__", inspect.getmodulename(entry.value) or entry.value)
        raise ProfileError(f"{entry.value}: expected {name} to return a folder, got {type(folder).__name__}")
    return Path(folder)
