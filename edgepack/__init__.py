"""Turn a trained TensorFlow model into a bundle that runs on edge hardware.

The functions are the commands of the same names, with their options as keywords; models and samples may be in memory.
"""

from edgepack._version import __version__

# Type checkers know the name. It is not imported from typing: `python -m edgepack` runs this file while the current
# folder, with what a stranger put there, still comes first where modules are looked up.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from edgepack.api.build import build
    from edgepack.api.check import check
    from edgepack.api.compare import compare
    from edgepack.api.delivery import Delivery, pull, push
    from edgepack.api.inspect import inspect
    from edgepack.api.project import BuiltCell, ProjectResult, build_project, load_project
    from edgepack.api.results import Comparison, Inspection, TrainResult, VerifyResult
    from edgepack.api.target_results import BuildResult, BuiltTarget, CheckedTarget, CheckResult
    from edgepack.api.train import train
    from edgepack.api.types import ModelLike, SamplesLike
    from edgepack.api.verify import verify
    from edgepack.errors import EdgepackError
    from edgepack.pipeline.options import BuildOptions, ModelOptions, TargetOptions

__all__ = [
    "BuildOptions",
    "BuildResult",
    "BuiltCell",
    "BuiltTarget",
    "CheckResult",
    "CheckedTarget",
    "Comparison",
    "Delivery",
    "EdgepackError",
    "Inspection",
    "ModelLike",
    "ModelOptions",
    "ProjectResult",
    "SamplesLike",
    "TargetOptions",
    "TrainResult",
    "VerifyResult",
    "__version__",
    "build",
    "build_project",
    "check",
    "compare",
    "inspect",
    "load_project",
    "pull",
    "push",
    "train",
    "verify",
]

_MODULES = {
    "BuildOptions": "edgepack.pipeline.options",
    "BuildResult": "edgepack.api.target_results",
    "BuiltCell": "edgepack.api.project",
    "BuiltTarget": "edgepack.api.target_results",
    "CheckResult": "edgepack.api.target_results",
    "CheckedTarget": "edgepack.api.target_results",
    "Comparison": "edgepack.api.results",
    "Delivery": "edgepack.api.delivery",
    "EdgepackError": "edgepack.errors",
    "Inspection": "edgepack.api.results",
    "ModelLike": "edgepack.api.types",
    "ModelOptions": "edgepack.pipeline.options",
    "ProjectResult": "edgepack.api.project",
    "SamplesLike": "edgepack.api.types",
    "TargetOptions": "edgepack.pipeline.options",
    "TrainResult": "edgepack.api.results",
    "VerifyResult": "edgepack.api.results",
    "build": "edgepack.api.build",
    "build_project": "edgepack.api.project",
    "check": "edgepack.api.check",
    "compare": "edgepack.api.compare",
    "inspect": "edgepack.api.inspect",
    "load_project": "edgepack.api.project",
    "pull": "edgepack.api.delivery",
    "push": "edgepack.api.delivery",
    "train": "edgepack.api.train",
    "verify": "edgepack.api.verify",
}


def __getattr__(name: str) -> object:
    # Modules load on first use, which keeps `import edgepack` fast.
    module = _MODULES.get(name)
    if module is not None:
        # Imported here: it takes as long as Python's own start, and signals are handled only after it.
        from importlib import import_module

        return getattr(import_module(module), name)
    raise AttributeError(f"module 'edgepack' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
