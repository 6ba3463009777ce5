"""The order of the steps: build and check. The command line and the library call the same functions."""

from edgepack.pipeline.options import BuildOptions, ModelOptions, TargetOptions

__all__ = ["BuildOptions", "ModelOptions", "TargetOptions", "build", "check"]


def __getattr__(name: str) -> object:
    # Loaded when used: `edgepack check` must not pay for what only a build needs.
    if name == "build":
        from edgepack.pipeline.building import build

        return build
    if name == "check":
        from edgepack.pipeline.checking import check

        return check
    raise AttributeError(name)
