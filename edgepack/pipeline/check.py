"""Check a model against targets without writing anything; a float model is checked as what it would become."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import EdgepackError, UnfitModelError
from edgepack.findings import Placement, Report
from edgepack.graph import Model, read_bytes, read_model
from edgepack.pipeline.options import ModelOptions, Progress, TargetOptions, silent
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.registry import resolve_targets
from edgepack.profiles.variants import choose_variant

if TYPE_CHECKING:
    from edgepack.repair import Rewrite
    from edgepack.runtime.postprocessing import PostprocessStep


@dataclass
class CheckedTarget:
    """The check of one target.

    Attributes:
        target: Target id.
        report: Placements, None when the check could not be made.
        repairs: Rewrites that a build would do to move ops onto the accelerator.
        tail: Last steps that a build would leave to the loader.
        cuttable: Refused last steps that a build with --cut-tail would leave to the loader.
        planned: Scheme that was planned for a float model, empty for a file checked as it is.
        error: Why the model is refused, None when it is not.
    """

    target: str
    report: Report | None = None
    planned: str = ""
    repairs: tuple["Rewrite", ...] = ()
    tail: tuple["PostprocessStep", ...] = ()
    cuttable: tuple["PostprocessStep", ...] = ()
    error: EdgepackError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `results` of `check --json`."""
        document = {"target": self.target, "compatible": False} if self.report is None else self.report.to_json()
        document["planned"] = self.planned
        document["repairs"] = [rewrite.to_json() for rewrite in self.repairs]
        document["tail"] = [step.to_json() for step in self.tail]
        document["cuttable"] = [step.to_json() for step in self.cuttable]
        if self.error is not None:
            document["error"] = self.error.to_json()
        return document


@dataclass
class CheckResult:
    """A whole check."""

    results: list[CheckedTarget]

    @property
    def error(self) -> EdgepackError | None:
        """The first refusal, None when every target takes the model."""
        return next((result.error for result in self.results if result.error is not None), None)


def check(
    path: Path,
    targets: Sequence[str],
    model_options: ModelOptions | None = None,
    target_options: TargetOptions | None = None,
    *,
    scheme: str = "auto",
    progress: Progress = silent,
) -> CheckResult:
    """Check a model against targets.

    Args:
        path: .keras, .h5, a SavedModel folder or .tflite; only the last needs no TensorFlow.
        targets: Target ids, or `all`.
        model_options: How the model is read.
        target_options: How targets are understood.
        scheme: Scheme that a float model is planned with; `auto` is each target's first choice.
        progress: Told what is being done.

    Raises:
        EdgepackError: An unknown target, a model that cannot be read.
    """
    profiles = resolve_targets(targets)
    wish = target_options or TargetOptions()
    tflite, model = _model(path, model_options or ModelOptions(), progress)
    return CheckResult([_one(tflite, model, profile, wish, scheme) for profile in profiles])


def _model(path: Path, options: ModelOptions, progress: Progress) -> tuple[bytes, Model]:
    if path.is_file() and path.suffix == ".tflite":
        data = read_bytes(path)
        return data, read_model(data, path=path)
    from edgepack.pipeline.session import Session

    with Session(options, progress) as session:
        tflite = session.float_model(path)[0].tflite
    return tflite, read_model(tflite)


def _one(tflite: bytes, model: Model, profile: TargetProfile, wish: TargetOptions, scheme: str) -> CheckedTarget:
    from edgepack.compat import check as run

    found = CheckedTarget(profile.id)
    try:
        variant = choose_variant(profile, variant=wish.variant, soc=wish.soc)
        chosen = replace(profile, schemes=variant.schemes or profile.schemes)
        subject = fixed = model
        rule = _rule(chosen, scheme) if model.is_float else _own_rule(chosen, model)
        if rule is not None and (model.is_float or wish.cut_tail):
            from edgepack.pipeline.rewrite import repair_for

            repaired = repair_for(tflite, profile, rule, wish, mode=wish.repair, cut_tail=wish.cut_tail)
            subject = fixed = model if repaired.tflite is tflite else read_model(repaired.tflite)
            found.repairs, found.tail = repaired.rewrites, repaired.tail
        if rule is not None and model.is_float:
            from edgepack.quantize.preview import plan

            subject, found.planned = plan(subject, rule), rule.scheme
        found.report = run(subject, profile, variant=variant.id, soc=wish.soc, runtime_version=wish.runtime_version)
        if not wish.cut_tail:
            found.cuttable = _cuttable(fixed, subject, found.report, profile)
        if not found.report.compatible or (
            wish.require_full and found.report.summary["accelerator"] < len(found.report.ops)
        ):
            found.error = _refusal(found.report)
    except EdgepackError as error:
        found.error = error
    return found


def _cuttable(model: Model, planned: Model, report: Report, profile: TargetProfile) -> tuple["PostprocessStep", ...]:
    """Return the last steps that --cut-tail would take off; tensors of a plan are those of its model."""
    from edgepack.pipeline.rewrite import has_accelerator
    from edgepack.repair import cuttable

    ops = [planned.main.ops[one.index] for one in report.ops if one.placement is not Placement.ACCELERATOR]
    return cuttable(model, {op.outputs[0] for op in ops if op.outputs}) if has_accelerator(profile) else ()


def _rule(profile: TargetProfile, scheme: str) -> SchemeRule:
    """Return the rule a float model is planned with: the one asked for, else the target's first choice."""
    from edgepack.quantize.select import select
    from edgepack.schemes import Needs

    return select(profile, {Needs.NOTHING, Needs.SAMPLES}, scheme).rule


def _own_rule(profile: TargetProfile, model: Model) -> SchemeRule | None:
    """Return the target's rule for what a quantized file is, None when the target has none."""
    from edgepack.quantize.select import scheme_of

    return profile.scheme_rule(scheme_of(model))


def _refusal(report: Report) -> UnfitModelError:
    summary = report.summary
    if report.compatible:
        return UnfitModelError(
            f"--require-full: {summary['host'] + summary['unsupported']} of {summary['total']} ops of "
            f"{report.target} are not on the accelerator",
            hint="each op above has its reason and its fix",
        )
    return UnfitModelError(f"the model does not fit {report.target}", hint="each op above has its reason and its fix")
