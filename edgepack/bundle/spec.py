"""The values from which a bundle is rendered. Rendering adds no information of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.choices import Delegate, Platform
from edgepack.errors import BundleError
from edgepack.profiles.model import BundleRule, TargetProfile
from edgepack.runtime import TensorInfo
from edgepack.runtime.postprocessing import PostprocessStep
from edgepack.tasks import TaskSpec

#: Platforms for which a target without accelerator can build a bundle; each is also the name of a template.
PLATFORMS = tuple(Platform)


@dataclass(frozen=True)
class SourceSpec:
    """The user's model.

    Attributes:
        format: `keras`, `h5`, `saved_model` or `tflite`.
        sha256: Hash of the file, or of the folder's file names and contents.
        bytes: Size.
    """

    format: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the model file.

    Attributes:
        name: The author's name (signature), any text.
        tensor_name: Name in the file, any text.
        shape: Static shape.
        dtype: TFLite type, for example `INT8`.
        scale: real = scale * (value - zero_point); 0.0 for a tensor without quantization.
        zero_point: 0 for a tensor without quantization.
        labels: One text per class: per value of the last dimension, or of the axis of an ARG_MAX that the loader
            performs; empty when there are none.
        preprocessing: JSON-serializable description of how the author's pipeline computes the values.
        tail: Postprocessing steps that the loader performs on the real values of an output, in order.
    """

    name: str
    tensor_name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] | None = None
    tail: tuple[PostprocessStep, ...] = ()

    @property
    def quantized(self) -> bool:
        """True when the values are integers that stand for real numbers."""
        return self.scale != 0.0

    @property
    def finished_shape(self) -> tuple[int, ...]:
        """Shape of the loader's result."""
        return self.tail[-1].shape if self.tail else self.shape

    @property
    def finished_dtype(self) -> str:
        """TFLite type of the loader's result; without postprocessing the file's own, which loaders may dequantize."""
        return self.tail[-1].dtype if self.tail else self.dtype


def tensor_spec(
    info: TensorInfo,
    *,
    labels: tuple[str, ...] = (),
    preprocessing: Mapping[str, Any] | None = None,
    tail: Sequence[PostprocessStep] = (),
) -> TensorSpec:
    """Return the spec of a tensor from the runtime's description.

    Args:
        info: The tensor.
        labels: As in `TensorSpec`.
        preprocessing: As in `TensorSpec`.
        tail: Steps that were cut off the model. DEQUANTIZE is left out: loaders return every quantized output as real
            values anyway.
    """
    return TensorSpec(
        name=info.name,
        tensor_name=info.tensor_name,
        shape=tuple(info.shape),
        dtype=info.tflite_dtype,
        scale=info.scale,
        zero_point=info.zero_point,
        labels=labels,
        preprocessing=preprocessing,
        tail=tuple(step for step in tail if step.op != "DEQUANTIZE"),
    )


@dataclass(frozen=True)
class ModelFile:
    """A file of the bundle's model/ folder.

    Attributes:
        role: `main` (runs anywhere, nothing was compiled), `host` (the fallback of a compiled file), `compiled`,
            `segment` (one of several that run in this order) or `co-compiled` (of another model, which shares the
            accelerator's memory with this one).
        filename: Name without folder: letters, digits, dot, dash and underscore.
        data: The file's bytes.
    """

    role: str
    filename: str
    data: bytes


@dataclass(frozen=True, eq=False)
class GoldenCase:
    """Inputs of one run and the outputs of the host model.

    Attributes:
        inputs: One array per input in file order, in the file's own dtype and shape.
        outputs: The same for outputs.
    """

    inputs: tuple[npt.NDArray[Any], ...]
    outputs: tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, eq=False)
class SimulatedGolden:
    """Outputs of a file that was compiled for a chip, on the simulator of its accelerator, for the golden inputs.

    Attributes:
        chip: The SoC (`SM8550`), as Android's `Build.SOC_MODEL` reports it.
        simulator: Name of the simulator.
        version: Its version.
        outputs: One array per output of each case.
        steps: Largest difference from the CPU that was measured, over all samples, in scale steps.
        relative: The same for float outputs, as a fraction of the largest expected magnitude.
    """

    chip: str
    simulator: str
    version: str
    outputs: tuple[tuple[npt.NDArray[Any], ...], ...]
    steps: int = 0
    relative: float = 0.0


@dataclass(frozen=True, eq=False)
class Golden:
    """Golden vectors and where they were computed: integers are exact on the same processor and runtime version only.

    Attributes:
        machine: Processor architecture, for example `x86_64`.
        runtime: Name and version, for example `ai-edge-litert 2.3.1`.
        cases: The vectors.
        spread_steps: Largest difference between the runtime's default kernels and its built-in ones on these vectors,
            in scale steps of a quantized output.
        spread_relative: The same for float outputs, as a fraction of the largest expected magnitude.
        simulated: Outputs on simulated accelerators, by chip; empty where nothing was simulated.
    """

    machine: str
    runtime: str
    cases: tuple[GoldenCase, ...]
    spread_steps: int = 0
    spread_relative: float = 0.0
    simulated: tuple[SimulatedGolden, ...] = ()


@dataclass(frozen=True)
class CompileSpec:
    """Outcome of the vendor's compiler.

    Attributes:
        status: `compiled`, `skipped`, `failed` or `none` (the target has no compiler).
        tool: Name of the program, empty when there is none.
        version: Its version.
        reason: Why nothing was compiled, one sentence.
        runtime_version: Version of libedgetpu's runtime that the files require; 0 to derive it from `version`.
    """

    status: str = "none"
    tool: str = ""
    version: str = ""
    reason: str = ""
    runtime_version: int = 0


@dataclass(frozen=True)
class CalibrationSpec:
    """How the ranges of activations were calibrated.

    Attributes:
        samples: Number of samples.
        random: True when the samples were random numbers.
        method: `min-max`, `percentile`, ...
    """

    samples: int
    random: bool
    method: str


@dataclass(frozen=True)
class CheckedFor:
    """For which version of the target the placement was checked.

    Attributes:
        variant: Variant of the profile; empty for the default.
        soc: The chip; empty for none.
        runtime_version: The runtime version; None for the newest.
    """

    variant: str = ""
    soc: str = ""
    runtime_version: int | None = None


@dataclass(frozen=True)
class BundleSpec:
    """A bundle.

    Attributes:
        name: The model's name as the user gave it, any text.
        version: edgepack's version.
        profile: The target.
        scheme: Scheme id.
        scheme_reason: Why this scheme was chosen, one sentence.
        source: The user's model.
        inputs: In file order.
        outputs: In file order.
        models: The files of model/; exactly one has the role `main` or `host`.
        runs: Filename of the file that runs by default.
        golden: Vectors computed with the `main` or `host` file.
        compile: Outcome of the compiler.
        quality: Measured figures, None when nothing was measured.
        simulation: Compiled files on the simulated accelerator, as JSON; empty where nothing was simulated.
        ladder: Trials of a build with limits: per candidate `rung` (its name), `bytes`, `top1`, `why` (reason of the
            rejection) and more; empty for a build without limits.
        placement: `total`, `accelerator`, `host`, `unsupported`, `partitions`.
        latency: Estimated latency on the accelerator (`LatencyEstimate.to_json`), None without an estimate.
        calibration: None for schemes that need no samples.
        warnings: Sentences that every user of the bundle must read.
        notes: Further information, in sentences.
        android_package: Prefix of the Java package, to which the model's name is appended.
        platform: `android` or `linux` instead of the profile's own; only for a target without accelerator.
        language: Language of the Android loader: `kotlin`, `java` or one that a package provides.
        delivery: `module`, `ai-pack` or `aar`: how an Android bundle reaches the app.
        runtime: `litert1` or `litert2` where the build requested one, empty for what the bundle needs.
        sample_app: True when the Android project has an app that shows the model on the camera.
        socs: Chips (`SM8550`) for which an AI pack has a folder.
        signature_order: True when the model's first signature lists inputs and outputs in the model's order, or when it
            has none: LiteRT's CompiledModel numbers them by signature.
        classes: The compiled Android loader as a .jar for `delivery = "aar"`, None when it could not be compiled.
        checked: What `placement` holds for.
        single_precision: True when the loader asks a GPU for single precision, because values exceed half precision.
        signed_with: `key` or `sigstore` for a bundle that is signed when it is written, empty for one that is not.
        state: Where the model keeps a state from run to run: `variable-tensors`, `resource-variables`, or empty.
        task: What the outputs mean, None when it is unknown.
        task_labels: Names of the task's classes or key points, in the order of their numbers; empty without names.
    """

    name: str
    version: str
    profile: TargetProfile
    scheme: str
    scheme_reason: str
    source: SourceSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    models: tuple[ModelFile, ...]
    runs: str
    golden: Golden
    compile: CompileSpec = CompileSpec()
    quality: Mapping[str, Any] | None = None
    simulation: tuple[Mapping[str, Any], ...] = ()
    ladder: tuple[Mapping[str, Any], ...] = ()
    placement: Mapping[str, Any] | None = None
    latency: Mapping[str, Any] | None = None
    calibration: CalibrationSpec | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    android_package: str = "com.example"
    platform: str = ""
    language: str = "kotlin"
    delivery: str = "module"
    runtime: str = ""
    sample_app: bool = False
    socs: tuple[str, ...] = ()
    signature_order: bool = True
    classes: bytes | None = None
    checked: CheckedFor = CheckedFor()
    signed_with: str = ""
    single_precision: bool = False
    state: str = ""
    task: TaskSpec | None = None
    task_labels: tuple[str, ...] = ()

    @property
    def rule(self) -> BundleRule:
        """The profile's bundle rule, with the template of `platform`.

        Raises:
            BundleError: The platform is unknown, or the target's accelerator is not on it.
        """
        own = self.profile.bundle
        if self.platform in {"", own.template}:
            return own
        if self.platform not in PLATFORMS:
            raise BundleError(f"platform: expected {' or '.join(PLATFORMS)}, got '{self.platform}'")
        if own.delegate != Delegate.NONE:
            raise BundleError(
                f"target '{self.profile.id}' has no bundle for {self.platform}: its accelerator runs on {own.template}",
                hint=f"omit --platform, or build the target cpu for {self.platform}",
            )
        return replace(own, template=self.platform)

    @property
    def host(self) -> ModelFile:
        """The file that runs without an accelerator: `main` or `host`."""
        return next(model for model in self.models if model.role in {"main", "host"})

    @property
    def compiled(self) -> ModelFile | None:
        """The first compiled file, None when nothing was compiled."""
        return next((model for model in self.models if model.role in {"compiled", "segment"}), None)

    @property
    def segments(self) -> tuple[ModelFile, ...]:
        """The pipelined segments in order; empty for a model in one piece."""
        return self.of_role("segment")

    def of_role(self, role: str) -> tuple[ModelFile, ...]:
        """The files of a role, in order."""
        return tuple(model for model in self.models if model.role == role)


def element_count(shape: tuple[int, ...]) -> int:
    """Return the number of values of a shape, 1 for a scalar."""
    return int(np.prod(shape, dtype=np.int64))
