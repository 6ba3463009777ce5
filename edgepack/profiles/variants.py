"""Which form of a target is meant: by its id, or by the chip."""

from edgepack.errors import UsageError
from edgepack.profiles.faults import did_you_mean
from edgepack.profiles.model import TargetProfile, Variant


def choose_variant(profile: TargetProfile, *, variant: str = "", soc: str = "") -> Variant:
    """Return the variant asked for.

    Args:
        profile: The target.
        variant: Variant id; empty for the chip's, or else the default.
        soc: SoC model such as `SM8550`, in any case; ignored by targets without chips.

    Raises:
        UsageError: No such variant or chip, or the chip is not one of the variant's.
    """
    soc = soc_model(profile, soc)
    by_id = {candidate.id: candidate for candidate in profile.variants}
    if variant:
        if variant not in by_id:
            named = [name for name in by_id if name]
            hint = (
                f"variants are: {', '.join(named)}" if named else f"{profile.id} has one form only: leave --variant out"
            )
            raise UsageError(f"target {profile.id} has no variant '{variant}'{did_you_mean(variant, named)}", hint=hint)
        chosen = by_id[variant]
        if soc and chosen.socs and soc not in chosen.socs:
            raise UsageError(
                f"{soc} is not a chip of {profile.id}'s variant '{variant}'",
                hint=f"leave --variant out, or give one of: {', '.join(chosen.socs)}",
            )
        return chosen
    for candidate in profile.variants:
        if soc and soc in candidate.socs:
            return candidate
    return profile.variants[0]


def soc_model(profile: TargetProfile, soc: str) -> str:
    """Return a SoC as the profile writes it; empty when none was given or the target has no chips.

    Raises:
        UsageError: The target has chips, but not this one.
    """
    if not soc or not profile.socs:
        return ""
    by_upper = {known.upper(): known for known in profile.socs}
    if soc.upper() not in by_upper:
        raise UsageError(
            f"target {profile.id} does not know the chip '{soc}'{did_you_mean(soc.upper(), by_upper)}",
            hint=f"chips are: {', '.join(sorted(profile.socs))}",
        )
    return by_upper[soc.upper()]
