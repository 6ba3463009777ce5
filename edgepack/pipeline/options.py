"""What a user can ask of a build or a check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Called with one sentence about what is being done; the command line shows it on stderr.
Progress = Callable[[str], None]


def silent(message: str) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class ModelOptions:
    """How the model is read.

    Attributes:
        input_shapes: Shapes for inputs whose dimensions are open, by input name.
        signature: Signature of a SavedModel; empty for `serving_default`.
        allow_code: Run Lambda layers, custom classes and file-touching ops of the model.
        timeout: Seconds the conversion may take.
        cache: Use and fill the cache.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    signature: str = ""
    allow_code: bool = False
    timeout: float = 900.0
    cache: bool = True


@dataclass(frozen=True)
class TargetOptions:
    """How a target is understood.

    Attributes:
        variant: Variant of the profile; empty for its default.
        socs: Chips to compile for; the first one selects the variant.
        runtime_version: Runtime version the op table is held against, None for the newest.
        require_full: Refuse a model of which an op stays on the host.
        repair: `exact`, `approximate` or `none`: which rewrites of refused ops are done.
        cut_tail: Leave refused last steps (ARG_MAX, SOFTMAX, DEQUANTIZE) to the loader.
    """

    variant: str = ""
    socs: tuple[str, ...] = ()
    runtime_version: int | None = None
    require_full: bool = False
    repair: str = "exact"
    cut_tail: bool = False

    @property
    def soc(self) -> str:
        """The chip that selects the variant, empty for none."""
        return self.socs[0] if self.socs else ""


@dataclass(frozen=True)
class Limits:
    """What a file has to hold.

    Attributes:
        drop: Percentage points of top-1 (without labels of agreement) that may be lost, None for any.
        size: Bytes of the file, None for any.
        download: Bytes of the file compressed with gzip, level 9, None for any.
    """

    drop: float | None = None
    size: int | None = None
    download: int | None = None

    def __bool__(self) -> bool:
        """True when there is a limit."""
        return (self.drop, self.size, self.download) != (None, None, None)

    def __str__(self) -> str:
        """Return them as the options they come from."""
        given = []
        if self.drop is not None:
            given.append(f"--max-drop {self.drop:g}")
        if self.size is not None:
            given.append(f"--max-size {self.size}")
        if self.download is not None:
            given.append(f"--max-download {self.download}")
        return " ".join(given)


@dataclass(frozen=True)
class BuildOptions:
    """Everything `build` can be asked.

    Attributes:
        model: How the model is read.
        target: How targets are understood.
        out: Folder the bundles go to.
        name: Name of the bundles; empty for the model's own.
        scheme: Scheme id or `auto`.
        samples: Source of representative samples, empty for none.
        train: Source of labelled training samples, empty for none; they calibrate as well when `samples` is empty.
        per_tensor: One scale for each weight tensor instead of one per channel.
        epochs: Epochs of training, 0 for the default.
        eval: Source of (labelled) evaluation samples, empty for none.
        labels: File with one class name per line.
        metadata: A model.toml with names, descriptions, pixel normalisation and labels.
        preprocess: `MEAN,STD` of pixels; empty for what the model's own metadata says, else the default.
        random_calibration: Calibrate on random numbers when there are no samples; the manifest says so.
        calibration_samples: At most so many samples are calibrated on.
        method: How ranges are chosen; empty for the default.
        effort: `low` (seconds), `medium` or `high`: how much is done for the accuracy of int8.
        max_drop: Percentage points of accuracy that may be lost, None for any.
        max_size: Bytes that the .tflite may have, None for any.
        max_download: Bytes that it may have compressed with gzip, level 9, None for any.
        compile: `auto`, `require` or `never`.
        compile_timeout: Seconds the vendor's compiler may take.
        segments: Parts to cut the compiled model into, one per accelerator; 0 for the model as a whole.
        co_compile: Models to compile together with this one: quantized .tflite files or bundles.
        package: Package name of Android code; empty for one made from the name.
        language: `kotlin` or `java`: the Android loader's language.
        delivery: `module`, `ai-pack` or `aar`: how an Android bundle reaches the app.
        platform: `android` or `linux` in place of the target's own bundle; only for targets without accelerator.
        dry_run: Do everything but write bundles.
        force: Replace an existing bundle.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    target: TargetOptions = field(default_factory=TargetOptions)
    out: Path = Path()
    name: str = ""
    scheme: str = "auto"
    samples: str = ""
    train: str = ""
    per_tensor: bool = False
    epochs: int = 0
    eval: str = ""
    labels: Path | None = None
    metadata: Path | None = None
    preprocess: str = ""
    random_calibration: bool = False
    calibration_samples: int = 500
    method: str = ""
    effort: str = "low"
    max_drop: float | None = None
    max_size: int | None = None
    max_download: int | None = None
    compile: str = "auto"
    compile_timeout: float = 600.0
    segments: int = 0
    co_compile: tuple[Path, ...] = ()
    package: str = ""
    language: str = "kotlin"
    platform: str = ""
    delivery: str = "module"
    dry_run: bool = False
    force: bool = False

    @property
    def limits(self) -> Limits:
        """What the file has to hold; with any of them a build climbs the ladder."""
        return Limits(self.max_drop, self.max_size, self.max_download)
