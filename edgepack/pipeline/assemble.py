"""The assembling stage: everything that a bundle holds, as files by their path inside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgepack._version import __version__
from edgepack.bundle.aar import with_classes
from edgepack.bundle.android import sample_app_problem
from edgepack.bundle.android_runtime import compiled_model_problem, runs_compiled, runtime_warning
from edgepack.bundle.names import file_stem
from edgepack.bundle.spec import (
    BundleSpec,
    CalibrationSpec,
    CheckedFor,
    CompileSpec,
    ModelFile,
    SimulatedGolden,
    SourceSpec,
    TensorSpec,
    tensor_spec,
)
from edgepack.choices import Resize
from edgepack.graph import Model, read_model
from edgepack.graph.metadata import ModelInfo, TensorMetadata
from edgepack.pipeline.compile import CompiledModel
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.golden import golden_of
from edgepack.pipeline.half_precision import asks_for_single_precision, find_half_precision
from edgepack.pipeline.option_validation import delivery_of, platform_of, runtime_option, sample_app_option
from edgepack.pipeline.rendering import rendered
from edgepack.pipeline.search.acceptance import Choice
from edgepack.pipeline.search.loss import to_json as judged_figures
from edgepack.pipeline.search.produce import calibration_facts
from edgepack.pipeline.simulation.figures import Simulation
from edgepack.profiles.model import TargetProfile
from edgepack.runtime.postprocessing import PostprocessStep
from edgepack.runtime.runner import model_inputs, model_outputs
from edgepack.samples import Preprocess


@dataclass(frozen=True)
class AssembledBundle:
    """A bundle that is not written yet.

    Attributes:
        files: Content by path inside the bundle.
        model_path: Path of the file that the target's runtime loads where nothing was compiled.
        warnings: Every warning that the bundle carries.
    """

    files: Mapping[str, bytes]
    model_path: str
    warnings: tuple[str, ...]


def assemble(
    context: BuildContext,
    profile: TargetProfile,
    choice: Choice,
    compiled: CompiledModel,
    *,
    simulations: Sequence[Simulation] = (),
    ladder: Sequence[Mapping[str, Any]] = (),
    warnings: Sequence[str] = (),
) -> AssembledBundle:
    """Render every file of a bundle.

    Args:
        context: The build.
        profile: The target, with the variant resolved.
        choice: The chosen file, how it was produced and why.
        compiled: What the vendor's compiler made of it.
        simulations: The compiled files on the simulated accelerator.
        ladder: The trials of a search, as JSON.
        warnings: Warnings of the stages before.

    Raises:
        BundleError: The bundle cannot be rendered.
    """
    options, trial = context.options, choice.trial
    quantized, rule = trial.quantized, trial.candidate.rule
    model = read_model(quantized.tflite)
    main = ModelFile("host" if compiled.files else "main", f"{file_stem(context.name)}.tflite", trial.shipped)
    models = (main, *compiled.files)
    delivery = delivery_of(profile, options)
    notices = list(warnings)
    by_chip = bool(compiled.files) and profile.bundle.delegate == "qnn"
    inputs, outputs = _tensors(model, context.info, quantized.postprocessing, options.resize)
    golden, missing = golden_of(context.session, model, trial.shipped, context.measured_on)
    notices.extend(missing)
    golden = replace(golden, simulated=tuple(_simulated(one) for one in simulations))
    calibration = calibration_facts(context, trial.candidate, quantized)
    report = compiled.report
    spec = BundleSpec(
        name=context.name,
        version=__version__,
        profile=profile,
        scheme=rule.scheme,
        scheme_reason=choice.reason,
        source=SourceSpec(context.source.format, context.source.sha256, context.source.bytes),
        inputs=inputs,
        outputs=outputs,
        models=models,
        runs=models[1].filename if compiled.files and not by_chip else main.filename,
        golden=golden,
        compile=CompileSpec(
            "none" if profile.compiler is None else report["status"],
            report["tool"],
            report["version"],
            report["reason"],
            report.get("figures", {}).get("runtime_version", 0),
        ),
        quality=judged_figures(trial.quality),
        simulation=tuple(simulation.to_json() for simulation in simulations),
        ladder=tuple(dict(entry) for entry in ladder),
        placement=trial.placement.summary,
        latency=compiled.latency,
        calibration=None
        if calibration is None
        else CalibrationSpec(calibration.samples, calibration.random, calibration.method),
        warnings=tuple(notices),
        notes=context.notes,
        android_package=options.package or "com.example",
        language=options.language,
        platform=platform_of(profile, options),
        delivery=delivery,
        runtime=runtime_option(profile, options),
        sample_app=sample_app_option(profile, options),
        signature_order=_has_signature_order(model),
        socs=options.target.socs if profile.socs else (),
        checked=CheckedFor(options.target.variant, options.target.soc, options.target.runtime_version),
        single_precision=asks_for_single_precision(find_half_precision(context, rule), profile),
        state=model.state,
        task=context.task.spec,
        task_labels=context.task.labels,
        signed_with=options.signer.method if options.signer is not None else "",
    )
    if by_chip:
        notices.append(_chip_notice(spec, compiled.files))
    if warning := runtime_warning(spec):
        notices.append(warning)
    if spec.sample_app and (problem := sample_app_problem(spec)):
        notices.append(f"built without the sample app: {problem}")
        spec = replace(spec, sample_app=False)
    spec = replace(spec, warnings=tuple(notices))
    return AssembledBundle(rendered(context.session, with_classes(spec)), f"model/{main.filename}", tuple(notices))


def _simulated(simulation: Simulation) -> SimulatedGolden:
    distance = simulation.run.distance
    return SimulatedGolden(
        chip=simulation.chip,
        simulator=simulation.simulator,
        version=simulation.version,
        outputs=simulation.run.golden,
        steps=distance.steps,
        relative=float(f"{distance.relative:.1e}"),
    )


def _chip_notice(spec: BundleSpec, compiled: Sequence[ModelFile]) -> str:
    """Return the warning about what files compiled for a chip need, or that the loader does not run them."""
    names, main = ", ".join(file.filename for file in compiled), spec.host.filename
    if runs_compiled(spec):
        return (
            f"the loader runs {names} on phones with that chip and {main} on others; the app has to contain LiteRT's "
            "NPU runtime for Qualcomm (README.md), without which the loader uses the GPU or the CPU and says so"
        )
    cost = ""
    if spec.delivery == "ai-pack":
        largest = max(len(file.data) for file in compiled)
        cost = f"; a device with such a chip downloads its file too, {largest} bytes (--compile never leaves it out)"
    return (
        f"the loader runs {main}, which Qualcomm's delegate prepares on the phone, and not {names}: "
        f"{compiled_model_problem(spec)}. An app "
        f"of your own on LiteRT's CompiledModel runs them{cost}"
    )


def _has_signature_order(model: Model) -> bool:
    """Return whether the first signature lists inputs and outputs as the main graph does."""
    if not model.signatures:
        return True
    first = model.signatures[0]
    graph = model.main
    return tuple(first.inputs.values()) == graph.inputs and tuple(first.outputs.values()) == graph.outputs


def _tensors(
    model: Model, info: ModelInfo, postprocessing: Sequence[PostprocessStep], resize: Resize
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of the file with what is known of them, by position."""
    inputs = model_inputs(model)
    metadata = [*info.inputs, *[TensorMetadata()] * len(inputs)]
    way = {} if resize == Resize.STRETCH else {"resize": str(resize)}
    rules = [Preprocess(one.mean, one.std).to_json() | way if one.mean else None for one in metadata]
    labels = [one.labels for one in info.outputs]
    return (
        tuple(tensor_spec(tensor, preprocessing=rules[at]) for at, tensor in enumerate(inputs)),
        tuple(
            tensor_spec(
                tensor,
                labels=labels[at] if at < len(labels) else (),
                tail=[step for step in postprocessing if step.output == at],
            )
            for at, tensor in enumerate(model_outputs(model))
        ),
    )
