"""Options of a build and of a check.

An option with a fixed set of values is an enum of `edgepack.choices`. Callers may pass its text, `effort="high"`: it is
converted when the options are created, and a text that names no value raises `UsageError`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.bundle.signers import Signer
from edgepack.choices import (
    AndroidRuntime,
    CompilePolicy,
    Delivery,
    Effort,
    Language,
    Platform,
    RangeMethod,
    Repair,
    Resize,
    SchemeChoice,
    parse_choice,
    parse_optional,
)
from edgepack.limits import TARGET_SECONDS

if TYPE_CHECKING:
    from edgepack.samples import SampleSource

#: Receives one sentence about the current step; the command line shows it on stderr.
Progress = Callable[[str], None]


def silent(message: str) -> None:
    """Ignore a progress message."""


@dataclass(frozen=True)
class ModelOptions:
    """How the model is read.

    Attributes:
        input_shapes: Shapes for inputs with unknown dimensions, by input name.
        signature: Signature of a SavedModel; empty for `serving_default`.
        allow_code: Run Lambda layers, custom classes and ops of the model that access files.
        timeout: Time limit in seconds of the conversion, and then of each target.
        cache: Read from and write to the cache.
        cache_url: URL of a cache that several machines share, `off` for none; empty for EDGEPACK_CACHE_URL.
        memory_limit: Bytes that each child process may hold; None for `limits.default_memory()`.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    signature: str = ""
    allow_code: bool = False
    timeout: float = TARGET_SECONDS
    cache: bool = True
    cache_url: str = ""
    memory_limit: int | None = None


@dataclass(frozen=True)
class TargetOptions:
    """Which version of a target is meant, and how far a model may be rewritten for it.

    Attributes:
        variant: Variant of the profile; empty for its default.
        socs: Chips to compile for; the first one selects the variant.
        runtime_version: Runtime version whose op versions are checked, None for the newest.
        require_full: Refuse a model with an op that stays on the host.
        repair: Which rewrites of unsupported ops are applied.
        cut_tail: Move unsupported final ops (ARG_MAX, SOFTMAX, DEQUANTIZE) into the loader as postprocessing.

    Raises:
        UsageError: `repair` is not a value of `Repair`.
    """

    variant: str = ""
    socs: tuple[str, ...] = ()
    runtime_version: int | None = None
    require_full: bool = False
    repair: Repair = Repair.EXACT
    cut_tail: bool = False

    def __post_init__(self) -> None:
        """Convert texts to enums; `object.__setattr__` because the class is frozen."""
        object.__setattr__(self, "repair", parse_choice("--repair", Repair, self.repair))

    @property
    def soc(self) -> str:
        """The chip that selects the variant, empty for none."""
        return self.socs[0] if self.socs else ""


@dataclass(frozen=True)
class Limits:
    """Limits on the model file of a build.

    Attributes:
        drop: Largest loss of top-1 accuracy in percentage points (of agreement where there are no labels), None for
            no limit.
        size: Largest size of the file in bytes, None for no limit.
        download: Largest size of the file in bytes after gzip, level 9, None for no limit.
    """

    drop: float | None = None
    size: int | None = None
    download: int | None = None

    def __bool__(self) -> bool:
        """Return True when there is a limit."""
        return (self.drop, self.size, self.download) != (None, None, None)

    def __str__(self) -> str:
        """Return the limits as command line options."""
        words = []
        if self.drop is not None:
            words.append(f"--max-drop {self.drop:g}")
        if self.size is not None:
            words.append(f"--max-size {self.size}")
        if self.download is not None:
            words.append(f"--max-download {self.download}")
        return " ".join(words)


@dataclass(frozen=True)
class BuildOptions:
    """Options of `build`.

    Attributes:
        model: How the model is read.
        target: Which version of the targets is meant, and how far the model may be rewritten for them.
        out: Folder that bundles are written to.
        name: Name of the bundles; empty for the model's own.
        scheme: Quantization scheme; `auto` for the first that the target and the data allow.
        samples: Source of representative samples, empty for none.
        train: Source of labelled training samples, empty for none; also used for calibration when `samples` is empty.
        per_tensor: Quantize each weight tensor with one scale instead of one per channel.
        epochs: Epochs of training, 0 for the recipe's default.
        eval: Source of evaluation samples, with labels or without, empty for none.
        labels: Text file with one class name per line.
        metadata: A model.toml with names, descriptions, pixel normalization and labels.
        preprocess: `MEAN,STD` of pixels; empty for what the model's metadata says, else the default.
        resize: How an image gets the size of an input, for samples and in the loaders.
        task: What the outputs mean (`edgepack.tasks.parse`); empty for what can be recognized.
        random_calibration: Calibrate on random numbers when there are no samples; the manifest records it.
        calibration_samples: Largest number of samples used for calibration.
        method: How activation ranges are chosen; None for the one that loses least.
        effort: How much time is spent on the accuracy of int8; `low` takes seconds.
        max_drop: Largest loss of accuracy in percentage points, None for no limit.
        strict: Refuse a file that loses accuracy or is likely unusable, and one that could not be measured.
        max_size: Largest size of the .tflite in bytes, None for no limit.
        max_download: Largest size of the .tflite in bytes after gzip, level 9, None for no limit.
        compile: Whether the vendor's compiler runs.
        compile_timeout: Time limit of the vendor's compiler in seconds.
        simulate: Run the compiled files on the simulator of the vendor's accelerator.
        simulate_seconds: About how long the simulation of one file may take, in seconds: it decides how many samples
            are run.
        segments: Number of pipelined segments that the compiled model is split into, one per accelerator; 0 for one
            file.
        co_compile: Models compiled together with this one: quantized .tflite files or bundles.
        package: Package name of the Android code; empty for one derived from the name.
        language: Language of the Android loader.
        delivery: How an Android bundle reaches the app.
        runtime: LiteRT that the Android loader is written for, None for the one that the target needs.
        sample_app: Add an app to the Android project that shows the model on the camera.
        platform: Operating system of the bundle in place of the target's own, None to keep it; only for targets
            without an accelerator.
        dry_run: Run every stage but write no bundle.
        force: Replace an existing bundle, unless it contains files that are not in its manifest.
        sign: Sign the bundles with an identity of Sigstore.
        sign_key: Sign the bundles with the private key in this file (PEM, an elliptic curve) instead.

    Raises:
        UsageError: A text that is not a value of its enum.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    target: TargetOptions = field(default_factory=TargetOptions)
    out: Path = Path()
    name: str = ""
    scheme: SchemeChoice = SchemeChoice.AUTO
    samples: "SampleSource" = ""
    train: "SampleSource" = ""
    per_tensor: bool = False
    epochs: int = 0
    eval: "SampleSource" = ""
    labels: Path | None = None
    metadata: Path | None = None
    preprocess: str = ""
    resize: Resize = Resize.STRETCH
    task: str = ""
    random_calibration: bool = False
    calibration_samples: int = 500
    method: RangeMethod | None = None
    effort: Effort = Effort.LOW
    max_drop: float | None = None
    strict: bool = False
    max_size: int | None = None
    max_download: int | None = None
    compile: CompilePolicy = CompilePolicy.AUTO
    compile_timeout: float = 600.0
    simulate: bool = False
    simulate_seconds: float = 60.0
    segments: int = 0
    co_compile: tuple[Path, ...] = ()
    package: str = ""
    language: Language = Language.KOTLIN
    platform: Platform | None = None
    delivery: Delivery = Delivery.MODULE
    runtime: AndroidRuntime | None = None
    sample_app: bool = False
    dry_run: bool = False
    force: bool = False
    sign: bool = False
    sign_key: Path | None = None

    def __post_init__(self) -> None:
        """Convert texts to enums; `object.__setattr__` because the class is frozen."""
        for name, value in {
            "scheme": parse_choice("--scheme", SchemeChoice, self.scheme),
            "resize": parse_choice("--resize", Resize, self.resize),
            "method": parse_optional("--ranges", RangeMethod, self.method),
            "effort": parse_choice("--effort", Effort, self.effort),
            "compile": parse_choice("--compile", CompilePolicy, self.compile),
            "language": parse_choice("--language", Language, self.language),
            "platform": parse_optional("--platform", Platform, self.platform),
            "delivery": parse_choice("--delivery", Delivery, self.delivery),
            "runtime": parse_optional("--runtime", AndroidRuntime, self.runtime),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def signer(self) -> Signer | None:
        """How the bundles are signed, None for unsigned ones."""
        return Signer(self.sign_key) if self.sign or self.sign_key is not None else None

    @property
    def limits(self) -> Limits:
        """Limits on the model file; with any limit, the build tries further candidates until one meets it."""
        return Limits(self.max_drop, self.max_size, self.max_download)
