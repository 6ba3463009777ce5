"""The installed targets: entry points of the group `edgepack.targets`.

The name of an entry point is the target's id. Its object is a package whose folder contains `profile.toml`, or a
function from the id to that folder. Built-in targets are registered in the same way. A broken plugin is a warning,
never a crash.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from edgepack.entry_points import EntryPoints, collect_entry_points, origin
from edgepack.errors import ProfileError, UsageError
from edgepack.profiles.faults import did_you_mean
from edgepack.profiles.load import load_profile
from edgepack.profiles.model import TargetProfile
from edgepack.resources import data_root

GROUP = "edgepack.targets"

_BUILTIN = "edgepack.resources:builtin_target_dir"


def load_entry_point(entry: metadata.EntryPoint) -> TargetProfile:
    """Load the target of an entry point.

    Raises:
        ProfileError: The plugin cannot be imported or provides no folder, or its profile has faults or another id.
    """
    folder = _folder(entry)
    profile = load_profile(folder)
    if profile.id != entry.name:
        raise ProfileError(
            f"{folder / 'profile.toml'}: id: expected '{entry.name}', the name of its entry point, got '{profile.id}'"
        )
    return profile


def all_targets() -> dict[str, TargetProfile]:
    """Return all targets that load, by id, sorted; the others are in `warnings()`."""
    loaded = {target_id: _profile_or_fault(target_id) for target_id in known_ids()}
    return {target_id: profile for target_id, profile in loaded.items() if isinstance(profile, TargetProfile)}


def warnings() -> tuple[str, ...]:
    """Return a sentence for every plugin that is broken or provides the id of another."""
    faults = [loaded for loaded in map(_profile_or_fault, known_ids()) if isinstance(loaded, str)]
    return (*_installed().warnings, *faults)


def known_ids() -> tuple[str, ...]:
    """Return the ids of all installed targets, sorted, without loading them."""
    return tuple(sorted(_installed().entries))


def get_target(target_id: str) -> TargetProfile:
    """Return one target.

    Raises:
        UsageError: No installed target has this id.
        ProfileError: The target's plugin or profile is broken.
    """
    known = known_ids()
    if target_id not in known:
        raise UsageError(
            f"unknown target '{target_id}'{did_you_mean(target_id, known)}",
            hint=f"targets are: {', '.join(known)}; `all` means every one of them",
        )
    loaded = _profile_or_fault(target_id)
    if isinstance(loaded, str):
        raise ProfileError(loaded, hint="fix or uninstall the package that provides it")
    return loaded


def resolve_targets(targets: Sequence[str]) -> list[TargetProfile]:
    """Return the profiles of target ids in their order, without duplicates; `all` means every installed target.

    Raises:
        UsageError: A target is unknown.
        ProfileError: A target that is requested by its id is broken.
    """
    profiles: dict[str, TargetProfile] = {}
    for target in targets:
        if target == "all":
            for profile in all_targets().values():
                profiles.setdefault(profile.id, profile)
        else:
            profiles.setdefault(target, get_target(target))
    return list(profiles.values())


def refresh() -> None:
    """Clear the cached entry points and profiles; for tests and long-lived processes."""
    _installed.cache_clear()
    _profile_or_fault.cache_clear()


@cache
def _installed() -> EntryPoints:
    folders = (data_root() / "targets").glob("*/profile.toml")
    return collect_entry_points(GROUP, {folder.parent.name: _BUILTIN for folder in folders}, "target")


@cache
def _profile_or_fault(target_id: str) -> TargetProfile | str:
    """Return the target, or a message that says why it does not load."""
    entry = _installed().entries[target_id]
    try:
        return load_entry_point(entry)
    except ProfileError as error:
        return f"target '{target_id}'{origin(entry)} is not available:\n{error.message}"


def _folder(entry: metadata.EntryPoint) -> Path:
    try:
        loaded = entry.load()
        if isinstance(loaded, ModuleType):
            return _package_folder(loaded)
        if callable(loaded):
            return _function_folder(loaded, entry)
    except ProfileError:
        raise
    except (Exception, SystemExit) as error:
        # An exception in a plugin must not end edgepack.
        raise ProfileError(f"{entry.value}: {type(error).__name__}: {error}") from error
    raise ProfileError(
        f"{entry.value}: expected a package or a function that returns a folder, got {type(loaded).__name__}"
    )


def _package_folder(package: ModuleType) -> Path:
    places = list(getattr(package, "__path__", []))
    for place in places:
        if (Path(place) / "profile.toml").is_file():
            return Path(place)
    raise ProfileError(
        f"{package.__name__}: expected a package whose folder contains profile.toml, found none in {places}"
    )


def _function_folder(function: Callable[[str], object], entry: metadata.EntryPoint) -> Path:
    folder = function(entry.name)
    if not isinstance(folder, str | Path):
        name = getattr(function, "__qualname__", inspect.getmodulename(entry.value) or entry.value)
        raise ProfileError(f"{entry.value}: expected {name} to return a folder, got {type(folder).__name__}")
    return Path(folder)
