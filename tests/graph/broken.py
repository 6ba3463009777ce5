"""What a broken file must come to: an answer, or one EdgepackError. Shared by the tests and scripts/fuzz."""

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

#: Beyond this size a mutated file is not repaired: writing it again takes longer than the fuzzer should wait.
_SMALL = 1 << 18


@cache
def cases() -> list[tuple[TargetProfile, str, SchemeRule]]:
    """Return every target in each of its variants, with the scheme it would choose."""
    data = {Needs.NOTHING, Needs.SAMPLES}
    return [
        (profile, variant.id, select(replace(profile, schemes=variant.schemes or profile.schemes), data, "auto").rule)
        for profile in all_targets().values()
        for variant in profile.variants
    ]


def answers(data: bytes) -> bool:
    """Read, plan, check and repair; returns whether there was an answer, and lets everything but EdgepackError out."""
    try:
        model = read_model(data)
        for profile, variant, rule in cases():
            check(preview(model, rule), profile, variant=variant)
            if profile.id == "edgetpu" and len(data) < _SMALL:
                rewrite_unproven(data, profile, rule, TargetOptions(variant=variant), mode="approximate", cut_tail=True)
    except EdgepackError:
        return False
    return True
