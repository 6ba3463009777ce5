"""The Android project around a loader: libraries, delivery and device groups, whatever the loader's language."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgepack.bundle import names
from edgepack.bundle.spec import BundleSpec
from edgepack.choices import Delivery, Platform
from edgepack.errors import BundleError

#: Versions that the generated projects require; a key of [bundle.options] with the same name takes precedence.
#: Source of litert: LiteRT issues 8 and 43 (1.4.0 is the first 1.x whose native libraries are 16 KB aligned).
VERSIONS = {
    # Device targeting of AI packs requires 8.10; 8.5.1 is the first that aligns the app's native libraries to 16 KB.
    "agp": "8.10.1",
    "kotlin": "2.1.21",
    "compile_sdk": "35",
    "min_sdk": "24",
    "litert": "1.4.0",
    "tensorflow_lite": "2.16.1",
    # The GPU delegate's options class is in an artifact of its own, last published as 2.14.0.
    "tensorflow_lite_gpu_api": "2.14.0",
    "qnn": "2.42.0",
    # The loader of files compiled ahead of time; from 2.3.0 on the GPU is an artifact of its own.
    "litert_compiled_model": "2.3.0",
}

#: Types that the buffers of LiteRT's CompiledModel can be filled with from Kotlin (TensorType.ElementType of 2.x).
COMPILED_MODEL_TYPES = frozenset({"FLOAT32", "INT8", "INT32", "BOOL"})

#: Libraries that provide `org.tensorflow.lite.Interpreter`; `[bundle.options] runtime` chooses one.
RUNTIMES = ("litert", "tensorflow-lite")
#: Names under which Qualcomm's chips report their manufacturer.
_MANUFACTURERS = ("Qualcomm", "QTI")


@dataclass(frozen=True)
class Dependency:
    """A library of the generated module.

    Attributes:
        coordinates: `group:artifact:version`.
        why: Why the module needs it, one sentence.
    """

    coordinates: str
    why: str


def versions(spec: BundleSpec) -> dict[str, str]:
    """Return `VERSIONS` with the overrides of the profile's [bundle.options]."""
    return VERSIONS | {key: str(value) for key, value in spec.rule.options.items() if key in VERSIONS}


def dependencies(spec: BundleSpec) -> tuple[Dependency, ...]:
    """Return the libraries of the module.

    Raises:
        BundleError: `[bundle.options] runtime` is none of `RUNTIMES`.
    """
    runtime = spec.rule.options.get("runtime", RUNTIMES[0])
    if runtime not in RUNTIMES:
        raise BundleError(
            f"target '{spec.profile.id}': [bundle.options] runtime: expected {' or '.join(RUNTIMES)}, got '{runtime}'",
            hint="correct the profile",
        )
    version, delegate = versions(spec), spec.rule.delegate
    if runs_compiled(spec):
        group, number = "com.google.ai.edge.litert", version["litert_compiled_model"]
        return (
            Dependency(f"{group}:litert:{number}", "The runtime, whose CompiledModel runs files compiled for a chip."),
            Dependency(f"{group}:litert-gpu:{number}", "The GPU, for other chips."),
        )
    gpu = delegate in {"gpu", "qnn"}
    libraries = []
    if runtime == "litert":
        group = "com.google.ai.edge.litert"
        libraries.append(
            Dependency(f"{group}:litert:{version['litert']}", "The runtime; it also loads on devices with 16 KB pages.")
        )
        if gpu:
            libraries += [
                Dependency(f"{group}:litert-gpu:{version['litert']}", "The GPU delegate."),
                Dependency(f"{group}:litert-gpu-api:{version['litert']}", "The GPU delegate's options."),
            ]
    else:
        group, number = "org.tensorflow", version["tensorflow_lite"]
        libraries.append(
            Dependency(
                f"{group}:tensorflow-lite:{number}",
                "The runtime; its native libraries are 4 KB aligned: devices with 16 KB pages cannot load them.",
            )
        )
        if gpu:
            api = version["tensorflow_lite_gpu_api"]
            libraries += [
                Dependency(f"{group}:tensorflow-lite-gpu:{number}", "The GPU delegate."),
                Dependency(
                    f"{group}:tensorflow-lite-gpu-api:{api}",
                    "The GPU delegate's options, without which it fails at run time.",
                ),
            ]
    if delegate == "qnn":
        libraries += [
            Dependency(f"com.qualcomm.qti:qnn-runtime:{version['qnn']}", "Qualcomm's libraries for HTP and DSP."),
            Dependency(f"com.qualcomm.qti:qnn-litert-delegate:{version['qnn']}", "The delegate that calls them."),
        ]
    return tuple(libraries)


@dataclass(frozen=True)
class CompiledFor:
    """A file that was compiled ahead of time for a chip.

    Attributes:
        soc: Model of the chip, as Android's `Build.SOC_MODEL` reports it.
        filename: The file.
    """

    soc: str
    filename: str


def compiled_for(spec: BundleSpec) -> tuple[CompiledFor, ...]:
    """Return the files compiled for a chip of Qualcomm's, sorted by chip."""
    marked = [(model.filename.rpartition(f"_{_MANUFACTURERS[0]}_"), model) for model in spec.of_role("compiled")]
    return tuple(
        sorted((CompiledFor(end.removesuffix(".tflite"), model.filename) for (_, mark, end), model in marked if mark),
               key=lambda entry: entry.soc)
    )  # fmt: skip


def runs_compiled(spec: BundleSpec) -> bool:
    """Return whether the loader runs the files compiled ahead of time, with LiteRT's CompiledModel."""
    return not compiled_model_problem(spec) and bool(compiled_for(spec))


def compiled_model_problem(spec: BundleSpec) -> str:
    """Return why the bundle's loader cannot run files compiled ahead of time, empty when it can."""
    if spec.rule.delegate != "qnn":
        return "the target's loader runs no such files"
    if spec.language != "kotlin":
        return f"only the Kotlin loader does, and this bundle's is in {spec.language} (--language kotlin)"
    if others := sorted({tensor.dtype for tensor in (*spec.inputs, *spec.outputs)} - COMPILED_MODEL_TYPES):
        return f"LiteRT's CompiledModel has no buffers of the type {', '.join(others)}"
    if not spec.signature_order:
        return "the model's signature lists its inputs or outputs in another order than the model"
    return ""


@dataclass(frozen=True)
class DeviceGroup:
    """Devices that get a folder of their own in an AI pack.

    Attributes:
        name: `Qualcomm_SM8550`.
        soc: Model of the chip.
        manufacturers: Names under which devices report the chip's manufacturer.
    """

    name: str
    soc: str
    manufacturers: tuple[str, ...] = _MANUFACTURERS


def device_groups(spec: BundleSpec) -> tuple[DeviceGroup, ...]:
    """Return the groups of `spec.socs`, without the group `other` that every AI pack has.

    Raises:
        BundleError: A chip's name cannot be part of a folder's name.
    """
    for soc in spec.socs:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", soc):
            raise BundleError(
                f"'{soc}' is not a valid chip for an AI pack: expected letters, digits and '_', such as SM8550"
            )
    return tuple(DeviceGroup(f"{_MANUFACTURERS[0]}_{soc}", soc) for soc in dict.fromkeys(spec.socs))


def group_folders(spec: BundleSpec) -> dict[str, dict[str, bytes]]:
    """Return each device group's models: the host model, and the files compiled for the group's chip."""
    host = {spec.host.filename: spec.host.data}
    folders = {"other": host}
    for group in device_groups(spec):
        own = [model for model in spec.models if model.filename.endswith(f"_{group.name}.tflite")]
        folders[group.name] = host | {model.filename: model.data for model in own if model.role == "compiled"}
    return folders


def left_out(spec: BundleSpec, other_languages: Iterable[str]) -> frozenset[str]:
    """Return the names of the template folders and files that this bundle leaves out.

    Args:
        spec: The bundle's values.
        other_languages: Ids of the Android languages that the bundle has no loader in.

    Raises:
        BundleError: The delivery is unknown, or not one of the bundle's platform.
    """
    if spec.delivery not in list(Delivery):
        raise BundleError(f"delivery: expected {' or '.join(Delivery)}, got '{spec.delivery}'")
    if spec.delivery != Delivery.MODULE and spec.rule.template == Platform.LINUX:
        raise BundleError(
            f"target '{spec.profile.id}' builds a bundle for Linux, which has no delivery '{spec.delivery}'",
            hint="omit --delivery, or pass --platform android for the target cpu",
        )
    excluded = {language_folder(language) for language in other_languages}
    # A test of the module alone would lack the model, which the AI pack carries.
    excluded.add("androidTest" if spec.delivery == Delivery.AI_PACK else "__ai_pack__")
    if spec.delivery != Delivery.AAR:
        excluded.add("__aar__")
    elif spec.classes is not None:
        # The archive is complete: there is nothing to build.
        excluded |= {"__module__", "build.gradle.kts.j2", "settings.gradle.kts.j2", "gradle.properties.j2"}
    return frozenset(excluded)


def language_folder(language_id: str) -> str:
    """Return the name of a template folder that only bundles with a loader in that language get."""
    return f"__{language_id}__"


def gradle_module(name: str) -> str:
    """Return the name of the Gradle module and of its folder."""
    return names.snake(name).replace("_", "-")


def android_placeholders(spec: BundleSpec) -> dict[str, str]:
    """Return the words in template paths that stand for names of the Gradle project."""
    module = gradle_module(spec.name)
    return {"__module__": module, "__ai_pack__": f"{module}-pack", "__aar__": f"{module}.aar"}


def android_context(spec: BundleSpec) -> dict[str, Any]:
    """Return the variables that only Android templates use.

    Raises:
        BundleError: An option of the profile has an unknown value.
    """
    module = gradle_module(spec.name)
    return {
        "gradle_module": module,
        "versions": versions(spec),
        "dependencies": dependencies(spec),
        "language": spec.language,
        "delivery": spec.delivery,
        "has_classes": spec.classes is not None,
        "pack_module": f"{module}-pack",
        "pack_name": f"{names.snake(spec.name)}_pack",
        "device_groups": device_groups(spec),
    }
