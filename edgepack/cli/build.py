"""`edgepack build`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgepack.choices import CompilePolicy, Delivery, Effort, Language, Platform, RangeMethod, Repair, SchemeChoice
from edgepack.cli import arguments, output, simulations
from edgepack.cli import help as panels

if TYPE_CHECKING:
    from edgepack.pipeline.results import BuildResult, TargetResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("build", cls=panels.Command)(build)


def build(
    model: Path = arguments.MODEL,
    input_shape: list[str] = arguments.INPUT_SHAPE,
    signature: str = arguments.SIGNATURE,
    allow_code: bool = arguments.ALLOW_CODE,
    samples: str = arguments.SAMPLES,
    evaluation: str = arguments.EVALUATION,
    train: str = arguments.option(
        panels.DATA, "--train", "SRC", "Labelled samples for quantization-aware training (int8-qat).", default=""
    ),
    labels: Path | None = arguments.option(panels.DATA, "--labels", "FILE", "Text file with one class name per line."),
    metadata: Path | None = arguments.option(
        panels.DATA, "--metadata", "FILE", "A model.toml: names, descriptions, pixel normalization, labels."
    ),
    preprocess: str = arguments.PREPROCESS,
    calibration_samples: int = arguments.option(
        panels.DATA, "--calibration-samples", "N", "Largest number of samples used for calibration.", default=500, min=1
    ),
    random_calibration: bool = arguments.flag(
        panels.DATA,
        "--random-calibration",
        "Calibrate on random numbers when there are no samples; the bundle records it.",
    ),
    scheme: SchemeChoice = arguments.SCHEME,
    effort: Effort = arguments.choice(
        panels.ACCURACY, "--effort", Effort, "EFFORT", "Time spent on the accuracy of int8.", default=Effort.LOW
    ),
    ranges: RangeMethod | None = arguments.choice(
        panels.ACCURACY,
        "--ranges",
        RangeMethod,
        "METHOD",
        "How activation ranges are chosen.",
        show_default="the one that loses least",
    ),
    per_tensor: bool = arguments.flag(
        panels.ACCURACY, "--per-tensor", "Quantize each weight tensor with one scale instead of one per channel."
    ),
    epochs: int = arguments.option(
        panels.ACCURACY,
        "--epochs",
        "N",
        "Epochs of training with --train.",
        default=0,
        show_default="the recipe's",
        min=0,
    ),
    max_drop: float | None = arguments.option(
        panels.ACCURACY, "--max-drop", "POINTS", "Largest loss of accuracy in percentage points (else exit 8).", min=0.0
    ),
    strict: bool = arguments.flag(
        panels.ACCURACY, "--strict", "Refuse a file that loses accuracy or is likely unusable (exit 8)."
    ),
    max_size: str = arguments.option(
        panels.ACCURACY,
        "--max-size",
        "SIZE",
        "Largest size of the .tflite, such as 500KB, 1MB or 1MiB (else exit 8).",
        default="",
    ),
    max_download: str = arguments.option(
        panels.ACCURACY,
        "--max-download",
        "SIZE",
        "Largest size of the .tflite after gzip compression (else exit 8).",
        default="",
    ),
    target: list[str] = arguments.TARGETS,
    variant: str = arguments.VARIANT,
    soc: list[str] = arguments.SOC,
    runtime_version: int = arguments.RUNTIME_VERSION,
    require_full: bool = arguments.REQUIRE_FULL,
    repair: Repair = arguments.REPAIR,
    cut_tail: bool = arguments.CUT_TAIL,
    compile_: CompilePolicy = arguments.choice(
        panels.TARGET,
        "--compile",
        CompilePolicy,
        "WHEN",
        "Run the vendor's compiler if it is installed, always, or not at all.",
        default=CompilePolicy.AUTO,
    ),
    compile_timeout: float = arguments.option(
        panels.TARGET, "--compile-timeout", "SECONDS", "Time limit of the vendor's compiler.", default=600.0, min=1.0
    ),
    simulate: bool = arguments.SIMULATE,
    simulate_seconds: float = arguments.SIMULATE_SECONDS,
    segments: int = arguments.option(
        panels.TARGET,
        "--segments",
        "N",
        "Split the model into N pipelined segments, one per Edge TPU.",
        default=0,
        show_default=False,
    ),
    co_compile: list[Path] = arguments.option(
        panels.TARGET,
        "--co-compile",
        "PATH",
        "Another int8 .tflite or bundle that shares the Edge TPU's memory; repeatable.",
        default=[],
    ),
    out: Path = arguments.option(
        panels.BUNDLE,
        "-o, --out",
        "DIR",
        "Folder to write the bundles to.",
        default=Path(),
        show_default="the current folder",
    ),
    name: str = arguments.option(
        panels.BUNDLE, "--name", "NAME", "Name of the bundles.", default="", show_default="the model's"
    ),
    force: bool = arguments.flag(
        panels.BUNDLE, "--force", "Replace an existing bundle, unless it contains files of yours."
    ),
    sign: bool = arguments.flag(
        panels.BUNDLE, "--sign", "Sign the bundles, with an identity of Sigstore unless --sign-key is given."
    ),
    sign_key: Path | None = arguments.option(
        panels.BUNDLE, "--sign-key", "FILE", "Private key (PEM, elliptic curve) to sign the bundles with, offline."
    ),
    platform: Platform | None = arguments.choice(
        panels.BUNDLE,
        "--platform",
        Platform,
        "OS",
        "Operating system of a CPU target's bundle.",
        show_default="the target's",
    ),
    language: Language = arguments.choice(
        panels.BUNDLE, "--language", Language, "LANGUAGE", "Language of the Android loader.", default=Language.KOTLIN
    ),
    package: str = arguments.option(
        panels.BUNDLE,
        "--package",
        "PACKAGE",
        "Package of the Android code; the model's name is appended.",
        default="",
        show_default="com.example",
    ),
    delivery: Delivery = arguments.choice(
        panels.BUNDLE, "--delivery", Delivery, "FORM", "How an Android bundle reaches the app.", default=Delivery.MODULE
    ),
    dry_run: bool = arguments.flag(panels.RUN, "--dry-run", "Run every stage but write no bundle."),
    timeout: float = arguments.TIMEOUT,
    memory_limit: str = arguments.MEMORY_LIMIT,
    no_cache: bool = arguments.NO_CACHE,
    cache: str = arguments.CACHE_URL,
    json_: bool = arguments.JSON,
) -> int:
    """Convert, quantize, check, compile, measure and bundle a model for one or more targets."""
    from edgepack.pipeline.build import build
    from edgepack.pipeline.options import BuildOptions

    options = BuildOptions(
        model=arguments.model_options(input_shape, signature, allow_code, timeout, no_cache, memory_limit, cache),
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
        strict=strict,
        max_size=arguments.size("--max-size", max_size),
        max_download=arguments.size("--max-download", max_download),
        compile=compile_,
        compile_timeout=compile_timeout,
        simulate=simulate,
        simulate_seconds=simulate_seconds,
        segments=segments,
        co_compile=tuple(co_compile),
        package=package,
        language=language,
        platform=platform,
        delivery=delivery,
        dry_run=dry_run,
        force=force,
        sign=sign,
        sign_key=sign_key,
    )
    result = build(
        arguments.require_path(model),
        arguments.require_targets(target),
        options,
        arguments.progress(json_),
        arguments.notice(json_),
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
        if entry.latency is not None:
            output.out(output.wrap(f"  latency: {entry.latency['text']}", "    "))
        for rewrite in entry.repairs:
            output.out(output.wrap(f"  rewritten: {rewrite.message}{_moved(rewrite.moved_ops)}", "    "))
        for step in entry.postprocessing:
            output.out(output.wrap(f"  moved to the loader: {step.message}", "    "))
        for simulation in entry.simulation:
            simulations.show(simulation)
    for note in result.notes:
        output.warn(note)
    for warning in dict.fromkeys(warning for entry in result.results for warning in entry.warnings):
        targets = ", ".join(entry.target for entry in result.results if warning in entry.warnings)
        output.warn(f"{targets}: {warning}")
    for entry in result.results:
        if entry.error is not None:
            output.err(f"{entry.target}:")
            output.error(entry.error)


def _moved(count: int) -> str:
    # Some rewrites move nothing: they give values of different ranges scales of their own.
    return f" ({count} more op{'' if count == 1 else 's'} on the accelerator)" if count else ""


def _table(results: Sequence["TargetResult"]) -> str:
    """Return the table of a build, with the path of each bundle on a line below its row because paths are long."""
    header = ["target", "scheme", "size", "accel", "host", "top-1", "SNR dB"]
    rows = [_row(entry) for entry in results]
    # SOFTMAX hides errors of small probabilities: where the model ends in it, the SNR of its input says more.
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
        text.extend(_judgement(entry))
    return "\n".join(text)


def _judgement(entry: "TargetResult") -> list[str]:
    """Return a line for the worst loss of a file; the warnings list all."""
    from edgepack.pipeline.search.loss import judge

    findings = () if entry.quality is None else judge(entry.quality)
    return [
        output.wrap(f"  {'LIKELY UNUSABLE' if finding.unusable else 'loses accuracy'}: {finding.message}", "    ")
        for finding in findings[:1]
    ]


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
