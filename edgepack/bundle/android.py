"""What the Android template sees besides the tensors: libraries, languages, delivery. No text of its own."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.bundle import names
from edgepack.bundle.spec import BundleSpec
from edgepack.errors import BundleError

if TYPE_CHECKING:
    from edgepack.bundle.context import TensorView

#: Versions that the generated projects ask for; a key of [bundle.options] with the same name wins.
#: Source of litert: LiteRT issues 8 and 43 (1.4.0 is the first 1.x whose native libraries are 16 KB aligned).
VERSIONS = {
    # Device targeting of AI packs needs 8.10; 8.5.1 is the first that aligns native libraries in the app to 16 KB.
    "agp": "8.10.1",
    "kotlin": "2.1.21",
    "compile_sdk": "35",
    "min_sdk": "24",
    "litert": "1.4.0",
    "tensorflow_lite": "2.16.1",
    # The GPU delegate's options class lives in an artifact of its own, which was last published as 2.14.0.
    "tensorflow_lite_gpu_api": "2.14.0",
    "qnn": "2.42.0",
}

#: Libraries that have `org.tensorflow.lite.Interpreter`; `[bundle.options] runtime` chooses.
RUNTIMES = ("litert", "tensorflow-lite")


@dataclass(frozen=True)
class Dependency:
    """A library of the generated module.

    Attributes:
        coordinates: `group:artifact:version`.
        why: What it is needed for, one sentence.
    """

    coordinates: str
    why: str


def versions(spec: BundleSpec) -> dict[str, str]:
    """Return `VERSIONS` with what the profile's [bundle.options] override."""
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
    gpu = delegate in {"gpu", "qnn"}
    found = []
    if runtime == "litert":
        group = "com.google.ai.edge.litert"
        found.append(
            Dependency(f"{group}:litert:{version['litert']}", "The runtime; loads on devices with 16 KB pages too.")
        )
        if gpu:
            found += [
                Dependency(f"{group}:litert-gpu:{version['litert']}", "The GPU delegate."),
                Dependency(f"{group}:litert-gpu-api:{version['litert']}", "The GPU delegate's options."),
            ]
    else:
        group, number = "org.tensorflow", version["tensorflow_lite"]
        found.append(
            Dependency(
                f"{group}:tensorflow-lite:{number}",
                "The runtime; its native libraries are 4 KB aligned: devices with 16 KB pages cannot load them.",
            )
        )
        if gpu:
            api = version["tensorflow_lite_gpu_api"]
            found += [
                Dependency(f"{group}:tensorflow-lite-gpu:{number}", "The GPU delegate."),
                Dependency(
                    f"{group}:tensorflow-lite-gpu-api:{api}",
                    "The GPU delegate's options, without which it fails at run time.",
                ),
            ]
    if delegate == "qnn":
        found += [
            Dependency(f"com.qualcomm.qti:qnn-runtime:{version['qnn']}", "Qualcomm's libraries for HTP and DSP."),
            Dependency(f"com.qualcomm.qti:qnn-litert-delegate:{version['qnn']}", "The delegate that calls them."),
        ]
    return tuple(found)


#: Languages of the loader; each has a folder of its own in the template.
LANGUAGES = ("kotlin", "java")
#: How a bundle reaches the app.
DELIVERIES = ("module", "ai-pack", "aar")
#: Names under which Qualcomm's chips report their maker.
_MANUFACTURERS = ("Qualcomm", "QTI")
#: Array types that hold real values.
_REAL = frozenset({"FLOAT32", "INT8", "UINT8", "INT16"})


@dataclass(frozen=True)
class ImageView:
    """An input that takes pictures: value = (pixel - mean) / std, pixel in 0..255.

    Attributes:
        index: Position among the inputs.
        height: In pixels.
        width: In pixels.
        mean: One per channel: red, green, blue, or grey alone.
        std: The same.
    """

    index: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Parameter:
    """A parameter of the `run` that takes pictures.

    Attributes:
        view: The input.
        image: What makes a picture of it, None for an input that takes values.
    """

    view: "TensorView"
    image: ImageView | None

    @property
    def name(self) -> str:
        """Identifier."""
        return self.view.kotlin

    @property
    def text(self) -> str:
        """What it is, for a comment."""
        if self.image is None:
            return f"{self.view.elements} values"
        return f"A picture; it is resized to {self.image.width} x {self.image.height}"

    @property
    def kotlin_type(self) -> str:
        """Kotlin type."""
        return self.view.kotlin_type if self.image is None else "Bitmap"

    @property
    def java_type(self) -> str:
        """Java type."""
        return self.view.java_type if self.image is None else "Bitmap"

    @property
    def java_parameter(self) -> str:
        """Type and name in Java."""
        return f"{self.java_type} {self.name}"

    @property
    def argument(self) -> str:
        """What is handed on to the `run` that takes values."""
        return self.name if self.image is None else f"IMAGE_{self.image.index}.values({self.name})"


def images(spec: BundleSpec) -> tuple[ImageView, ...]:
    """Return the inputs of shape [1, height, width, 1 or 3] whose preprocessing is known."""
    found = []
    for index, tensor in enumerate(spec.inputs):
        known = tensor.preprocessing or {}
        real = tensor.quantized or tensor.dtype == "FLOAT32"
        if len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[3] not in {1, 3} or not real:
            continue
        mean, std = (_per_channel(known.get(key), tensor.shape[3]) for key in ("mean", "std"))
        if tensor.dtype in _REAL and mean and std and all(std):
            found.append(ImageView(index, tensor.shape[1], tensor.shape[2], mean, std))
    return tuple(found)


def _per_channel(value: Any, channels: int) -> tuple[float, ...]:
    """Return a number, or a list of numbers, as one number per channel; empty when they are not known."""
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if any(isinstance(n, bool) or not isinstance(n, int | float) or not math.isfinite(n) for n in numbers):
        return ()
    if len(numbers) not in {1, channels}:
        return ()
    return tuple(float(number) for number in (numbers if len(numbers) == channels else numbers * channels))


@dataclass(frozen=True)
class DeviceGroup:
    """Devices that get a folder of their own in an AI pack.

    Attributes:
        name: `Qualcomm_SM8550`.
        soc: Model of the chip.
        manufacturers: Names that devices report for its maker.
    """

    name: str
    soc: str
    manufacturers: tuple[str, ...] = _MANUFACTURERS


def device_groups(spec: BundleSpec) -> tuple[DeviceGroup, ...]:
    """Return the groups of `spec.socs`, without the group `other` that is always there.

    Raises:
        BundleError: A chip's name cannot be part of a folder's name.
    """
    for soc in spec.socs:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", soc):
            raise BundleError(f"'{soc}' is no chip for an AI pack: expected letters, digits and '_', such as SM8550")
    return tuple(DeviceGroup(f"{_MANUFACTURERS[0]}_{soc}", soc) for soc in dict.fromkeys(spec.socs))


def group_folders(spec: BundleSpec) -> dict[str, dict[str, bytes]]:
    """Return each device group's models: the one that runs anywhere, and what was compiled for the group's chip."""
    host = {spec.host.filename: spec.host.data}
    folders = {"other": host}
    for group in device_groups(spec):
        own = [model for model in spec.models if model.filename.endswith(f"_{group.name}.tflite")]
        folders[group.name] = host | {model.filename: model.data for model in own if model.role == "compiled"}
    return folders


def left_out(spec: BundleSpec) -> frozenset[str]:
    """Return the folders and files of a template that this bundle does not get.

    Raises:
        BundleError: Language or delivery is unknown, or the delivery is not for the bundle's platform.
    """
    if spec.language not in LANGUAGES:
        raise BundleError(f"language: expected {' or '.join(LANGUAGES)}, got '{spec.language}'")
    if spec.delivery not in DELIVERIES:
        raise BundleError(f"delivery: expected {' or '.join(DELIVERIES)}, got '{spec.delivery}'")
    if spec.delivery != "module" and spec.rule.template == "linux":
        raise BundleError(
            f"target '{spec.profile.id}' makes a bundle for Linux, which has no delivery '{spec.delivery}'",
            hint="leave --delivery out, or give --platform android for the target cpu",
        )
    unwanted = {f"__{language}__" for language in LANGUAGES if language != spec.language}
    # A test of the module alone would not have the model that an AI pack brings.
    unwanted.add("androidTest" if spec.delivery == "ai-pack" else "__ai_pack__")
    if spec.delivery != "aar":
        unwanted.add("__aar__")
    elif spec.classes is not None:
        # The archive is complete: there is nothing to build.
        unwanted |= {"__module__", "build.gradle.kts.j2", "settings.gradle.kts.j2", "gradle.properties.j2"}
    return frozenset(unwanted)


def android_context(spec: BundleSpec, inputs: "Sequence[TensorView]") -> dict[str, Any]:
    """Return the variables that only Android templates use.

    Args:
        spec: The bundle's values.
        inputs: The inputs as templates see them.

    Raises:
        BundleError: An option has a value that is not known.
    """
    found = images(spec)
    by_index = {image.index: image for image in found}
    package = names.jvm_package(spec.android_package, spec.name)
    return {
        "versions": versions(spec),
        "dependencies": dependencies(spec),
        "language": spec.language,
        "delivery": spec.delivery,
        "self_test_component": f"{package}.test/{package}.SelfTest",
        "has_classes": spec.classes is not None,
        "pack_module": f"{names.gradle_module(spec.name)}-pack",
        "pack_name": f"{names.snake(spec.name)}_pack",
        "device_groups": device_groups(spec),
        "images": found,
        "image_parameters": [Parameter(view, by_index.get(view.index)) for view in inputs],
    }
