"""`compare`: every scheme side by side on the user's own model, as Table 1 of TensorFlow's optimization guide."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgepack.choices import Resize
from edgepack.convert.importers.registry import require_trainable
from edgepack.digests import sha256
from edgepack.errors import EdgepackError, UsageError
from edgepack.findings import Report
from edgepack.graph import read_model
from edgepack.pipeline.class_report import WORST, ClassReport, report_classes
from edgepack.pipeline.compressed_size import compressed_size
from edgepack.pipeline.context import BuildContext, prepare
from edgepack.pipeline.jobs import PICTURES
from edgepack.pipeline.measure import measure, measure_latency, measure_layers
from edgepack.pipeline.model_info import pixel_rule
from edgepack.pipeline.option_validation import supports_simulation, validate_inputs, validate_simulation
from edgepack.pipeline.options import BuildOptions, ModelOptions, Progress, TargetOptions, silent
from edgepack.pipeline.placement import check_placement
from edgepack.pipeline.search.candidates import Candidate, available_data, candidate_for, resolve_profile
from edgepack.pipeline.search.loss import judge
from edgepack.pipeline.search.loss import to_json as judged_figures
from edgepack.pipeline.search.produce import QuantizedModel, quantize, rewrite
from edgepack.pipeline.session import Session
from edgepack.pipeline.simulation.figures import Simulation
from edgepack.pipeline.simulation.stage import simulate_file
from edgepack.pipeline.stopwatch import Stopwatch
from edgepack.profiles.model import TargetProfile
from edgepack.profiles.registry import resolve_targets
from edgepack.runtime.answers import Answers
from edgepack.runtime.layers import LayerError
from edgepack.runtime.metrics import Quality
from edgepack.runtime.runner import model_inputs
from edgepack.runtime.timing import Latency
from edgepack.samples import SampleSource
from edgepack.samples.pictures import Picture
from edgepack.schemes import SCHEMES, Needs, get_scheme

#: What --train adds: (recipe, sparsity, clusters per layer); 0 for the recipe's default.
TRAINED = (("qat", 0.0, 0), ("prune+qat", 0.5, 0), ("cluster+qat", 0.0, 16), ("prune+cluster+qat", 0.8, 16))

#: Samples of a comparison that are drawn: it bounds the size of the page, together with the size of a picture.
_PICTURES = 48

_MISSING = {Needs.SAMPLES: "needs samples (--samples)", Needs.LABELS: "needs labelled samples (--train)"}


@dataclass(frozen=True)
class ComparedScheme:
    """One scheme of the user's model, or one training recipe.

    Attributes:
        scheme: Scheme id; with pruning or clustering before quantization-aware training the recipe, `prune+qat`.
        tool: What wrote the file.
        target: The target whose file the figures are of: the first one, in the order given, that supports the scheme.
        sha256: SHA-256 of that file, which is the one that `build` ships; empty when there is none.
        bytes: Size of the file.
        gzip_bytes: Size compressed with gzip -9, as an app store ships it.
        quality: Loss against the float model, None without samples.
        latency: Time on this machine, None when the file does not run here.
        layers: Error of each layer, empty without samples or for float files.
        targets: Target id -> summary of the check of its own file; only targets that support the scheme.
        latencies: Target id -> estimated latency on its accelerator; only targets with an estimate.
        accepted: Targets that run their file, as far as the check knows.
        reason: Why there is no file: data that was not given, a quantizer that refused.
        notes: What the quantizer reported.
        simulation: The file compiled for each chip, on the simulated accelerator; empty without `simulate`.
        classes: Its answers beside the float model's, None without samples or class scores.
    """

    scheme: str
    tool: str = ""
    target: str = ""
    sha256: str = ""
    bytes: int = 0
    gzip_bytes: int = 0
    quality: Quality | None = None
    latency: Latency | None = None
    layers: tuple[LayerError, ...] = ()
    targets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    latencies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()
    simulation: tuple[Simulation, ...] = ()
    classes: ClassReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `results` of `compare --json`."""
        return {
            "scheme": self.scheme,
            "tool": self.tool,
            "target": self.target,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "gzip_bytes": self.gzip_bytes,
            "quality": judged_figures(self.quality),
            "latency": None if self.latency is None else {**asdict(self.latency), "where": "this machine"},
            "layers": [asdict(layer) for layer in self.layers],
            "targets": self.targets,
            "latencies": self.latencies,
            "accepted": list(self.accepted),
            "simulation": [simulation.to_json() for simulation in self.simulation],
            "classes": None if self.classes is None else self.classes.to_json(),
            "reason": self.reason,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Comparison:
    """A whole comparison.

    Attributes:
        model: Name of the user's model.
        source: `{format, bytes, sha256}` of it.
        results: One entry per scheme that a target supports, in the order of `edgepack.schemes`.
        targets: Target ids that were compared, in the order given.
        notes: Assumptions about the model and the samples.
        pictures: The worst samples as the model gets them, by position; empty when its input is no picture.
        pixels: How their values became pixels, a phrase.
    """

    model: str
    source: Mapping[str, Any]
    results: tuple[ComparedScheme, ...]
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    pictures: Mapping[int, Picture] = field(default_factory=dict)
    pixels: str = ""


def compare(
    model: Path | str,
    targets: Sequence[str],
    options: ModelOptions | None = None,
    *,
    samples: SampleSource = "",
    evaluation: SampleSource = "",
    train: SampleSource = "",
    epochs: int = 0,
    labels: Path | None = None,
    preprocess: str = "",
    resize: Resize = Resize.STRETCH,
    task: str = "",
    socs: Sequence[str] = (),
    simulate: bool = False,
    simulate_seconds: float = 60.0,
    progress: Progress = silent,
) -> Comparison:
    """Produce every scheme that a target supports, with the stages of a build, and measure each.

    Args:
        model: The model; it must not be quantized yet.
        targets: Target ids, or `all`.
        options: How the model is read.
        samples: Source of representative samples; without them integer schemes are left out, with the reason.
        evaluation: Source of labelled samples; without them the calibration samples measure.
        train: Source of labelled samples to train on; without them training is left out, with the reason.
        epochs: Epochs of each stage of training, 0 for the default.
        labels: Text file with one class name per line.
        preprocess: `MEAN,STD` of pixels.
        resize: How an image gets the size of an input.
        task: What the outputs mean; empty for what can be recognized.
        socs: Chips to compare for; the first one selects the variant of targets with chips.
        simulate: Compile each file for the chips and run it on the vendor's simulator of the accelerator.
        simulate_seconds: About how long the simulation of one file may take, in seconds.
        progress: Called with a sentence about each step that takes time.

    Raises:
        UsageError: The model is quantized already, a target or a chip is unknown, or nothing can be simulated.
        ToolMissingError: A compiler or its simulator is not installed.
        EdgepackError: The model or the samples cannot be read.
    """
    path = Path(model)
    profiles = resolve_targets(targets)
    build_options = BuildOptions(
        model=options or ModelOptions(),
        samples=samples,
        eval=evaluation,
        train=train,
        epochs=epochs,
        labels=labels,
        preprocess=preprocess,
        resize=resize,
        task=task,
        target=TargetOptions(socs=tuple(socs)),
        simulate=simulate,
        simulate_seconds=simulate_seconds,
    )
    validate_inputs(build_options, path)
    notes = validate_simulation(profiles, build_options) if simulate else []
    if train:
        require_trainable(path)
    with Session(build_options.model, progress) as session:
        context = prepare(path, build_options, session)
        if context.float_model.quantized:
            raise UsageError(
                "the model is already quantized: there is nothing to compare",
                hint="give the .keras, SavedModel or float .tflite it was made from",
            )
        profiles = [resolve_profile(profile, build_options) for profile in profiles]
        supported = [scheme for scheme in SCHEMES if any(profile.scheme_rule(scheme) for profile in profiles)]
        post_training = [scheme for scheme in supported if get_scheme(scheme).needs is not Needs.LABELS]
        results = [compare_scheme(context, profiles, scheme) for scheme in post_training]
        if "int8-qat" in supported:
            recipes = TRAINED if context.training is not None else TRAINED[:1]
            results += [compare_recipe(context, profiles, *recipe) for recipe in recipes]
        pictures, pixels = _worst_pictures(context, results)
        return Comparison(
            path.name,
            asdict(context.source),
            tuple(results),
            tuple(profile.id for profile in profiles),
            (*context.warnings, *context.notes, *notes),
            pictures,
            pixels,
        )


def compare_scheme(context: BuildContext, profiles: Sequence[TargetProfile], scheme: str) -> ComparedScheme:
    """Produce and measure a scheme after training, with each target's own file where targets differ."""
    if get_scheme(scheme).needs not in available_data(context):
        return ComparedScheme(scheme, reason=_MISSING[get_scheme(scheme).needs])
    files: dict[str, QuantizedModel] = {}
    placements: dict[str, Report] = {}
    failures: dict[str, EdgepackError] = {}
    for profile in profiles:
        rule = profile.scheme_rule(scheme)
        if rule is None:
            continue
        try:
            files[profile.id] = _produce(context, profile, candidate_for(rule, context.options))
            placements[profile.id] = _place(context, profile, files[profile.id])
        except EdgepackError as error:
            if context.session.workers.expired:
                raise
            files.pop(profile.id, None)
            failures[profile.id] = error
    if not files:
        return ComparedScheme(scheme, reason=next(iter(failures.values())).message)
    notes = tuple(f"{target}: {error.message}" for target, error in failures.items())
    result = _measured(context, ComparedScheme(scheme, notes=notes), files, placements)
    return _simulated(context, profiles, result, files) if context.options.simulate else result


def _simulated(
    context: BuildContext,
    profiles: Sequence[TargetProfile],
    result: ComparedScheme,
    files: Mapping[str, QuantizedModel],
) -> ComparedScheme:
    """Return the result with the simulations of the first target that has a simulator; a failure is a note."""
    profile = next((one for one in profiles if one.id in files and supports_simulation(one)), None)
    if profile is None or profile.compiler is None or result.scheme not in profile.compiler.schemes:
        return result
    try:
        simulated = simulate_file(context, profile, files[profile.id], result.scheme)
    except EdgepackError as error:
        if context.session.workers.expired:
            raise
        return replace(result, notes=(*result.notes, f"not simulated: {error.message}"))
    return replace(result, simulation=simulated.simulations, notes=(*result.notes, *simulated.warnings))


def compare_recipe(
    context: BuildContext, profiles: Sequence[TargetProfile], recipe: str, sparsity: float, clusters: int
) -> ComparedScheme:
    """Train a recipe and measure its file, which serves all targets."""
    result = ComparedScheme("int8-qat" if recipe == "qat" else recipe)
    if context.training is None:
        return replace(result, reason=_MISSING[Needs.LABELS])
    supporting = {profile.id: (profile, rule) for profile in profiles if (rule := profile.scheme_rule("int8-qat"))}
    # Targets that need integer inputs and outputs decide: the others accept these as well.
    profile, rule = next(
        (pair for pair in supporting.values() if pair[1].io != "FLOAT32"), next(iter(supporting.values()))
    )
    candidate = Candidate(rule, recipe=recipe, sparsity=sparsity, clusters=clusters)
    try:
        trained = _produce(context, profile, candidate)
    except EdgepackError as error:
        if context.session.workers.expired:
            raise
        return replace(result, reason=error.message)
    details = [f"{100 * sparsity:g} % zeros"] * bool(sparsity) + [f"{clusters} clusters"] * bool(clusters)
    result = replace(result, notes=(", ".join(details),) if details else ())
    placements = {target: _place(context, one, trained) for target, (one, _) in supporting.items()}
    return _measured(context, result, dict.fromkeys(supporting, trained), placements, trained=True)


def _produce(context: BuildContext, profile: TargetProfile, candidate: Candidate) -> QuantizedModel:
    """Return the file that a build would take for a candidate."""
    rewritten = rewrite(context, profile, candidate)
    return quantize(context, profile, candidate, rewritten, Stopwatch())


def _place(context: BuildContext, profile: TargetProfile, quantized: QuantizedModel) -> Report:
    return check_placement(read_model(quantized.tflite), profile, context.options.target)


def _classes(context: BuildContext, answers: Answers | None) -> ClassReport | None:
    """Return the report of a file's answers, with the names that the model or the samples have."""
    samples = context.measured_on
    if answers is None or samples is None:
        return None
    outputs = context.info.outputs
    named = outputs[answers.output].labels if answers.output < len(outputs) else ()
    return report_classes(answers, samples, named or samples.label_names)


def _worst_pictures(context: BuildContext, results: Sequence[ComparedScheme]) -> tuple[Mapping[int, Picture], str]:
    """Return the worst samples of all files as pictures, at most `_PICTURES`, and how values became pixels."""
    samples = context.measured_on
    worst = [entry.classes.worst for entry in results if entry.classes is not None]
    # The first ones of every file come before the last ones of any.
    ranked = [row[rank].index for rank in range(WORST) for row in worst if rank < len(row)]
    indices = sorted(list(dict.fromkeys(ranked))[:_PICTURES])
    if samples is None or not indices:
        return {}, ""
    rule = pixel_rule(context.info, model_inputs(read_model(context.float_model.tflite)))
    drawn = context.session.workers.run(PICTURES.call(samples, indices, rule))
    return ({}, "") if drawn is None else (dict(zip(indices, drawn.pictures, strict=True)), drawn.pixels)


def _measured(
    context: BuildContext,
    result: ComparedScheme,
    files: Mapping[str, QuantizedModel],
    placements: Mapping[str, Report],
    *,
    trained: bool = False,
) -> ComparedScheme:
    """Return the result with the figures of the first target's file.

    Layers of a trained file differ from the float model by training as well, so their errors would mislead.
    """
    target, quantized = next(iter(files.items()))
    shipped = context.shipped(quantized.tflite)
    compressed = compressed_size(context.session, shipped)
    layers: tuple[LayerError, ...] = ()
    integer = result.scheme in SCHEMES and get_scheme(result.scheme).is_integer
    samples = context.measured_on
    if not trained and integer and samples is not None:
        layers = measure_layers(context.session, context.float_model.tflite, quantized.tflite, samples)
    measurement = measure(context, quantized)
    quality = measurement.quality
    if quality is not None and trained:
        quality = replace(quality, trained=True)
    findings = () if quality is None else judge(quality)
    return replace(
        result,
        tool=quantized.tool,
        target=target,
        sha256=sha256(shipped),
        bytes=len(shipped),
        gzip_bytes=compressed(),
        quality=quality,
        latency=measure_latency(context.session, quantized.tflite),
        layers=layers,
        targets={target: report.summary for target, report in placements.items()},
        latencies={
            target: report.estimates["latency"]
            for target, report in placements.items()
            if report.compatible and "latency" in report.estimates
        },
        accepted=tuple(target for target, report in placements.items() if report.compatible),
        classes=_classes(context, measurement.answers),
        notes=(*(str(finding) for finding in findings), *result.notes, *quantized.warnings),
    )
