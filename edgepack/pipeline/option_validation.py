"""Options that concern some targets only: are they known, is there a target for them, and what do the others get."""

from collections.abc import Callable, Sequence

from edgepack.errors import UsageError
from edgepack.pipeline.compile import divides
from edgepack.pipeline.options import BuildOptions
from edgepack.profiles.model import TargetProfile


def platform_of(profile: TargetProfile, options: BuildOptions) -> str:
    """Return --platform where it can move the target's bundle, empty for a target that keeps its own."""
    return options.platform or "" if profile.bundle.delegate == "none" else ""


def delivery_of(profile: TargetProfile, options: BuildOptions) -> str:
    """Return --delivery for a target with an Android bundle, `module` for any other."""
    return options.delivery if _is_android(profile, options) else "module"


def _is_android(profile: TargetProfile, options: BuildOptions) -> bool:
    return (platform_of(profile, options) or profile.bundle.template) != "linux"


def require_wishes(profiles: Sequence[TargetProfile], options: BuildOptions) -> list[str]:
    """Return a note for each option that some of the targets have no use for.

    Raises:
        UsageError: A value that does not exist, or an option that none of the targets has a use for.
    """
    if options.segments == 1 or options.segments < 0:
        raise UsageError(f"--segments: expected 2 or more, got {options.segments}")
    several = "--segments" if options.segments else "--co-compile" if options.co_compile else ""
    if several and options.compile == "never":
        raise UsageError(f"{several} is for the compiler, which --compile never leaves out")
    notes = []
    if options.delivery != "module":
        what = f"--delivery {options.delivery}"
        notes += _concerns(what, "Android bundles", profiles, lambda profile: _is_android(profile, options))
    if options.platform:
        what = f"--platform {options.platform}"
        notes += _concerns(
            what,
            "targets without an accelerator of their own, such as cpu",
            profiles,
            lambda profile: profile.bundle.template == options.platform or bool(platform_of(profile, options)),
        )
    if several:
        notes += _concerns(several, "the Edge TPU", profiles, divides)
    return notes


def _concerns(
    option: str, whom: str, profiles: Sequence[TargetProfile], fits: Callable[[TargetProfile], bool]
) -> list[str]:
    others = [profile.id for profile in profiles if not fits(profile)]
    if len(others) == len(profiles):
        raise UsageError(f"{option} is for {whom}, and none of the targets has a use for it: {', '.join(others)}")
    return [f"{option} is for {whom}: {', '.join(others)} built without it"] if others else []
