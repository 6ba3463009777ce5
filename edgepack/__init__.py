"""From a trained TensorFlow model to a bundle that runs on edge hardware.

The library's verbs are the command line's: `build` and `check` take what `edgepack build` and `edgepack check` take.
"""

from importlib import import_module

from edgepack._version import __version__

__all__ = ["BuildOptions", "ModelOptions", "TargetOptions", "__version__", "build", "check", "verify"]

_MODULES = {
    "BuildOptions": "edgepack.pipeline.options",
    "ModelOptions": "edgepack.pipeline.options",
    "TargetOptions": "edgepack.pipeline.options",
    "build": "edgepack.pipeline.build",
    "check": "edgepack.pipeline.check",
    "verify": "edgepack.bundle.verify",
}


def __getattr__(name: str) -> object:
    # Loaded when used: `import edgepack` costs nothing.
    module = _MODULES.get(name)
    if module is not None:
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'edgepack' has no attribute '{name}'")
