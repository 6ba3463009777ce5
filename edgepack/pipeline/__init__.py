"""The order of the steps: build and check. The command line and the library call the same functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.pipeline.options import BuildOptions, ModelOptions, Progress, TargetOptions, silent

if TYPE_CHECKING:
    from edgepack.pipeline.checking import CheckResult
    from edgepack.pipeline.results import BuildResult

__all__ = ["BuildOptions", "ModelOptions", "TargetOptions", "build", "check"]


def build(
    model: Path | str,
    targets: Sequence[str],
    options: BuildOptions | None = None,
    progress: Progress = silent,
    tell: Progress = silent,
) -> "BuildResult":
    """Build a bundle of a model for each target: see `edgepack.pipeline.building.build`."""
    # Loaded when used: `edgepack check` must not pay for what only a build needs.
    from edgepack.pipeline import building

    return building.build(Path(model), targets, options, progress, tell)


def check(
    model: Path | str,
    targets: Sequence[str],
    model_options: ModelOptions | None = None,
    target_options: TargetOptions | None = None,
    *,
    scheme: str = "auto",
    progress: Progress = silent,
) -> "CheckResult":
    """Check a model against targets: see `edgepack.pipeline.checking.check`."""
    from edgepack.pipeline import checking

    return checking.check(Path(model), targets, model_options, target_options, scheme=scheme, progress=progress)
