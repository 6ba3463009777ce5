"""The checking stage: where a target runs each op of a file."""

from edgepack.findings import Report
from edgepack.graph import Model
from edgepack.pipeline.options import TargetOptions
from edgepack.profiles.model import TargetProfile
from edgepack.profiles.variants import choose_variant


def check_placement(model: Model, profile: TargetProfile, target_options: TargetOptions) -> Report:
    """Return where a target runs each op of a model.

    Args:
        model: A file, or the preview of one.
        profile: The target.
        target_options: Variant, chip and runtime version.

    Raises:
        UsageError: There is no such variant or chip.
    """
    from edgepack.compat import check

    variant = choose_variant(profile, variant=target_options.variant, soc=target_options.soc)
    return check(
        model,
        profile,
        variant=variant.id,
        soc=target_options.soc,
        runtime_version=target_options.runtime_version,
    )
