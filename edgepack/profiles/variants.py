"""Selects a variant of a target by its id or by the SoC."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from edgepack.errors import UsageError
from edgepack.profiles.faults import did_you_mean
from edgepack.profiles.model import SchemeRule, TargetProfile, Variant
from edgepack.text import whole_number


def choose_variant(profile: TargetProfile, *, variant: str = "", soc: str = "") -> Variant:
    """Return the requested variant, with the schemes that the SoC supports.

    Args:
        profile: The target.
        variant: Variant id; empty selects the SoC's variant, or else the default.
        soc: SoC model such as `SM8550`, case-insensitive; ignored by targets without SoCs.

    Raises:
        UsageError: The variant or SoC does not exist, or the SoC belongs to another variant.
    """
    soc = soc_model(profile, soc)
    chosen = _variant(profile, variant, soc)
    facts = profile.socs.get(soc, {})
    return replace(chosen, schemes=schemes_for(facts, chosen.schemes))


def resolve_variant(profile: TargetProfile, *, variant: str = "", soc: str = "") -> TargetProfile:
    """Return a profile with everything that the requested variant sets in place of the default's.

    Args:
        profile: The target.
        variant: Variant id; empty selects the SoC's variant, or else the default.
        soc: SoC model, case-insensitive; ignored by targets without SoCs.

    Raises:
        UsageError: The variant or SoC does not exist, or the SoC belongs to another variant.
    """
    chosen = choose_variant(profile, variant=variant, soc=soc)
    compiler = profile.compiler
    if compiler is not None:
        compiler = replace(compiler, options={**compiler.options, **chosen.compiler_options})
    return replace(
        profile,
        schemes=chosen.schemes or profile.schemes,
        partition=chosen.partition,
        ops=chosen.ops,
        compiler=compiler,
    )


def schemes_for(facts: Mapping[str, Any], rules: Iterable[SchemeRule]) -> tuple[SchemeRule, ...]:
    """Return the schemes that a SoC supports, each with the types that single ops may have on that SoC.

    Args:
        facts: Facts about the SoC (`arch`, `float16`); empty when none is specified.
        rules: A variant's schemes.
    """
    return tuple(
        rule if _meets(facts, rule.mixed_chip) else replace(rule, mixed=()) for rule in rules if _supports(facts, rule)
    )


def _supports(facts: Mapping[str, Any], rule: SchemeRule) -> bool:
    return _meets(facts, rule.chip)


def _meets(facts: Mapping[str, Any], required: Mapping[str, bool | int]) -> bool:
    """Return whether a SoC with these facts meets requirements; an unknown fact does not."""
    if "float16" in required and facts.get("float16") != required["float16"]:
        return False
    if "min_arch" not in required:
        return True
    arch = hexagon_arch(facts)
    return arch is not None and arch >= required["min_arch"]


def hexagon_arch(facts: Mapping[str, Any]) -> int | None:
    """Return the Hexagon architecture of a SoC (73 for `v73`), None when the facts do not contain it."""
    return whole_number(str(facts.get("arch", "")).lstrip("v"))


def chips_for(profile: TargetProfile, scheme: str) -> tuple[str, ...]:
    """Return the SoCs that a scheme is limited to, sorted; empty when it is available on every SoC."""
    return tuple(
        sorted(
            soc
            for variant in profile.variants
            for rule in variant.schemes
            if rule.scheme == scheme and rule.chip
            for soc in variant.socs
            if _supports(profile.socs[soc], rule)
        )
    )


def _variant(profile: TargetProfile, variant: str, soc: str) -> Variant:
    by_id = {candidate.id: candidate for candidate in profile.variants}
    if variant:
        if variant not in by_id:
            named = [name for name in by_id if name]
            hint = (
                f"variants are: {', '.join(named)}" if named else f"{profile.id} has only one variant: omit --variant"
            )
            raise UsageError(f"target {profile.id} has no variant '{variant}'{did_you_mean(variant, named)}", hint=hint)
        chosen = by_id[variant]
        if soc and chosen.socs and soc not in chosen.socs:
            raise UsageError(
                f"{soc} is not a SoC of {profile.id}'s variant '{variant}'",
                hint=f"omit --variant, or use one of: {', '.join(chosen.socs)}",
            )
        return chosen
    for candidate in profile.variants:
        if soc and soc in candidate.socs:
            return candidate
    return profile.variants[0]


def soc_model(profile: TargetProfile, soc: str) -> str:
    """Return a SoC in the profile's spelling; empty when none is specified or the target has no SoCs.

    Raises:
        UsageError: The target has SoCs, but not this one.
    """
    if not soc or not profile.socs:
        return ""
    by_upper = {known.upper(): known for known in profile.socs}
    if soc.upper() not in by_upper:
        raise UsageError(
            f"target {profile.id} has no SoC '{soc}'{did_you_mean(soc.upper(), by_upper)}",
            hint=f"SoCs are: {', '.join(sorted(profile.socs))}",
        )
    return by_upper[soc.upper()]
