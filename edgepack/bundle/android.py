"""The Android project around a loader: delivery, device groups, sample app, whatever the loader's language."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgepack.bundle import names
from edgepack.bundle.android_runtime import (
    QUALCOMM,
    dependencies,
    higher_version,
    runtime_library,
    runtime_of,
    runtime_reason,
    versions,
)
from edgepack.bundle.images import image_views
from edgepack.bundle.spec import BundleSpec
from edgepack.choices import AndroidRuntime, Delivery, Platform
from edgepack.errors import BundleError

#: Names under which Qualcomm's chips report their manufacturer.
_MANUFACTURERS = (QUALCOMM, "QTI")


#: Languages of loaders that the sample app can use.
_SAMPLE_LANGUAGES = ("kotlin", "java")
#: The loader's class that runs a model, by runtime.
ENGINES = {AndroidRuntime.LITERT1: "InterpreterEngine", AndroidRuntime.LITERT2: "CompiledEngine"}


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
    if not spec.sample_app:
        excluded.add("__sample__")
    if spec.delivery != Delivery.AAR:
        excluded.add("__aar__")
    elif spec.classes is not None:
        # The archive is complete: there is nothing to build.
        excluded |= {"__module__", "build.gradle.kts.j2", "settings.gradle.kts.j2", "gradle.properties.j2", "gradle"}
    return frozenset(excluded)


def sample_app_problem(spec: BundleSpec) -> str:
    """Return why a bundle cannot have a sample app, empty when it can."""
    if spec.delivery == Delivery.AAR:
        return "an .aar has no project that it could be in"
    if len(spec.inputs) != 1 or len(image_views(spec)) != 1:
        return "it shows the model on the camera image, and the model's only input is no image with known normalization"
    if spec.language not in _SAMPLE_LANGUAGES:
        return f"it needs the loader in {' or '.join(_SAMPLE_LANGUAGES)}"
    return ""


def language_folder(language_id: str) -> str:
    """Return the name of a template folder that only bundles with a loader in that language get."""
    return f"__{language_id}__"


def gradle_module(name: str) -> str:
    """Return the name of the Gradle module and of its folder."""
    return names.snake(name).replace("_", "-")


def android_placeholders(spec: BundleSpec) -> dict[str, str]:
    """Return the words in template paths that stand for names of the Gradle project."""
    module = gradle_module(spec.name)
    return {"__module__": module, "__ai_pack__": f"{module}-pack", "__aar__": f"{module}.aar", "__sample__": "sample"}


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
        "runtime": runtime_of(spec),
        "runtime_reason": runtime_reason(spec),
        "runtime_library": runtime_library(spec),
        "higher_version": higher_version(spec),
        "engine": ENGINES[runtime_of(spec)],
        "sample_app": spec.sample_app,
    }
