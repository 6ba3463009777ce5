"""Which form of a target is meant: by its id, or by the chip."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from edgepack.errors import UsageError
from edgepack.profiles.faults import did_you_mean
from edgepack.profiles.model import SchemeRule, TargetProfile, Variant


def choose_variant(profile: TargetProfile, *, variant: str = "", soc: str = "") -> Variant:
    """Return the variant asked for, with the schemes that the chip takes.

    Args:
        profile: The target.
        variant: Variant id; empty for the chip's, or else the default.
        soc: SoC model such as `SM8550`, in any case; ignored by targets without chips.

    Raises:
        UsageError: No such variant or chip, or the chip is not one of the variant's.
    """
    soc = soc_model(profile, soc)
    chosen = _variant(profile, variant, soc)
    facts = profile.socs.get(soc, {})
    return replace(chosen, schemes=schemes_for(facts, chosen.schemes))


def schemes_for(facts: Mapping[str, Any], rules: Iterable[SchemeRule]) -> tuple[SchemeRule, ...]:
    """Return the schemes that a chip takes, each with what single ops may be kept in on that chip.

    Args:
        facts: What is known of the chip (`arch`, `float16`), nothing where none was given.
        rules: A variant's schemes.
    """
    return tuple(
        rule if _is_like(facts, rule.mixed_chip) else replace(rule, mixed=()) for rule in rules if takes(facts, rule)
    )


def takes(facts: Mapping[str, Any], rule: SchemeRule) -> bool:
    """Return whether a chip with these facts (`arch`, `float16`) takes a scheme; unknown facts do not."""
    return _is_like(facts, rule.chip)


def _is_like(facts: Mapping[str, Any], wanted: Mapping[str, bool | int]) -> bool:
    if "float16" in wanted and facts.get("float16") != wanted["float16"]:
        return False
    digits = str(facts.get("arch", "")).lstrip("v")
    return "min_arch" not in wanted or (digits.isdigit() and int(digits) >= wanted["min_arch"])


def chips_for(profile: TargetProfile, scheme: str) -> tuple[str, ...]:
    """Return the chips of a target on which alone a scheme is offered, sorted; empty when it depends on no chip."""
    return tuple(
        sorted(
            soc
            for variant in profile.variants
            for rule in variant.schemes
            if rule.scheme == scheme and rule.chip
            for soc in variant.socs
            if takes(profile.socs[soc], rule)
        )
    )


def _variant(profile: TargetProfile, variant: str, soc: str) -> Variant:
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
