"""What the Android template sees besides the tensors: libraries, languages, delivery. No text of its own."""

from dataclasses import dataclass
from typing import Any

from edgepack.bundle.spec import BundleSpec
from edgepack.errors import BundleError

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
    return VERSIONS | {key: str(value) for key, value in spec.profile.bundle.options.items() if key in VERSIONS}


def dependencies(spec: BundleSpec) -> tuple[Dependency, ...]:
    """Return the libraries of the module.

    Raises:
        BundleError: `[bundle.options] runtime` is none of `RUNTIMES`.
    """
    runtime = spec.profile.bundle.options.get("runtime", RUNTIMES[0])
    if runtime not in RUNTIMES:
        raise BundleError(
            f"target '{spec.profile.id}': [bundle.options] runtime: expected {' or '.join(RUNTIMES)}, got '{runtime}'",
            hint="correct the profile",
        )
    version, delegate = versions(spec), spec.profile.bundle.delegate
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


def android_context(spec: BundleSpec) -> dict[str, Any]:
    """Return the variables that only Android templates use."""
    return {"versions": versions(spec), "dependencies": dependencies(spec)}
