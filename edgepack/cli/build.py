"""`edgepack build`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgepack.choices import CompilePolicy, Delivery, Effort, Language, Platform, RangeMethod, Repair, SchemeChoice
from edgepack.cli import arguments, output

if TYPE_CHECKING:
    from edgepack.pipeline.results import BuildResult, TargetResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("build")(build)


def build(
    model: Path = arguments.MODEL,
    target: list[str] = arguments.TARGET,
    out: Path = typer.Option(
        Path(), "-o", "--out", help="Folder the bundles go to.", show_default="the current folder"
    ),
    name: str = typer.Option("", "--name", help="Name of the bundles.", show_default="the model's"),
    scheme: SchemeChoice = typer.Option(SchemeChoice.AUTO, "--scheme", help="Quantization scheme, or auto."),
    samples: str = typer.Option(
        "",
        "--samples",
        help="Representative samples: .npz, .npy, a folder of images, module:function.",
        show_default=False,
    ),
    train: str = typer.Option("", "--train", help="Labelled samples to train on, for int8-qat.", show_default=False),
    epochs: int = typer.Option(0, "--epochs", help="Epochs of training.", min=0, show_default="the recipe's"),
    evaluation: str = typer.Option(
        "", "--eval", help="Samples with labels to measure accuracy on, in the same forms.", show_default=False
    ),
    labels: Path | None = typer.Option(
        None, "--labels", help="Text file with one class name per line.", show_default=False
    ),
    metadata: Path | None = typer.Option(
        None, "--metadata", help="A model.toml: names, descriptions, pixels, labels.", show_default=False
    ),
    preprocess: str = typer.Option(
        "",
        "--preprocess",
        help="MEAN,STD of pixels: input = (pixel - MEAN) / STD.",
        show_default="the model's, or 0,255",
    ),
    max_drop: float | None = typer.Option(
        None,
        "--max-drop",
        help="Percentage points of accuracy that may be lost; more is exit 8.",
        min=0.0,
        show_default=False,
    ),
    max_size: str = typer.Option(
        "", "--max-size", help="Bytes the .tflite may have: 500KB, 1MB, 1MiB; more is exit 8.", show_default=False
    ),
    max_download: str = typer.Option(
        "", "--max-download", help="The same, compressed with gzip as a download is.", show_default=False
    ),
    compile_: CompilePolicy = typer.Option(CompilePolicy.AUTO, "--compile", help="When the vendor's compiler runs."),
    compile_timeout: float = typer.Option(
        600.0, "--compile-timeout", help="Seconds the vendor's compiler may take.", min=1.0
    ),
    segments: int = typer.Option(
        0,
        "--segments",
        help="Cut the model for so many Edge TPUs, which run it one after the other.",
        show_default=False,
    ),
    co_compile: list[Path] = typer.Option(
        [],
        "--co-compile",
        help="Another int8 .tflite or bundle that shares the Edge TPU's memory; repeatable.",
        show_default=False,
    ),
    ranges: RangeMethod | None = typer.Option(
        None, "--ranges", help="How activation ranges are chosen.", show_default="the one that loses least"
    ),
    per_tensor: bool = typer.Option(
        False, "--per-tensor", help="One scale for each weight tensor instead of one per channel."
    ),
    effort: Effort = typer.Option(Effort.LOW, "--effort", help="Time spent on the accuracy of int8."),
    random_calibration: bool = typer.Option(
        False, "--random-calibration", help="Calibrate on random numbers; the bundle says so."
    ),
    calibration_samples: int = typer.Option(
        500, "--calibration-samples", help="Calibrate on at most so many samples.", min=1
    ),
    package: str = typer.Option(
        "", "--package", help="Package of the Android code, com.example.app.", show_default=False
    ),
    language: Language = typer.Option(Language.KOTLIN, "--language", help="Language of the Android loader."),
    platform: Platform | None = typer.Option(
        None, "--platform", help="Operating system of a CPU target's bundle.", show_default="the target's"
    ),
    delivery: Delivery = typer.Option(Delivery.MODULE, "--delivery", help="How an Android bundle reaches the app."),
    require_full: bool = arguments.REQUIRE_FULL,
    dry_run: bool = typer.Option(False, "--dry-run", help="Do everything but write bundles."),
    force: bool = typer.Option(False, "--force", help="Replace an existing bundle."),
    input_shape: list[str] = arguments.INPUT_SHAPE,
    signature: str = arguments.SIGNATURE,
    allow_code: bool = arguments.ALLOW_CODE,
    variant: str = arguments.VARIANT,
    soc: list[str] = arguments.SOC,
    runtime_version: int = arguments.RUNTIME_VERSION,
    repair: Repair = arguments.REPAIR,
    cut_tail: bool = arguments.CUT_TAIL,
    timeout: float = arguments.TIMEOUT,
    no_cache: bool = arguments.NO_CACHE,
    json_: bool = arguments.JSON,
) -> int:
    """Convert, quantize, check, compile, measure and bundle a model for one or more targets."""
    from edgepack.pipeline.build import build
    from edgepack.pipeline.options import BuildOptions

    options = BuildOptions(
        model=arguments.model_options(input_shape, signature, allow_code, timeout, no_cache),
        target=arguments.target_options(variant, soc, runtime_version, require_full, repair, cut_tail),
        out=out,
        name=name,
        scheme=scheme,
        samples=samples,
        train=train,
        epochs=epochs,
        eval=evaluation,
        labels=labels,
        metadata=metadata,
        preprocess=preprocess,
        random_calibration=random_calibration,
        calibration_samples=calibration_samples,
        method=ranges,
        per_tensor=per_tensor,
        effort=effort,
        max_drop=max_drop,
        max_size=arguments.size("--max-size", max_size),
        max_download=arguments.size("--max-download", max_download),
        compile=compile_,
        compile_timeout=compile_timeout,
        segments=segments,
        co_compile=tuple(arguments.need_path(path) for path in co_compile),
        package=package,
        language=language,
        platform=platform,
        delivery=delivery,
        dry_run=dry_run,
        force=force,
    )
    result = build(
        arguments.need_path(model),
        arguments.need_targets(target),
        options,
        output.progress if not json_ else lambda _: None,
        (lambda line: output.err(output.wrap(line))) if not json_ else lambda _: None,
    )
    if json_:
        output.document(
            "build", [r.to_json() for r in result.results], result.error, notes=result.notes, source=result.source
        )
    else:
        _print(result)
    return result.error.exit_code if result.error else 0


def _print(result: "BuildResult") -> None:
    output.out(_table(result.results))
    output.out()
    for entry in result.results:
        if entry.reason:
            output.out(output.wrap(f"{entry.target}: {entry.reason}"))
        for rewrite in entry.repairs:
            output.out(output.wrap(f"  repaired: {rewrite.message} ({_moved(rewrite.moved_ops)})", "    "))
        for step in entry.tail:
            output.out(output.wrap(f"  left to the loader: {step.message}", "    "))
    for note in result.notes:
        output.warn(note)
    for entry in result.results:
        for warning in entry.warnings:
            output.warn(f"{entry.target}: {warning}")
    for entry in result.results:
        if entry.error is not None:
            output.err(f"{entry.target}:")
            output.error(entry.error)


def _moved(count: int) -> str:
    return f"{count} more op{'' if count == 1 else 's'} on the accelerator"


def _table(results: Sequence["TargetResult"]) -> str:
    """Return the table of a build; each bundle's path stands under its row, because paths are long."""
    header = ["target", "scheme", "size", "accel", "host", "top-1", "SNR dB"]
    rows = [_row(entry) for entry in results]
    # The model ends in SOFTMAX: what stands before it says more.
    logits = [None if entry.quality is None else entry.quality.logits_snr_db for entry in results]
    if any(logits):
        header[-1:] = ["SNR", "logits"]
        rows = [(*row, "-" if value is None else f"{value:.1f}") for row, value in zip(rows, logits, strict=True)]
    lines = output.table(header, rows, right=range(2, len(header))).splitlines()
    text = lines[:2]
    for entry, line in zip(results, lines[2:], strict=True):
        text.append(line)
        if entry.error is not None:
            text.append(f"  failed: {entry.error.kind}, exit code {entry.error.exit_code} (see below)")
        elif entry.bundle is not None:
            text.append(f"  {entry.bundle}")
        else:
            text.append("  dry run: nothing written")
    return "\n".join(text)


def _row(entry: "TargetResult") -> tuple[str, ...]:
    summary = None if entry.report is None else entry.report.summary
    quality = entry.quality
    top1 = "-"
    if quality is not None and quality.top1 is not None:
        before = "" if quality.top1_float is None else f"{quality.top1_float:.2f} -> "
        top1 = f"{before}{quality.top1:.2f}"
    equal = quality is not None and quality.snr_db is None and quality.agreement == 100.0
    return (
        entry.target,
        entry.scheme or "-",
        "-" if entry.model is None else output.change(entry.float_bytes, len(entry.model)),
        "-" if summary is None else str(summary["accelerator"]),
        "-" if summary is None else str(summary["host"] + summary["unsupported"]),
        top1,
        "equal" if equal else "-" if quality is None or quality.snr_db is None else f"{quality.snr_db:.1f}",
    )
