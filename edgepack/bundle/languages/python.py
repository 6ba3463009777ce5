"""The Python loader: an installable package with typed access to the model."""

import keyword
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.bundle import names
from edgepack.bundle.images import image_views
from edgepack.bundle.languages.base import LoaderLanguage
from edgepack.bundle.languages.python_tasks import EXPORTS, python_task
from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.tasks import task_view
from edgepack.bundle.views import TensorView, facts_of
from edgepack.choices import Platform

# Names that the generated code itself uses where a model's names are in scope.
_USED = names.word_set("self cls top_k k output status np result labels")
# Packages that a package named after a model would hide.
_PACKAGES_TAKEN = names.word_set("numpy ai_edge_litert tflite_runtime tensorflow edgepack hatchling src test tests")


@dataclass(frozen=True)
class PythonTensor(TensorView):
    """A tensor as the Python templates see it.

    Attributes:
        field: Legal identifier.
    """

    field: str


def python_package(name: str) -> str:
    """Return an importable package name that is no keyword, no standard module and none of the loader's own imports."""
    package = names.snake(name)
    reserved = _is_keyword(package) or package in sys.stdlib_module_names or package in _PACKAGES_TAKEN
    return f"{package}_model" if reserved else package


def distribution(name: str) -> str:
    """Return the name of the installable Python package, as PyPA's name rules want it."""
    return python_package(name).replace("_", "-")


def python_identifiers(texts: Iterable[str], fallback: str) -> list[str]:
    """Return a different legal Python name for each text."""

    def legal(text: str) -> str:
        identifier = names.snake(text, fallback)
        return f"{identifier}_" if _is_keyword(identifier) or identifier in _USED else identifier

    return names.distinct(texts, legal)


def python_string(text: str) -> str:
    """Return a Python string literal in double quotes, ASCII only."""
    return f'"{names.escape(text, names.ESCAPES, names.python_code_point)}"'


def _is_keyword(name: str) -> bool:
    return keyword.iskeyword(name) or keyword.issoftkeyword(name)


class Python(LoaderLanguage):
    """A package for pip that runs the model with ai-edge-litert or tflite-runtime."""

    id = "python"
    title = "Python"
    platforms = (Platform.LINUX,)
    # `None` is the one keyword that a class name can spell.
    class_names = names.word_set("Any ArrayLike Engine Iterable Iterator NDArray None Status Step Tensor") | EXPORTS

    def filters(self) -> Mapping[str, Callable[..., str]]:
        """Return `py`, a string literal."""
        return {"py": python_string}

    def placeholders(self, spec: BundleSpec) -> Mapping[str, str]:
        """Return `__package__`."""
        return {"__package__": python_package(spec.name)}

    def context(
        self, spec: BundleSpec, inputs: Sequence[TensorView], outputs: Sequence[TensorView]
    ) -> Mapping[str, Any]:
        """Return the package's names, and the tensors with their identifiers."""
        results = _tensors(outputs, "output")
        view = task_view(spec)
        task = None if view is None else python_task(view, [tensor.field for tensor in results])
        return {
            "python_task": task,
            "python_task_classes": EXPORTS,
            "python_package": python_package(spec.name),
            "distribution": distribution(spec.name),
            "python_inputs": _tensors(inputs, "input"),
            "python_outputs": results,
            # The one input of a model that runs on images.
            "python_image": next(iter(image_views(spec)), None) if len(inputs) == 1 else None,
            "python_labelled": [tensor for tensor in results if tensor.ranked or tensor.labels_positions],
        }


def _tensors(views: Sequence[TensorView], fallback: str) -> list[PythonTensor]:
    fields = python_identifiers([view.name for view in views], fallback)
    return [PythonTensor(**facts_of(view), field=field) for view, field in zip(views, fields, strict=True)]
