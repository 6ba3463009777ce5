"""Reading and checking of broken files: the outcome is a result or an EdgepackError. Used by tests and scripts/fuzz."""

from dataclasses import replace
from functools import cache

from edgepack.compat import check
from edgepack.errors import EdgepackError
from edgepack.graph import read_model
from edgepack.pipeline.options import TargetOptions
from edgepack.pipeline.rewrite import rewrite_unproven
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.registry import all_targets
from edgepack.quantize.preview import preview
from edgepack.quantize.select import select
from edgepack.schemes import Needs

#: Larger mutated files are not repaired, because writing them again would slow down the fuzzer.
_SMALL = 1 << 18


@cache
def cases() -> list[tuple[TargetProfile, str, SchemeRule]]:
    """Return every target in each of its variants, with the scheme selected for it."""
    data = {Needs.NOTHING, Needs.SAMPLES}
    return [
        (profile, variant.id, select(replace(profile, schemes=variant.schemes or profile.schemes), data, "auto").rule)
        for profile in all_targets().values()
        for variant in profile.variants
    ]


def answers(data: bytes) -> bool:
    """Read, preview, check and repair a file; return False for an EdgepackError, and raise any other exception."""
    try:
        model = read_model(data)
        for profile, variant, rule in cases():
            check(preview(model, rule), profile, variant=variant)
            if profile.id == "edgetpu" and len(data) < _SMALL:
                rewrite_unproven(data, profile, rule, TargetOptions(variant=variant), mode="approximate", cut_tail=True)
    except EdgepackError:
        return False
    return True
