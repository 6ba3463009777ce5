"""Turn a trained TensorFlow model into a bundle that runs on edge hardware.

The functions mirror the commands of the same names and accept their options.
"""

from edgepack._version import __version__

__all__ = ["BuildOptions", "ModelOptions", "TargetOptions", "__version__", "build", "check", "verify"]

_MODULES = {
    "BuildOptions": "edgepack.pipeline.options",
    "ModelOptions": "edgepack.pipeline.options",
    "TargetOptions": "edgepack.pipeline.options",
    "build": "edgepack.pipeline.build",
    "check": "edgepack.pipeline.check",
    "verify": "edgepack.pipeline.verify",
}


def __getattr__(name: str) -> object:
    # Modules load on first use, which keeps `import edgepack` fast.
    module = _MODULES.get(name)
    if module is not None:
        # Imported here: it takes as long as Python's own start, and signals are handled only after it.
        from importlib import import_module

        return getattr(import_module(module), name)
    raise AttributeError(f"module 'edgepack' has no attribute '{name}'")
