"""Gather what a bundle says from what the build found."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgepack._version import __version__
from edgepack.bundle.aar import with_classes
from edgepack.bundle.names import file_stem
from edgepack.bundle.render import render
from edgepack.bundle.spec import (
    BundleSpec,
    CalibrationSpec,
    CompileSpec,
    Golden,
    GoldenCase,
    ModelFile,
    SourceSpec,
    TensorSpec,
    tensor_spec,
)
from edgepack.errors import UnfitModelError
from edgepack.graph import Model
from edgepack.graph.metadata import ModelInfo, TensorMetadata
from edgepack.pipeline.option_validation import delivery_of, platform_of
from edgepack.pipeline.options import BuildOptions
from edgepack.pipeline.results import TargetResult
from edgepack.pipeline.session import Session
from edgepack.profiles.model import TargetProfile
from edgepack.runtime.evaluate import synthetic_samples
from edgepack.runtime.postprocessing import PostprocessStep
from edgepack.runtime.runner import model_inputs, model_outputs
from edgepack.samples import Preprocess, SampleSet

#: Golden vectors in a bundle: enough to see a wrong layout or scale, small enough to ship.
GOLDEN_CASES = 3


def bundle_files(
    *,
    session: Session,
    options: BuildOptions,
    profile: TargetProfile,
    name: str,
    source: Mapping[str, Any],
    model: Model,
    compiled: Sequence[ModelFile],
    result: TargetResult,
    samples: SampleSet | None,
    calibration: Mapping[str, Any] | None,
    info: ModelInfo,
    notes: Sequence[str],
) -> dict[str, bytes]:
    """Return every file of the bundle by its path inside the bundle.

    Raises:
        BundleError: The bundle cannot be rendered.
    """
    assert result.model is not None
    main = ModelFile("host" if compiled else "main", f"{file_stem(name)}.tflite", result.model)
    models = (main, *compiled)
    # Qualcomm's delegate prepares the plain model on the phone; what was compiled is for LiteRT's CompiledModel.
    aside = bool(compiled) and profile.bundle.delegate == "qnn"
    if aside:
        result.warnings.append(_aside(main, compiled, delivery_of(profile, options)))
    inputs, outputs = _tensors(model, info, result.tail)
    spec = BundleSpec(
        name=name,
        version=__version__,
        profile=profile,
        scheme=result.scheme,
        scheme_reason=result.reason,
        source=SourceSpec(source["format"], source["sha256"], source["bytes"]),
        inputs=inputs,
        outputs=outputs,
        models=models,
        runs=models[1].filename if compiled and not aside else main.filename,
        golden=_golden(session, model, result, samples),
        compile=CompileSpec(
            "none" if profile.compiler is None else result.compile["status"],
            result.compile["tool"],
            result.compile["version"],
            result.compile["reason"],
            result.compile.get("figures", {}).get("runtime_version", 0),
        ),
        quality=None if result.quality is None else result.quality.to_json(),
        ladder=tuple(result.ladder),
        placement=None if result.report is None else result.report.summary,
        calibration=None
        if calibration is None
        else CalibrationSpec(calibration["samples"], calibration["random"], calibration["method"]),
        warnings=tuple(result.warnings),
        notes=tuple(notes),
        android_package=options.package or "com.example",
        language=options.language,
        platform=platform_of(profile, options),
        delivery=delivery_of(profile, options),
        socs=options.target.socs if profile.socs else (),
    )
    result.model_name = f"model/{main.filename}"
    return render(with_classes(spec))


def _aside(main: ModelFile, compiled: Sequence[ModelFile], delivery: str) -> str:
    """Return the warning that the loader does not run what was compiled, and what the files cost."""
    names = ", ".join(file.filename for file in compiled)
    cost = ""
    if delivery == "ai-pack":
        largest = max(len(file.data) for file in compiled)
        cost = f"; a device with such a chip downloads its file too, {largest} bytes (--compile never leaves it out)"
    return (
        f"the loader runs {main.filename}, which Qualcomm's delegate prepares on the phone; only an app of your own on "
        f"LiteRT's CompiledModel runs {names}{cost}"
    )


def _tensors(
    model: Model, info: ModelInfo, tail: Sequence[PostprocessStep]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of the file with what is known of them, by position."""
    inputs = model_inputs(model)
    said = [*info.inputs, *[TensorMetadata()] * len(inputs)]
    rules = [Preprocess(one.mean, one.std).to_json() if one.mean else None for one in said]
    texts = [one.labels for one in info.outputs]
    return (
        tuple(tensor_spec(found, preprocessing=rules[at]) for at, found in enumerate(inputs)),
        tuple(
            tensor_spec(
                found,
                labels=texts[at] if at < len(texts) else (),
                tail=[step for step in tail if step.output == at],
            )
            for at, found in enumerate(model_outputs(model))
        ),
    )


def _golden(session: Session, model: Model, result: TargetResult, samples: SampleSet | None) -> Golden:
    assert result.model is not None
    if samples is None:
        chosen = synthetic_samples(model_inputs(model), GOLDEN_CASES)
    else:
        chosen = [samples.sample(i) for i in range(min(GOLDEN_CASES, len(samples)))]
    # The model's own names are the float model's: quantizing keeps them, in the same order.
    names = [info.name for info in model_inputs(model)]
    chosen = [
        dict(zip(names, sample.values(), strict=True)) if set(sample) != set(names) else sample for sample in chosen
    ]
    try:
        cases, steps, relative = session.golden(result.model, chosen)
    except UnfitModelError as error:
        # The model needs an op that only the user's app has: the bundle ships without vectors and says so.
        result.warnings.append(f"no golden vectors: {error.message}")
        cases, steps, relative = [], 0, 0.0
    return Golden(
        machine=platform.machine(),
        runtime=f"ai-edge-litert {_version('ai-edge-litert')}",
        cases=tuple(GoldenCase(tuple(inputs), tuple(outputs)) for inputs, outputs in cases),
        spread_steps=steps,
        # Two figures are enough, and keep the last bits of a float kernel out of the bundle's bytes.
        spread_relative=float(f"{relative:.1e}"),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
