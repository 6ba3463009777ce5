"""Which LiteRT an Android loader is written for, why, and the libraries that its module needs."""

from dataclasses import dataclass

from edgepack.bundle.spec import BundleSpec
from edgepack.choices import AndroidRuntime, Delegate, Platform
from edgepack.errors import BundleError

#: Versions that the generated projects name; a key of [bundle.options] with the same name takes precedence.
#: Source of litert: LiteRT issues 8 and 43 (1.4.0 is the first 1.x whose native libraries are 16 KB aligned).
VERSIONS = {
    # Plugin of the standalone project; the module itself configures under 8.5.1 (the first that aligns native
    # libraries to 16 KB; AI packs 8.10) and later, with the app's version.
    "agp": "9.2.0",
    # The Kotlin that this plugin brings.
    "kotlin": "2.2.10",
    "compile_sdk": "36",
    "min_sdk": "24",
    "litert": "1.4.2",
    "tensorflow_lite": "2.16.1",
    # The GPU delegate's options class is in an artifact of its own, last published as 2.14.0.
    "tensorflow_lite_gpu_api": "2.14.0",
    "qnn": "2.42.0",
    # LiteRT with CompiledModel; from 2.3.0 on the GPU is an artifact of its own.
    "litert_compiled_model": "2.3.0",
    "junit": "4.13.2",
    "androidx_test_runner": "1.7.0",
    # Libraries of the sample app.
    "androidx_activity": "1.13.0",
    "androidx_camera": "1.5.0",
    "androidx_compose_bom": "2026.02.01",
}

#: Types that the buffers of LiteRT's CompiledModel can be filled with from Kotlin (TensorType.ElementType of 2.x).
COMPILED_MODEL_TYPES = frozenset({"FLOAT32", "INT8", "INT32", "BOOL"})

#: Libraries that provide `org.tensorflow.lite.Interpreter`; `[bundle.options] runtime` chooses one.
INTERPRETERS = ("litert", "tensorflow-lite")
#: Maven group of LiteRT's libraries.
LITERT = "com.google.ai.edge.litert"
#: Manufacturer in the names of files that were compiled for a chip.
QUALCOMM = "Qualcomm"

#: Names of the Gradle properties that set a version, by key of `VERSIONS`.
_SETTINGS = {
    "litert": "litert",
    "litert_compiled_model": "litert",
    "tensorflow_lite": "tensorflowLite",
    "tensorflow_lite_gpu_api": "tensorflowLiteGpuApi",
    "qnn": "qnn",
}
#: Languages with a loader for CompiledModel.
_COMPILED_MODEL_LANGUAGES = ("kotlin", "java")
#: Variant of a GPU target whose op table is that of LiteRT 2's own GPU accelerator.
_ML_DRIFT = "ml-drift"


@dataclass(frozen=True)
class Dependency:
    """A library of the generated module.

    Attributes:
        module: `group:artifact`.
        version: Its version.
        setting: Name of the Gradle property, after `edgepack.`, with which an app sets another version.
        why: Why the module needs it, one sentence.
    """

    module: str
    version: str
    setting: str
    why: str

    @property
    def coordinates(self) -> str:
        """`group:artifact:version`."""
        return f"{self.module}:{self.version}"


@dataclass(frozen=True)
class CompiledFor:
    """A file that was compiled ahead of time for a chip.

    Attributes:
        soc: Model of the chip, as Android's `Build.SOC_MODEL` reports it.
        filename: The file.
    """

    soc: str
    filename: str


def versions(spec: BundleSpec) -> dict[str, str]:
    """Return `VERSIONS` with the overrides of the profile's [bundle.options]."""
    return VERSIONS | {key: str(value) for key, value in spec.rule.options.items() if key in VERSIONS}


def runtime_of(spec: BundleSpec) -> AndroidRuntime:
    """Return the LiteRT that the loader is written for: the requested one, or what the bundle needs.

    Files compiled ahead of time and the variant ML Drift need LiteRT 2. Everything else gets the Interpreter of LiteRT
    1: it takes every tensor type, resets states in place, has the delegates that the check's op tables describe, and
    works in an app that resolves to LiteRT 2.1 or later, on the CPU.

    Raises:
        BundleError: The requested runtime cannot run this bundle.
    """
    problem, compiled = compiled_model_problem(spec), bool(compiled_for(spec))
    if spec.runtime == AndroidRuntime.LITERT2 and problem:
        raise BundleError(f"--runtime litert2 cannot run this model: {problem}", hint="use --runtime litert1")
    if spec.runtime == AndroidRuntime.LITERT1 and compiled:
        raise BundleError(
            "--runtime litert1 cannot run files compiled ahead of time: "
            f"{', '.join(entry.filename for entry in compiled_for(spec))} need LiteRT 2's CompiledModel",
            hint="omit --runtime, or add --compile never to leave them out",
        )
    if spec.runtime:
        return AndroidRuntime(spec.runtime)
    wanted = compiled or spec.checked.variant == _ML_DRIFT
    return AndroidRuntime.LITERT2 if wanted and not problem else AndroidRuntime.LITERT1


def runtime_reason(spec: BundleSpec) -> str:
    """Return why the loader is written for this runtime, as a clause."""
    if spec.runtime:
        return "the build requested it with --runtime"
    if runtime_of(spec) == AndroidRuntime.LITERT2:
        return "it runs files compiled ahead of time" if runs_compiled(spec) else "the check is for its GPU, ML Drift"
    if compiled_for(spec):
        return f"LiteRT 2 cannot run this model: {compiled_model_problem(spec)}"
    return {
        Delegate.QNN: "Qualcomm's delegate is one of its Interpreter",
        Delegate.GPU: "the check is for the GPU delegate of its Interpreter",
    }.get(Delegate(spec.rule.delegate), "its Interpreter takes every tensor type, and works beside LiteRT 2 as well")


def runtime_warning(spec: BundleSpec) -> str:
    """Return a warning where the check was made for another GPU than the loader's, empty otherwise."""
    drift = spec.checked.variant == _ML_DRIFT
    if spec.rule.delegate != Delegate.GPU or not spec.runtime:
        return ""
    if spec.runtime == AndroidRuntime.LITERT2 and not drift:
        return "the check is for the GPU delegate of LiteRT 1, the loader uses LiteRT 2's: add --variant ml-drift"
    if spec.runtime == AndroidRuntime.LITERT1 and drift:
        return "the check is for LiteRT 2's GPU, ML Drift, the loader uses LiteRT 1's delegate: omit --variant"
    return ""


def runtime_library(spec: BundleSpec) -> Dependency:
    """Return the library that has the runtime itself."""
    return dependencies(spec)[0]


def higher_version(spec: BundleSpec) -> str:
    """Return what an app gets that resolves the runtime's library to a higher version, in sentences."""
    if runtime_of(spec) == AndroidRuntime.LITERT2:
        return "A later 2.x keeps CompiledModel. The libraries of LiteRT must have the same version."
    if runtime_library(spec).module != f"{LITERT}:litert":
        return "LiteRT has the same classes: an app must not contain both."
    accelerated = spec.rule.delegate in {Delegate.GPU, Delegate.QNN}
    cpu = "the Interpreter for the CPU only: the loader runs on the CPU and says why"
    return (
        f"From 2.1 on, LiteRT has {cpu if accelerated else 'the same Interpreter for the CPU, which the loader uses'}. "
        "2.0 has no Interpreter, and the loader does not run. Build with --runtime litert2 for an app on LiteRT 2."
    )


def dependencies(spec: BundleSpec) -> tuple[Dependency, ...]:
    """Return the libraries of the module, the runtime first.

    Raises:
        BundleError: The profile's `runtime` is none of `INTERPRETERS`, or the requested one cannot run the bundle.
    """
    known, delegate = versions(spec), spec.rule.delegate
    gpu = delegate in {Delegate.GPU, Delegate.QNN}

    def library(module: str, key: str, why: str) -> Dependency:
        return Dependency(module, known[key], _SETTINGS[key], why)

    interpreter = _interpreter(spec)
    if runtime_of(spec) == AndroidRuntime.LITERT2:
        libraries = [library(f"{LITERT}:litert", "litert_compiled_model", "The runtime with CompiledModel.")]
        if gpu:
            libraries.append(library(f"{LITERT}:litert-gpu", "litert_compiled_model", "The GPU."))
        return tuple(libraries)
    if interpreter == "litert":
        why = "The runtime; it also loads on devices with 16 KB pages."
        libraries = [library(f"{LITERT}:litert", "litert", why)]
        if gpu:
            libraries += [
                library(f"{LITERT}:litert-gpu", "litert", "The GPU delegate."),
                library(f"{LITERT}:litert-gpu-api", "litert", "The GPU delegate's options."),
            ]
    else:
        why = "The runtime; its native libraries are 4 KB aligned: devices with 16 KB pages cannot load them."
        libraries = [library("org.tensorflow:tensorflow-lite", "tensorflow_lite", why)]
        if gpu:
            why = "The GPU delegate's options, without which it fails at run time."
            libraries += [
                library("org.tensorflow:tensorflow-lite-gpu", "tensorflow_lite", "The GPU delegate."),
                library("org.tensorflow:tensorflow-lite-gpu-api", "tensorflow_lite_gpu_api", why),
            ]
    if delegate == Delegate.QNN:
        libraries += [
            library("com.qualcomm.qti:qnn-runtime", "qnn", "Qualcomm's libraries for HTP and DSP."),
            library("com.qualcomm.qti:qnn-litert-delegate", "qnn", "The delegate that calls them."),
        ]
    return tuple(libraries)


def _interpreter(spec: BundleSpec) -> str:
    chosen = str(spec.rule.options.get("runtime", INTERPRETERS[0]))
    if chosen not in INTERPRETERS:
        raise BundleError(
            f"target '{spec.profile.id}': [bundle.options] runtime: "
            f"expected {' or '.join(INTERPRETERS)}, got '{chosen}'",
            hint="correct the profile",
        )
    return chosen


def compiled_for(spec: BundleSpec) -> tuple[CompiledFor, ...]:
    """Return the files compiled for a chip of Qualcomm's, sorted by chip."""
    marked = [(model.filename.rpartition(f"_{QUALCOMM}_"), model) for model in spec.of_role("compiled")]
    return tuple(
        sorted((CompiledFor(end.removesuffix(".tflite"), model.filename) for (_, mark, end), model in marked if mark),
               key=lambda entry: entry.soc)
    )  # fmt: skip


def runs_compiled(spec: BundleSpec) -> bool:
    """Return whether the loader runs the files compiled ahead of time, with LiteRT's CompiledModel."""
    if spec.rule.template != Platform.ANDROID or spec.rule.delegate != Delegate.QNN:
        return False
    return bool(compiled_for(spec)) and runtime_of(spec) == AndroidRuntime.LITERT2


def compiled_model_problem(spec: BundleSpec) -> str:
    """Return why the bundle's loader cannot use LiteRT's CompiledModel, empty when it can."""
    if spec.language not in _COMPILED_MODEL_LANGUAGES:
        return f"the loader in {spec.language} cannot (--language {' or '.join(_COMPILED_MODEL_LANGUAGES)})"
    if others := sorted({tensor.dtype for tensor in (*spec.inputs, *spec.outputs)} - COMPILED_MODEL_TYPES):
        return f"LiteRT's CompiledModel has no buffers of the type {', '.join(others)}"
    if not spec.signature_order:
        return "the model's signature lists its inputs or outputs in another order than the model"
    return ""
