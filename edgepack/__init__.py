"""From a trained TensorFlow model to a bundle that runs on edge hardware.

The library's verbs are the command line's: `build` and `check` take what `edgepack build` and `edgepack check` take.
"""

from edgepack._version import __version__

__all__ = ["BuildOptions", "ModelOptions", "TargetOptions", "__version__", "build", "check", "verify"]


def __getattr__(name: str) -> object:
    # Loaded when used: `import edgepack` costs nothing.
    if name in {"BuildOptions", "ModelOptions", "TargetOptions", "build", "check"}:
        from edgepack import pipeline

        return getattr(pipeline, name)
    if name == "verify":
        from edgepack.bundle.verify import verify

        return verify
    raise AttributeError(f"module 'edgepack' has no attribute '{name}'")
