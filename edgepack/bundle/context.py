"""Variables, path placeholders and filters of the templates: the spec's values under legal names."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edgepack.bundle import names
from edgepack.bundle.android import (
    android_context,
    android_placeholders,
    language_folder,
)
from edgepack.bundle.android_runtime import compiled_for, runs_compiled, runtime_of
from edgepack.bundle.golden import simulated_folder, tolerances
from edgepack.bundle.images import image_views
from edgepack.bundle.languages.base import LoaderLanguage
from edgepack.bundle.languages.java import JavaTensor
from edgepack.bundle.languages.jvm import jvm_identifiers
from edgepack.bundle.languages.python import python_identifiers
from edgepack.bundle.languages.registry import BUILTIN, all_languages, languages_for
from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.tasks import decoder_source, task_view
from edgepack.bundle.views import TensorView, facts_of, tensor_views
from edgepack.choices import AndroidRuntime, Platform
from edgepack.errors import BundleError

#: Compiler's major version -> runtime version that its files require; the first entry serves older compilers too.
_EDGETPU_RUNTIMES = ((0, 13), (16, 14))

#: Filters that belong to no loader language.
_FILTERS: dict[str, Callable[..., str]] = {
    "toml": names.toml_string,
    "xml": names.xml_text,
    "md": names.markdown_text,
    "mdcode": names.markdown_code,
    "comment": names.comment_text,
}


@dataclass(frozen=True)
class TemplateTensor(TensorView):
    """An entry of `inputs` or `outputs`: what all templates see, and names for the templates of a target's own.

    Attributes:
        python: Legal Python identifier.
        kotlin: Legal Kotlin and Java identifier.
    """

    python: str
    kotlin: str

    @property
    def kotlin_type(self) -> str:
        """Kotlin array type."""
        return self._java.array

    @property
    def java_type(self) -> str:
        """Java array type."""
        return self._java.type

    @property
    def getter(self) -> str:
        """Name of an output's getter in Kotlin and Java."""
        return self._java.getter

    @property
    def _java(self) -> JavaTensor:
        return JavaTensor(**facts_of(self), field=self.kotlin)


def _template_tensors(views: list[TensorView], fallback: str) -> list[TemplateTensor]:
    texts = [view.name for view in views]
    legal = zip(python_identifiers(texts, fallback), jvm_identifiers(texts, fallback), strict=True)
    return [
        TemplateTensor(**facts_of(view), python=python, kotlin=kotlin)
        for view, (python, kotlin) in zip(views, legal, strict=True)
    ]


def class_name(name: str) -> str:
    """Return the name of the model's class: legal in every loader language, and none that a loader uses itself."""
    text = names.pascal(name)
    languages = all_languages().values()
    reserved = any(text in language.class_names or text.lower() in language.keywords for language in languages)
    return f"{text}Model" if reserved else text


def _known_languages(languages: Iterable[LoaderLanguage]) -> list[LoaderLanguage]:
    """Return the built-in languages, whose variables every template may use, and those of the bundle."""
    builtin = [language for language_id, language in all_languages().items() if language_id in BUILTIN]
    return [*builtin, *(language for language in languages if language.id not in BUILTIN)]


def filters(languages: Iterable[LoaderLanguage]) -> dict[str, Callable[..., str]]:
    """Return the filters of the templates.

    Args:
        languages: The languages of the bundle's loaders.
    """
    known: dict[str, Callable[..., str]] = dict(_FILTERS)
    for language in _known_languages(languages):
        known = {**language.filters(), **known}
    return known


def placeholders(spec: BundleSpec, languages: Iterable[LoaderLanguage]) -> dict[str, str]:
    """Return the words that template paths may contain, with the names that they stand for.

    Args:
        spec: The bundle's values.
        languages: The languages of the bundle's loaders.
    """
    known = {"__asset__": names.snake(spec.name), "__class__": class_name(spec.name), **android_placeholders(spec)}
    known |= {language_folder(language.id): language.id for language in languages_for(Platform.ANDROID)}
    for language in _known_languages(languages):
        known = {**language.placeholders(spec), **known}
    return known


def make_context(spec: BundleSpec, languages: Iterable[LoaderLanguage] = ()) -> dict[str, Any]:
    """Return the variables of the templates.

    Args:
        spec: The bundle's values.
        languages: The languages of the bundle's loaders; the built-in ones add their variables in any case.

    Raises:
        BundleError: A tensor has a type that no loader supports.
    """
    inputs = tensor_views(spec.inputs, "input")
    outputs = tensor_views(spec.outputs, "output")
    compiled = spec.compiled
    # The model's bytes decide, so that an installer recognizes a new model as a new version.
    digest = hashlib.sha256(b"".join(model.data for model in spec.models)).hexdigest()
    context = android_context(spec) | {
        "spec": spec,
        "target": spec.profile,
        "delegate": spec.rule.delegate,
        "options": dict(spec.rule.options),
        "title": spec.name,
        "model_version": f"1.0.0+{digest[:12]}",
        "class_name": class_name(spec.name),
        "asset": names.snake(spec.name),
        "inputs": _template_tensors(inputs, "input"),
        "outputs": _template_tensors(outputs, "output"),
        "images": image_views(spec),
        "task": task_view(spec),
        "decoder_source": decoder_source,
        "host_file": spec.host.filename,
        "compiled_file": compiled.filename if compiled is not None else "",
        "compiled_model": runs_compiled(spec),
        "compiled_for": compiled_for(spec),
        "compiled_files": [model.filename for model in spec.segments or ((compiled,) if compiled else ())],
        "segmented": bool(spec.segments),
        "co_compiled": {
            model.filename.removesuffix("_edgetpu.tflite"): model.filename for model in spec.of_role("co-compiled")
        },
        "edgetpu_runtime": spec.compile.runtime_version or edgetpu_runtime(spec.compile.version),
        "model_token": hashlib.sha256(spec.host.data).hexdigest()[:32],
        # An NPU runs a file with integer activations quantized, and any other one in half precision.
        "integer_model": spec.scheme in {"int8", "int8-qat", "int16x8"},
        "single_precision": spec.single_precision,
        # A run leaves a state to the next one, which `reset()` of the loaders ends.
        "stateful": bool(spec.state),
        # The interpreter resets variable tensors in place; otherwise a loader opens the model again.
        "reopens": spec.state == "resource-variables"
        or (bool(spec.state) and runtime_of(spec) == AndroidRuntime.LITERT2),
        "cases": len(spec.golden.cases),
        "golden": spec.golden,
        "tolerances": tolerances(spec.golden),
        # Chips whose compiled file the loader runs, with the folder of the simulator's outputs.
        "simulated": [(one.chip, simulated_folder(one)) for one in spec.golden.simulated if runs_compiled(spec)],
        "warnings": plain_warnings(spec),
    }
    for language in _known_languages(languages):
        context = {**language_context(language, spec), **context}
    return context


def language_context(language: LoaderLanguage, spec: BundleSpec) -> dict[str, Any]:
    """Return the variables of one language.

    Raises:
        BundleError: A tensor has a type that no loader supports, or the language's own code fails.
    """
    inputs, outputs = tensor_views(spec.inputs, "input"), tensor_views(spec.outputs, "output")
    try:
        return dict(language.context(spec, inputs, outputs))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleError(
            f"the loader language '{language.id}' failed: {type(error).__name__}: {error}",
            hint="report this to the author of the package that provides it, or uninstall the package",
        ) from error


def edgetpu_runtime(compiler_version: str) -> int:
    """Return the libedgetpu runtime version that a compiler's files require (16.0: 14; 15.0 and 14.1: 13)."""
    match = re.match(r"\d+", compiler_version)
    major = int(match.group()) if match else _EDGETPU_RUNTIMES[-1][0]
    return max(runtime for first, runtime in _EDGETPU_RUNTIMES if major >= first)


def plain_warnings(spec: BundleSpec) -> list[str]:
    """Return the warnings at the top of the README: nothing compiled, random calibration, and the build's own ones."""
    texts = []
    compiler = spec.profile.compiler
    if compiler is not None and spec.compile.status != "compiled":
        reason = spec.compile.reason.rstrip(".")
        # Only the Edge TPU requires its compiler: a phone's driver prepares the model when it loads it.
        required = spec.rule.delegate == "edgetpu"
        text = "Nothing was compiled ahead of time"
        if required:
            text = f"This model is NOT compiled for {spec.profile.title}"
        texts.append(
            f"{text}{f': {reason}' if reason else ''}.{' It runs on the CPU until it is.' if required else ''}"
        )
    if spec.calibration is not None and spec.calibration.random:
        texts.append("Calibrated on RANDOM numbers: do not rely on the results. Build again with real samples.")
    # The build's own warning about compiling repeats the reason.
    repeated = spec.compile.reason.rstrip(".")
    return [*texts, *(warning for warning in spec.warnings if not (texts and repeated and repeated in warning))]
