"""What a bundle is made from, as values. Everything a bundle says is in here; rendering adds nothing of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import BundleError
from edgepack.profiles.model import BundleRule, TargetProfile
from edgepack.runtime import TensorInfo
from edgepack.runtime.postprocessing import PostprocessStep

#: Templates that a target without accelerator may be moved to.
PLATFORMS = ("android", "linux")


@dataclass(frozen=True)
class SourceSpec:
    """The user's model.

    Attributes:
        format: `keras`, `h5`, `saved_model` or `tflite`.
        sha256: Hash of the file, or of the folder's names and contents.
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
        dtype: TFLite type, `INT8` say.
        scale: real = scale * (value - zero_point); 0.0 for a tensor without quantization.
        zero_point: 0 for a tensor without quantization.
        labels: One text per class: per value of the last dimension, or of the axis of an ARG_MAX that the loader does;
            empty when there are none.
        preprocessing: JSON-serializable description of how the author's pipeline made the values.
        tail: What the loader does to the real values of an output before the user gets them, in order.
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
        """Shape of what the user gets."""
        return self.tail[-1].shape if self.tail else self.shape

    @property
    def finished_dtype(self) -> str:
        """TFLite type of what the user gets; the file's own without a tail, where integers become real numbers."""
        return self.tail[-1].dtype if self.tail else self.dtype


def tensor_spec(
    info: TensorInfo,
    *,
    labels: tuple[str, ...] = (),
    preprocessing: Mapping[str, Any] | None = None,
    tail: Sequence[PostprocessStep] = (),
) -> TensorSpec:
    """Return the spec of a tensor that the runtime described.

    Args:
        info: The tensor.
        labels: As in `TensorSpec`.
        preprocessing: As in `TensorSpec`.
        tail: Steps that were cut off. DEQUANTIZE is none of the spec's: loaders give every quantized output as real
            values.
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
            `segment` (one of several that are run in this order) or `co-compiled` (of another model, which shares the
            accelerator's memory with this one).
        filename: Name without folder, made of letters, digits, dot, dash and underscore.
        data: The file.
    """

    role: str
    filename: str
    data: bytes


@dataclass(frozen=True, eq=False)
class GoldenCase:
    """One input and what the host model makes of it.

    Attributes:
        inputs: One array per input in file order, in the file's own dtype and shape.
        outputs: The same for outputs.
    """

    inputs: tuple[npt.NDArray[Any], ...]
    outputs: tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, eq=False)
class Golden:
    """Golden vectors and where they were made: integer results are only exact on the same kind of machine and runtime.

    Attributes:
        machine: Processor kind, `x86_64` say.
        runtime: `ai-edge-litert 2.3.1` say.
        cases: The vectors.
        spread_steps: Largest difference between the runtime's default kernels and its built-in ones on these vectors,
            in steps of a quantized output.
        spread_relative: The same for float outputs, as a part of the largest magnitude expected.
    """

    machine: str
    runtime: str
    cases: tuple[GoldenCase, ...]
    spread_steps: int = 0
    spread_relative: float = 0.0


@dataclass(frozen=True)
class CompileSpec:
    """What the vendor's compiler did.

    Attributes:
        status: `compiled`, `skipped`, `failed` or `none` (the target has no compiler).
        tool: Name of the program, empty when there is none.
        version: Its version.
        reason: Why nothing was compiled, one sentence.
        runtime_version: Version of libedgetpu's runtime that the files need; 0 when only the compiler's version tells.
    """

    status: str = "none"
    tool: str = ""
    version: str = ""
    reason: str = ""
    runtime_version: int = 0


@dataclass(frozen=True)
class CalibrationSpec:
    """What the ranges were measured on.

    Attributes:
        samples: How many samples.
        random: True when they were random numbers.
        method: `min-max`, `percentile`, ...
    """

    samples: int
    random: bool
    method: str


@dataclass(frozen=True)
class BundleSpec:
    """A bundle.

    Attributes:
        name: The model's name as the user gave it, any text.
        version: edgepack's version.
        profile: The target.
        scheme: Scheme id.
        scheme_reason: One sentence that says why this scheme.
        source: The user's model.
        inputs: In file order.
        outputs: In file order.
        models: The files of model/; exactly one has the role `main` or `host`.
        runs: Filename of the file that runs by default.
        golden: Vectors made with the `main` or `host` file.
        compile: What the compiler did.
        quality: Measured figures, None when nothing was measured.
        ladder: What was tried until the limits held: `rung`, `bytes`, `top1`, `why` and more of each; empty for a build
            without limits.
        placement: `total`, `accelerator`, `host`, `unsupported`, `partitions`.
        calibration: None for schemes that need no samples.
        warnings: Sentences that the user of the bundle has to know.
        notes: Sentences worth knowing.
        android_package: Prefix of the Java package; the model's name is added to it.
        platform: `android` or `linux` in place of the profile's own; only a target without accelerator can be moved.
        language: `kotlin` or `java`: language of the Android loader.
        delivery: `module`, `ai-pack` or `aar`: how an Android bundle reaches the app.
        socs: Chips (`SM8550`) that an AI pack has a folder for.
        classes: The compiled Android loader as a .jar for `delivery = "aar"`, None when it could not be compiled.
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
    ladder: tuple[Mapping[str, Any], ...] = ()
    placement: Mapping[str, Any] | None = None
    calibration: CalibrationSpec | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    android_package: str = "com.example"
    platform: str = ""
    language: str = "kotlin"
    delivery: str = "module"
    socs: tuple[str, ...] = ()
    classes: bytes | None = None

    @property
    def rule(self) -> BundleRule:
        """The profile's bundle rule, moved to `platform`.

        Raises:
            BundleError: The platform is unknown, or the target's accelerator is not on it.
        """
        own = self.profile.bundle
        if self.platform in {"", own.template}:
            return own
        if self.platform not in PLATFORMS:
            raise BundleError(f"platform: expected {' or '.join(PLATFORMS)}, got '{self.platform}'")
        if own.delegate != "none":
            raise BundleError(
                f"target '{self.profile.id}' has no bundle for {self.platform}: its accelerator is for {own.template}",
                hint=f"leave --platform out, or build the target cpu for {self.platform}",
            )
        return replace(own, template=self.platform)

    @property
    def host(self) -> ModelFile:
        """The file that runs without an accelerator."""
        return next(model for model in self.models if model.role in {"main", "host"})

    @property
    def compiled(self) -> ModelFile | None:
        """The first compiled file, None when nothing was compiled."""
        return next((model for model in self.models if model.role in {"compiled", "segment"}), None)

    @property
    def segments(self) -> tuple[ModelFile, ...]:
        """The files that are run one after the other, in order; empty for a model as a whole."""
        return self.of_role("segment")

    def of_role(self, role: str) -> tuple[ModelFile, ...]:
        """The files of a role, in order."""
        return tuple(model for model in self.models if model.role == role)


def element_count(shape: tuple[int, ...]) -> int:
    """Return how many values a shape holds, 1 for a scalar."""
    return int(np.prod(shape, dtype=np.int64))
