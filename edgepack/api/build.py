"""`edgepack.build`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgepack.api.call import (
    Call,
    Group,
    at_least,
    by_chip,
    existing,
    in_order,
    model_options,
    path_or_none,
    size_or_none,
    texts,
    writable_or_none,
)
from edgepack.api.target_results import BuildResult, BuiltTarget
from edgepack.api.types import InputShapes, Labels, ModelLike, ProgressLike, SamplesLike, Size, Targets
from edgepack.distribution import require_packages
from edgepack.errors import UsageError
from edgepack.limits import TARGET_SECONDS
from edgepack.pipeline.option_validation import bundle_name
from edgepack.pipeline.options import BuildOptions, TargetOptions
from edgepack.pipeline.results import TargetResult


def build(
    model: ModelLike,
    targets: Targets,
    options: BuildOptions | None = None,
    *,
    input_shape: InputShapes = (),
    signature: str = "",
    allow_code: bool = False,
    samples: SamplesLike | None = None,
    eval: SamplesLike | None = None,
    train: SamplesLike | None = None,
    labels: Labels | None = None,
    metadata: str | os.PathLike[str] | None = None,
    preprocess: str = "",
    resize: str = "stretch",
    task: str = "",
    calibration_samples: int = 500,
    random_calibration: bool = False,
    scheme: str = "auto",
    effort: str = "low",
    ranges: str | None = None,
    per_tensor: bool = False,
    epochs: int = 0,
    max_drop: float | None = None,
    strict: bool = False,
    max_size: Size | None = None,
    max_download: Size | None = None,
    variant: str = "",
    soc: str | Sequence[str] = (),
    runtime_version: int = 0,
    require_full: bool = False,
    repair: str = "exact",
    cut_tail: bool = False,
    compile: str = "auto",
    compile_timeout: float = 600.0,
    simulate: bool = False,
    simulate_seconds: float = 60.0,
    segments: int = 0,
    co_compile: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] = ".",
    name: str = "",
    force: bool = False,
    sign: bool = False,
    sign_key: str | os.PathLike[str] | None = None,
    platform: str | None = None,
    language: str = "kotlin",
    package: str = "",
    delivery: str = "module",
    runtime: str | None = None,
    sample_app: bool = False,
    dry_run: bool = False,
    timeout: float = TARGET_SECONDS,
    memory_limit: Size = "",
    no_cache: bool = False,
    cache: str = "",
    summary: str | os.PathLike[str] | None = None,
    progress: ProgressLike = None,
) -> BuildResult:
    """Convert, quantize, check, compile, measure and bundle a model for one or more targets.

    Every target is tried: a target that fails has its error in its result. The options are those of `edgepack build`.

    Args:
        model: A path, the bytes of a .tflite, a model of Keras 3 or tf-keras, or a tf.Module.
        targets: Target ids, `"hexagon@SM8550"` with a chip (its bundle goes into the folder `SM8550` of `out`), or
            `"all"`.
        options: All options in one object, in place of the keyword options.
        input_shape: Shapes of inputs with unknown dimensions, with the batch dimension: `{"image": (1, 224, 224, 3)}`.
        signature: Signature of a SavedModel, method of a tf.Module.
        allow_code: Run Lambda layers and custom code of a model file.
        samples: Representative samples: an array, a dict of arrays by input name, a tuple with labels, a
            tf.data.Dataset, an iterable, a function that returns one of these, or the text of `--samples`.
        eval: Samples to measure accuracy on: with labels top-1, with a COCO JSON mAP, with images and masks mIoU.
        train: Labelled samples for quantization-aware training.
        labels: Class names, or a text file with one per line.
        metadata: A model.toml: names, descriptions, pixel normalization, labels.
        preprocess: Normalization of pixels, `MEAN,STD` or `auto`; for folders of images.
        resize: How an image gets the input's size: `stretch`, `letterbox` or `center-crop`.
        task: What the outputs mean, such as `detection,boxes=cxcywh`; empty for what can be recognized.
        calibration_samples: Largest number of samples used for calibration.
        random_calibration: Calibrate on random numbers when there are no samples.
        scheme: Quantization scheme.
        effort: Time spent on the accuracy of int8: `low`, `medium` or `high`.
        ranges: How activation ranges are chosen; None for the method that loses least.
        per_tensor: Quantize each weight tensor with one scale instead of one per channel.
        epochs: Epochs of training; 0 for the recipe's default.
        max_drop: Largest loss of accuracy in percentage points.
        strict: Refuse a file that loses accuracy or is likely unusable.
        max_size: Largest size of the .tflite: bytes, or a text such as `500KB`.
        max_download: Largest size of the .tflite after gzip compression.
        variant: Variant of the target.
        soc: Chips to compile for, of targets that name none themselves.
        runtime_version: Runtime version whose op versions are checked; 0 for the newest.
        require_full: Fail when an op stays on the host.
        repair: Which rewrites of unsupported ops are applied.
        cut_tail: Move unsupported final ops into the loader as postprocessing.
        compile: Run the vendor's compiler: `auto`, `require` or `never`.
        compile_timeout: Time limit of the vendor's compiler in seconds.
        simulate: Run what was compiled for `soc` on the vendor's simulator of the accelerator.
        simulate_seconds: About how long the simulation of one file takes, in seconds.
        segments: Split the model into that many pipelined segments, one per Edge TPU.
        co_compile: Other int8 .tflite files or bundles that share the Edge TPU's memory.
        out: Folder to write the bundles to.
        name: Name of the bundles; empty for the model's.
        force: Replace an existing bundle, unless it contains files of yours.
        sign: Sign the bundles with an identity of Sigstore.
        sign_key: Private key (PEM, elliptic curve) to sign the bundles with.
        platform: Operating system of a CPU target's bundle.
        language: Language of the Android loader.
        package: Package of the Android code.
        delivery: How an Android bundle reaches the app.
        runtime: LiteRT of the Android loader, `litert1` or `litert2`; None for the one that the target needs.
        sample_app: Add an Android app that shows the model's results on the camera image.
        dry_run: Run every stage but write no bundle.
        timeout: Time limit in seconds of the conversion, and then of each target.
        memory_limit: Memory that each child process may hold: bytes, or a text such as `8GB`.
        no_cache: Recompute every step and store nothing in the cache.
        cache: URL of a cache that several machines share, `off` for none; empty for EDGEPACK_CACHE_URL.
        summary: File to write a summary in Markdown to, None for none.
        progress: Called with a sentence about each step; False for silence, None to show it in a notebook or terminal.

    Returns:
        One entry per target; `raise_for_error()` raises the first failure.

    Raises:
        EdgepackError: What concerns every target: an unknown target, option or value, a model that cannot be read,
            samples that do not match. Its `hint` says what to do.
    """
    # First of all: the names here are exactly the arguments.
    own = {"model", "targets", "options", "progress", "summary"}
    given = {key: value for key, value in locals().items() if key not in own | {"own"}}
    if options is not None:
        _refuse_both(given)
    markdown = writable_or_none("summary", summary)
    require_packages("build")
    with Call(progress) as call:
        if options is None:
            at_least("calibration_samples", calibration_samples, 1, whole=True)
            at_least("epochs", epochs, 0, whole=True)
            at_least("runtime_version", runtime_version, 0, whole=True)
            at_least("segments", segments, 0, whole=True)
            at_least("compile_timeout", compile_timeout, 1)
            at_least("simulate_seconds", simulate_seconds, 1)
            at_least("max_drop", max_drop, 0, optional=True)
            paths = [co_compile] if isinstance(co_compile, str | os.PathLike) else list(co_compile)
            options = BuildOptions(
                model=model_options(input_shape, signature, allow_code, timeout, memory_limit, no_cache, cache),
                target=TargetOptions(variant, texts(soc), runtime_version or None, require_full, repair, cut_tail),  # type: ignore[arg-type]
                out=Path(out),
                name=name,
                scheme=scheme,  # type: ignore[arg-type]
                samples=call.samples(samples, "samples", calibration_samples),
                train=call.samples(train, "train"),
                per_tensor=per_tensor,
                epochs=epochs,
                eval=call.samples(eval, "eval"),
                labels=call.labels(labels),
                metadata=path_or_none(metadata),
                preprocess=preprocess,
                resize=resize,  # type: ignore[arg-type]
                task=task,
                random_calibration=random_calibration,
                calibration_samples=calibration_samples,
                method=ranges,  # type: ignore[arg-type]
                effort=effort,  # type: ignore[arg-type]
                max_drop=max_drop,
                strict=strict,
                max_size=size_or_none("max_size", max_size),
                max_download=size_or_none("max_download", max_download),
                compile=compile,  # type: ignore[arg-type]
                compile_timeout=float(compile_timeout),
                simulate=simulate,
                simulate_seconds=float(simulate_seconds),
                segments=segments,
                co_compile=tuple(existing("co_compile", path) for path in paths),
                package=package,
                language=language,  # type: ignore[arg-type]
                platform=platform,  # type: ignore[arg-type]
                delivery=delivery,  # type: ignore[arg-type]
                runtime=runtime,  # type: ignore[arg-type]
                sample_app=sample_app,
                dry_run=dry_run,
                force=force,
                sign=sign,
                sign_key=path_or_none(sign_key),
            )
        groups = by_chip(targets, options.target.socs)
        path, reading = call.model(model, options.model, name=options.name)
        options = replace(options, model=reading, name=bundle_name(path, options))
        return _build(call, path, groups, options, targets, markdown)


def _build(
    call: Call, path: Path, groups: Sequence[Group], options: BuildOptions, targets: Targets, markdown: Path | None
) -> BuildResult:
    """Build each group of targets; what they share comes from the cache after the first."""
    from edgepack.pipeline.build import build as run

    entries: list[BuiltTarget] = []
    raw: list[TargetResult] = []
    notes: dict[str, None] = {}
    source: dict[str, object] = {}
    for group in groups:
        own = replace(options, target=replace(options.target, socs=group.socs), out=options.out / group.chip)
        result = run(path, group.targets, own, call.progress, call.progress)
        raw += result.results
        for one in result.results:
            if one.error is not None:
                call.name_files(one.error)
            entries.append(BuiltTarget.of(one, group.chip))
        notes.update(dict.fromkeys(result.notes))
        source = dict(result.source)
    if markdown is not None:
        from edgepack.files import write_atomically
        from edgepack.pipeline.reports.summary import build_summary

        write_atomically(markdown, build_summary(call.shown(path), raw))
    return BuildResult(in_order(entries, targets), tuple(notes), source)


def _refuse_both(given: dict[str, object]) -> None:
    """Refuse keyword options beside `options`: one of the two would be ignored.

    Raises:
        UsageError: Names the option.
    """
    from inspect import signature

    parameters = signature(build).parameters
    defaults = {key: parameters[key].default for key in given}
    changed = next((key for key, value in given.items() if not _is(value, defaults[key])), None)
    if changed is not None:
        raise UsageError(
            f"'{changed}' is given beside 'options', which has all options",
            hint="give keyword options only, or change the object: dataclasses.replace(options, ...)",
        )


def _is(value: object, default: object) -> bool:
    """Return whether a value is the default; an array is never compared."""
    return value is default or (
        isinstance(default, str | int | float | tuple) and type(value) is type(default) and value == default
    )
