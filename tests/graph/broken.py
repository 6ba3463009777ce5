"""Reading and checking of broken files: the outcome is a result or an EdgepackError. Used by tests and scripts/fuzz."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from edgepack.compat import check
from edgepack.errors import EdgepackError
from edgepack.graph import read_model
from edgepack.graph.metadata import read_metadata
from edgepack.pipeline.options import TargetOptions
from edgepack.pipeline.rewrite import rewrite_unproven
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.registry import all_targets
from edgepack.quantize.preview import preview
from edgepack.quantize.select import select
from edgepack.runtime.runner import model_inputs, model_outputs
from edgepack.schemes import Needs

#: Larger mutated files are not repaired, because writing them again would slow down the fuzzer.
_SMALL = 1 << 18

Case = tuple[TargetProfile, str, SchemeRule]


@cache
def cases() -> list[Case]:
    """Return every target in each of its variants, with the scheme selected for it."""
    data = {Needs.NOTHING, Needs.SAMPLES}
    return [
        (profile, variant.id, select(replace(profile, schemes=variant.schemes or profile.schemes), data, "auto").rule)
        for profile in all_targets().values()
        for variant in profile.variants
    ]


def answers(data: bytes) -> bool:
    """Read, preview, check and repair a file for every case; return False for an EdgepackError, raise all else."""
    return _answers(data, cases())


def answers_for_one_case(data: bytes) -> bool:
    """As `answers`, for the one case that the bytes select: the fuzzer covers all of them by its number of inputs."""
    return _answers(data, [cases()[zlib.crc32(data) % len(cases())]])


def _answers(data: bytes, selected: Sequence[Case]) -> bool:
    try:
        model = read_model(data)
        model_inputs(model), model_outputs(model)
        read_metadata(data)
        for profile, variant, rule in selected:
            check(preview(model, rule), profile, variant=variant)
            if profile.id == "edgetpu" and len(data) < _SMALL:
                rewrite_unproven(data, profile, rule, TargetOptions(variant=variant), mode="approximate", cut_tail=True)
    except EdgepackError as error:
        assert str(error).strip(), f"{type(error).__name__} has no message"
        return False
    return True
