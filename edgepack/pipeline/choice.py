"""Which targets a user's words mean."""

from collections.abc import Sequence

from edgepack.profiles.model import TargetProfile
from edgepack.profiles.registry import all_targets, get_target


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
