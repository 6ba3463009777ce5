"""`check`: where a target would run each op; a float model is checked as a preview of its quantized form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.convert.importers.registry import is_tflite
from edgepack.errors import EdgepackError, UnfitModelError
from edgepack.findings import Placement, Report
from edgepack.graph import Model, read_bytes, read_model
from edgepack.graph.widen import widen
from edgepack.pipeline.options import ModelOptions, Progress, TargetOptions, silent
from edgepack.pipeline.placement import check_placement
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.registry import resolve_targets
from edgepack.profiles.variants import choose_variant

if TYPE_CHECKING:
    from edgepack.repair import Rewrite
    from edgepack.runtime.postprocessing import PostprocessStep


@dataclass(frozen=True)
class CheckedTarget:
    """The check of one target.

    Attributes:
        target: Target id.
        report: Placements, None when the check failed before them.
        planned: Scheme of the preview of a float model, empty for a file that is checked as it is.
        repairs: Rewrites that a build would apply to move ops onto the accelerator.
        postprocessing: Last steps that a build would leave to the loader.
        cuttable: Refused last steps that a build with --cut-tail would leave to the loader.
        error: Why the target refuses the model, None when it accepts it.
    """

    target: str
    report: Report | None = None
    planned: str = ""
    repairs: tuple["Rewrite", ...] = ()
    postprocessing: tuple["PostprocessStep", ...] = ()
    cuttable: tuple["PostprocessStep", ...] = ()
    error: EdgepackError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `results` of `check --json`."""
        document = {"target": self.target, "compatible": False} if self.report is None else self.report.to_json()
        document["planned"] = self.planned
        document["repairs"] = [rewrite.to_json() for rewrite in self.repairs]
        document["tail"] = [step.to_json() for step in self.postprocessing]
        document["cuttable"] = [step.to_json() for step in self.cuttable]
        if self.error is not None:
            document["error"] = self.error.to_json()
        return document


@dataclass(frozen=True)
class CheckResult:
    """A whole check."""

    results: tuple[CheckedTarget, ...]

    @property
    def error(self) -> EdgepackError | None:
        """The first refusal, None when every target accepts the model."""
        return next((result.error for result in self.results if result.error is not None), None)


def check(
    model: Path | str,
    targets: Sequence[str],
    model_options: ModelOptions | None = None,
    target_options: TargetOptions | None = None,
    *,
    scheme: str = "auto",
    ask_compiler: bool | None = None,
    progress: Progress = silent,
) -> CheckResult:
    """Check a model against targets.

    Args:
        model: .keras, .h5, a SavedModel folder or .tflite; only the last needs no TensorFlow.
        targets: Target ids, or `all`.
        model_options: How the model is read.
        target_options: Variant, chip, runtime version, which rewrites are allowed.
        scheme: Scheme of the preview of a float model; `auto` is each target's first choice.
        ask_compiler: Whether the vendor's compiler is asked instead of the op table; None asks it where it is
            installed, a chip is given and the file is small enough to be answered within seconds.
        progress: Called with a sentence about each step that takes time.

    Raises:
        EdgepackError: An unknown target, a model that cannot be read.
    """
    profiles = resolve_targets(targets)
    target_options = target_options or TargetOptions()
    model_options = model_options or ModelOptions()
    tflite, graph = _read(Path(model), model_options, progress)
    results = []
    for profile in profiles:
        result, subject = _check_target(tflite, graph, profile, target_options, scheme)
        if subject is not None and result.error is None:
            result = _asked(result, subject, profile, target_options, model_options, ask_compiler, progress)
            result = _with_other_forms(result, subject)
        results.append(_judged(result, target_options))
    return CheckResult(tuple(results))


@dataclass(frozen=True)
class _Subject:
    """What was checked, for the compiler.

    Attributes:
        tflite: The rewritten model.
        model: The same, parsed.
        rule: Scheme of the preview of a float model, None for a file that is checked as it is.
    """

    tflite: bytes
    model: Model
    rule: SchemeRule | None


def _asked(
    result: CheckedTarget,
    subject: _Subject,
    profile: TargetProfile,
    target_options: TargetOptions,
    model_options: ModelOptions,
    wanted: bool | None,
    progress: Progress,
) -> CheckedTarget:
    """Return the result with the compiler's placement, where the compiler is asked and answers."""
    assert result.report is not None
    if profile.compiler is None or wanted is False or (wanted is None and not target_options.soc):
        return result
    from edgepack.pipeline.compiler_placement import ask, decide, quantized_file
    from edgepack.pipeline.session import Session
    from edgepack.quantize.select import scheme_of

    try:
        scheme = subject.rule.scheme if subject.rule is not None else scheme_of(subject.model)
        asking = decide(profile, scheme, len(subject.tflite), target_options, wanted)
        report, tflite, planned = result.report, subject.tflite, result.planned
        if asking.compiler is not None:
            progress(f"asking the compiler of {profile.id}")
            if subject.rule is not None:
                with Session(model_options, progress) as session:
                    quantized = quantized_file(session, tflite, subject.rule)
                if quantized is None:
                    asking = replace(asking, compiler=None, note=_NOT_QUANTIZED)
                else:
                    tflite, report = quantized, check_placement(read_model(quantized), profile, target_options)
            if asking.compiler is not None:
                report = ask(asking.compiler, tflite, report, profile, target_options, model_options.timeout)
        if asking.note:
            report = replace(report, notes=(*report.notes, asking.note))
        return replace(result, report=report, planned=planned)
    except EdgepackError as error:
        return replace(result, error=error)


def _with_other_forms(result: CheckedTarget, subject: _Subject) -> CheckedTarget:
    """Return the result with a note on LayerNorms that a build may compute by another op."""
    from edgepack.quantize.ptq.normalizations import find_normalizations

    rule, report = subject.rule, result.report
    if report is None or rule is None or rule.scheme != "int8" or not rule.layer_norm:
        return result
    count = len(find_normalizations(subject.model.main))
    if not count:
        return result
    note = f"Where samples show that it is closer, edgepack build computes {count} LayerNorms by {rule.layer_norm}."
    return replace(result, report=replace(report, notes=(*report.notes, note)))


_NOT_QUANTIZED = (
    "The compiler was not asked: ai-edge-quantizer does not write this file, and TFLiteConverter's quantizer, which "
    "edgepack build then uses, takes too long for a check."
)


def _judged(result: CheckedTarget, target_options: TargetOptions) -> CheckedTarget:
    """Return the result with the target's refusal, if it refuses the model."""
    report = result.report
    if report is None or result.error is not None:
        return result
    if not report.compatible or (target_options.require_full and report.summary["accelerator"] < len(report.ops)):
        return replace(result, error=_refusal(report))
    return result


def _read(path: Path, options: ModelOptions, progress: Progress) -> tuple[bytes, Model]:
    if is_tflite(path):
        # Without a session: a check of a .tflite starts no child process and loads neither runtime nor cache.
        data = read_bytes(path)
        model = read_model(data, path=path)
        widened, _ = widen(data, model)
        return widened, model if widened is data else read_model(widened)
    from edgepack.pipeline.float_model import convert_model
    from edgepack.pipeline.session import Session

    with Session(options, progress) as session:
        tflite = convert_model(session, path)[0].tflite
    return tflite, read_model(tflite)


def _check_target(
    tflite: bytes, model: Model, profile: TargetProfile, target_options: TargetOptions, scheme: str
) -> tuple[CheckedTarget, _Subject | None]:
    """Check one target with the stages of a build: rewrite, then in place of quantizing preview, then placement."""
    from edgepack.pipeline.rewrite import compares_names, rewrite_unproven

    result = CheckedTarget(profile.id)
    try:
        variant = choose_variant(profile, variant=target_options.variant, soc=target_options.soc)
        rule = _rule(replace(profile, schemes=variant.schemes or profile.schemes), model, scheme)
        rewritten = subject = model
        if rule is not None and (model.is_float or target_options.cut_tail or compares_names(profile, target_options)):
            repaired = rewrite_unproven(
                tflite,
                profile,
                rule,
                target_options,
                mode=target_options.repair,
                cut_tail=target_options.cut_tail,
            )
            rewritten = subject = model if repaired.tflite is tflite else read_model(repaired.tflite)
            tflite = repaired.tflite
            result = replace(result, repairs=repaired.rewrites, postprocessing=repaired.postprocessing)
        if rule is not None and model.is_float:
            from edgepack.quantize.preview import preview

            subject = preview(rewritten, rule)
            result = replace(result, planned=rule.scheme)
        report = check_placement(subject, profile, target_options)
        cuttable = () if target_options.cut_tail else _cuttable(rewritten, subject, report, profile)
        result = replace(result, report=report, cuttable=cuttable)
    except EdgepackError as error:
        return replace(result, error=error), None
    return result, _Subject(tflite, rewritten, rule if model.is_float else None)


def _cuttable(model: Model, preview: Model, report: Report, profile: TargetProfile) -> tuple["PostprocessStep", ...]:
    """Return the last steps that --cut-tail would cut; a preview has the tensors of its model."""
    from edgepack.pipeline.rewrite import has_accelerator
    from edgepack.repair import cuttable

    ops = [preview.main.ops[one.index] for one in report.ops if one.placement is not Placement.ACCELERATOR]
    return cuttable(model, {op.outputs[0] for op in ops if op.outputs}) if has_accelerator(profile) else ()


def _rule(profile: TargetProfile, model: Model, scheme: str) -> SchemeRule | None:
    """Return the rule that a build with samples would take first; of a quantized file the rule for its scheme."""
    from edgepack.quantize.select import scheme_of, select
    from edgepack.schemes import Needs

    if not model.is_float:
        return profile.scheme_rule(scheme_of(model))
    return select(profile, {Needs.NOTHING, Needs.SAMPLES}, scheme).rule


def _refusal(report: Report) -> UnfitModelError:
    summary = report.summary
    if report.compatible:
        return UnfitModelError(
            f"--require-full: {summary['host'] + summary['unsupported']} of {summary['total']} ops of "
            f"{report.target} are not on the accelerator",
            hint="each op above has its reason and its fix",
        )
    return UnfitModelError(f"the model does not fit {report.target}", hint="each op above has its reason and its fix")
