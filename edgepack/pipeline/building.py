"""The order of the steps of a build, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack.bundle.names import file_stem
from edgepack.cache import sha256
from edgepack.convert import FloatModel
from edgepack.errors import (
    EdgepackError,
    QuantizationError,
    ToolMissingError,
    UnfitModelError,
    UsageError,
)
from edgepack.graph import Model, read_model
from edgepack.pipeline.bundling import bundle_files, read_labels
from edgepack.pipeline.choice import resolve_targets
from edgepack.pipeline.formats import scheme_of
from edgepack.pipeline.inputs import input_specs
from edgepack.pipeline.judging import AUTO_DROP, acceptable, hold, loss, loss_text, require
from edgepack.pipeline.options import BuildOptions, Progress, silent
from edgepack.pipeline.repairing import repair_kept, require_mode
from edgepack.pipeline.results import BuildResult, TargetResult
from edgepack.pipeline.session import Session
from edgepack.pipeline.training import labelled
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.variants import choose_variant
from edgepack.quantize.select import Selection, select
from edgepack.runtime.metrics import Quality
from edgepack.samples import Preprocess, SampleSet, lint, load_samples
from edgepack.schemes import Needs, get_scheme

#: How many random samples an explicit --random-calibration makes up.
RANDOM_SAMPLES = 100


def build(
    model: Path, targets: Sequence[str], options: BuildOptions | None = None, progress: Progress = silent
) -> BuildResult:
    """Build a bundle of `model` for each target.

    Every target is tried; a target's failure stands in its result.

    Args:
        model: .keras, .h5, a SavedModel folder or .tflite.
        targets: Target ids, or `all`.
        options: What the user asked for.
        progress: Told what is being done.

    Raises:
        EdgepackError: Something that concerns every target: an unknown target, a model that cannot be read, samples
            that do not match.
    """
    options = options or BuildOptions()
    profiles = resolve_targets(targets)
    with Session(options.model, progress) as session:
        run = _Build.prepare(model, options, session, progress)
        results = [run.target(profile) for profile in profiles]
        return BuildResult(results, run.notes, run.source)


@dataclass
class _Build:
    """What all targets of one build share."""

    options: BuildOptions
    session: Session
    progress: Progress
    name: str
    float_model: FloatModel
    source: dict[str, Any]
    notes: list[str]
    path: Path
    samples: SampleSet | None
    training: SampleSet | None
    evaluation: SampleSet | None
    labels: tuple[str, ...]
    convert_seconds: float

    @classmethod
    def prepare(cls, path: Path, options: BuildOptions, session: Session, progress: Progress) -> "_Build":
        watch = TargetResult("").stopwatch
        if options.compile not in {"auto", "require", "never"}:
            raise UsageError(f"--compile: expected auto, require or never, got '{options.compile}'")
        require_mode(options.target.repair)
        if options.effort not in {"low", "medium", "high"}:
            raise UsageError(f"--effort: expected low, medium or high, got '{options.effort}'")
        labels = read_labels(options.labels) if options.labels is not None else ()
        with watch.step("convert"):
            float_model, source = session.float_model(path)
        notes = list(float_model.notes)
        inputs = input_specs(float_model.tflite)
        preprocess = Preprocess.parse(options.preprocess) if options.preprocess else None
        samples = load_samples(options.samples, inputs, preprocess=preprocess) if options.samples else None
        training = labelled(options.train, float_model.tflite, options.preprocess) if options.train else None
        samples = samples if samples is not None else training
        evaluation = load_samples(options.eval, inputs, preprocess=preprocess) if options.eval else None
        for found in (samples, evaluation):
            notes.extend(note for note in (found.notes if found else ()) if note not in notes)
        if samples is not None:
            samples = samples.limited(options.calibration_samples)
            notes.extend(lint(samples, evaluation))
        return cls(
            options=options,
            session=session,
            progress=progress,
            name=options.name or path.name.removesuffix("/").rsplit(".", 1)[0],
            float_model=float_model,
            source=source,
            notes=notes,
            path=path,
            samples=samples,
            training=training,
            evaluation=evaluation,
            labels=labels or (evaluation.label_names if evaluation else ()),
            convert_seconds=watch.seconds["convert"],
        )

    def target(self, profile: TargetProfile) -> TargetResult:
        """Build one target; its failure becomes part of the result."""
        result = TargetResult(profile.id)
        result.stopwatch.seconds["convert"] = self.convert_seconds
        try:
            self._steps(profile, result)
        except EdgepackError as error:
            result.error = error
        return result

    def _steps(self, profile: TargetProfile, result: TargetResult) -> None:
        from edgepack.compat import check

        watch = result.stopwatch
        result.float_bytes = len(self.float_model.tflite)
        wish = self.options.target
        variant = choose_variant(profile, variant=wish.variant, soc=wish.soc)
        profile = replace(
            profile, schemes=variant.schemes or profile.schemes, partition=variant.partition, ops=variant.ops
        )
        rule = self._scheme(profile, result)
        assert result.model is not None
        result.model_sha256 = sha256(result.model)
        result.model_name = f"{file_stem(self.name)}.tflite"
        model = read_model(result.model)
        with watch.step("check"):
            result.report = check(
                model, profile, variant=variant.id, soc=wish.soc, runtime_version=wish.runtime_version
            )
        require(result.report, profile, full=wish.require_full)
        with watch.step("compile"):
            compiled = self._compile(profile, rule, result)
        with watch.step("measure"):
            self._measure(result)
        if self.options.max_drop is not None:
            hold(result.quality, self.options.max_drop, result.scheme, profile.id)
        with watch.step("bundle"):
            self._bundle(profile, model, compiled, result)

    # -- scheme and quantization ---------------------------------------------------------------------------------

    def _scheme(self, profile: TargetProfile, result: TargetResult) -> SchemeRule:
        """Choose the scheme and make its file."""
        if self.float_model.quantized:
            return self._as_it_is(profile, result)
        available = {Needs.NOTHING}
        if self.samples is not None or self.options.random_calibration:
            available.add(Needs.SAMPLES)
        if self.training is not None:
            available.add(Needs.LABELS)
        selection = select(profile, available, self.options.scheme)
        tried: dict[str, tuple[SchemeRule, Quality]] = {}
        rule, reason = selection.rule, selection.reason
        if self.options.scheme == "auto" and (self.evaluation or self.samples) and len(selection.candidates) > 1:
            rule, reason = self._least_loss(profile, selection, result, tried)
        result.scheme, result.reason = rule.scheme, reason
        self._make(profile, rule, result)
        return rule

    def _least_loss(
        self,
        profile: TargetProfile,
        selection: Selection,
        result: TargetResult,
        tried: dict[str, tuple[SchemeRule, Quality]],
    ) -> tuple[SchemeRule, str]:
        """Take the first candidate that loses little enough; when none does, the one that loses least."""
        limit = self.options.max_drop if self.options.max_drop is not None else AUTO_DROP
        for rule in selection.candidates:
            self._make(profile, rule, result)
            with result.stopwatch.step("measure"):
                self._measure(result)
            quality = result.quality
            if quality is None or (not tried and acceptable(quality, limit)):
                return rule, selection.reason
            if acceptable(quality, limit):
                first, lost = next(iter(tried.values()))
                return (
                    rule,
                    f"{rule.scheme}, because {first.scheme} loses {loss_text(lost)} and this {loss_text(quality)}",
                )
            tried[rule.scheme] = (rule, quality)
        rule, quality = min(tried.values(), key=lambda pair: loss(pair[1]))
        return rule, f"{rule.scheme} loses least of what the target and the data allow: {loss_text(quality)}"

    def _make(self, profile: TargetProfile, rule: SchemeRule, result: TargetResult) -> None:
        """Quantize to a rule; everything behind it is cached, so making a file twice costs nothing."""
        if get_scheme(rule.scheme).needs is Needs.LABELS:
            self._train(rule, result)
            return
        with result.stopwatch.step("check"):
            proven = repair_kept(
                self.session, self.float_model.tflite, profile, rule, self.options.target, samples=self.samples
            )
        tflite, result.repairs = proven.repaired.tflite, proven.repaired.rewrites
        result.improvements, result.warnings = None, [*proven.notes]
        if self._improve(tflite, rule, result):
            return
        calibration = None
        if self._needs_ranges(rule):
            with result.stopwatch.step("calibrate"):
                calibration = self.session.calibration(
                    tflite, self.samples if self.samples is not None else RANDOM_SAMPLES
                )
        with result.stopwatch.step("quantize"):
            result.model, result.tool, notes = self.session.quantized(tflite, rule, calibration, self.options.method)
        result.warnings.extend(notes)
        if calibration is not None and self.samples is None:
            result.warnings.append("calibrated on random numbers: accuracy on real data is unknown")

    def _improve(self, tflite: bytes, rule: SchemeRule, result: TargetResult) -> bool:
        """Make an int8 file with more effort; False where that does not apply and the ordinary way is taken."""
        from edgepack.quantize.apply import QuantizationRefused

        if self.options.effort == "low" or rule.scheme != "int8" or self.samples is None:
            return False
        with result.stopwatch.step("quantize"):
            try:
                done = self.session.improved(tflite, rule, self.samples, self.options.effort)
            except QuantizationRefused as refused:
                result.warnings.append(f"quantized with effort low: {refused.message}")
                return False
        result.model, result.tool, notes, result.improvements = done
        result.warnings.extend(notes)
        return True

    def _train(self, rule: SchemeRule, result: TargetResult) -> None:
        """Make the file by quantization-aware training on the labelled samples."""
        from edgepack.pipeline.training import train_model
        from edgepack.train import TrainOptions

        assert self.training is not None
        options = TrainOptions(epochs=self.options.epochs, allow_code=self.options.model.allow_code)
        self.progress(f"training on {len(self.training)} labelled samples")
        with result.stopwatch.step("quantize"):
            trained = train_model(
                self.session, self.path, self.float_model.tflite, self.training, "qat", options, rule=rule
            )
        result.model, result.tool, result.repairs = trained.tflite, "tensorflow-model-optimization", ()
        result.warnings = list(trained.notes)
        if trained.left_float:
            listed = ", ".join(trained.left_float)
            result.warnings.append(f"layers that cannot be trained for int8 stay float: {listed}")

    @staticmethod
    def _needs_ranges(rule: SchemeRule) -> bool:
        return rule.scheme in {"int8", "int16x8"}

    def _as_it_is(self, profile: TargetProfile, result: TargetResult) -> SchemeRule:
        """Use a file that is quantized already, when the target takes what it is."""
        model = read_model(self.float_model.tflite)
        have = scheme_of(model)
        asked = self.options.scheme
        if asked not in {"auto", have} or profile.scheme_rule(have) is None:
            wanted = asked if asked not in {"auto", have} else " or ".join(rule.scheme for rule in profile.schemes)
            raise QuantizationError(
                f"the model is already quantized ({have}); {profile.id} with {wanted} would need the float model",
                hint="give the .keras, SavedModel or float .tflite it was made from",
            )
        rule = profile.scheme_rule(have)
        assert rule is not None
        result.scheme, result.reason = have, "the file is already quantized and is used as it is"
        result.model, result.tool = self.float_model.tflite, "as given"
        return rule

    # -- compile, measure, bundle --------------------------------------------------------------------------------

    def _compile(self, profile: TargetProfile, rule: SchemeRule, result: TargetResult) -> dict[str, bytes]:
        """Run the vendor's compiler where there is one; return the files it made."""
        from edgepack.compilers import CompileRequest, compare_placements, get_compiler

        wanted = profile.compiler
        if wanted is None or rule.scheme not in wanted.schemes:
            result.compile["reason"] = f"{profile.id} needs no compiler" if wanted is None else f"not for {rule.scheme}"
            return {}
        if self.options.compile == "never":
            result.compile["reason"] = "--compile never"
            return {}
        assert result.model is not None and result.report is not None
        self.progress(f"compiling for {profile.id}")
        request = CompileRequest(
            model=result.model,
            name=file_stem(self.name),
            scheme=rule.scheme,
            options=dict(wanted.options),
            socs=self.options.target.socs,
        )
        done = get_compiler(wanted.id).compile(request, timeout=self.options.compile_timeout)
        result.compile = {**done.to_json(), "differences": []}
        if done.status == "skipped":
            if self.options.compile == "require" or wanted.policy == "required":
                raise ToolMissingError(f"{profile.id}: {done.reason}", hint=done.hint)
            result.warnings.append(f"not compiled: {done.reason}")
        if done.placements is not None:
            differences = compare_placements(result.report.ops, done.placements)
            result.compile["differences"] = [difference.to_json() for difference in differences]
            result.warnings.extend(difference.message for difference in differences)
        result.warnings.extend(done.warnings)
        return dict(done.files)

    def _measure(self, result: TargetResult) -> None:
        """Hold the file against the float model on the evaluation samples, else on the calibration samples."""
        samples = self.evaluation or self.samples
        if samples is None or result.model is None:
            return
        reference = self.float_model.tflite
        try:
            quality = self.session.qualities(reference, {result.scheme or "model": result.model}, samples)
        except UnfitModelError as error:
            if not self.float_model.quantized:
                raise
            # A custom op of the user's own app: the file is sound, it only does not run here.
            result.warnings.append(f"not measured: {error.message}")
            return
        result.quality = next(iter(quality.values()))
        if self.float_model.quantized:
            # There is no float model to hold it against; only its own accuracy is known.
            result.quality = replace(result.quality, snr_db=None, agreement=None, top1_float=None)
        for name in result.quality.collapsed:
            text = f"output '{name}' has one value on all samples: the quantized model has collapsed"
            if text not in result.warnings:
                result.warnings.append(text)

    def _bundle(self, profile: TargetProfile, model: Model, compiled: dict[str, bytes], result: TargetResult) -> None:
        """Render the bundle and move it into place."""
        from edgepack.bundle.write import write

        files = bundle_files(
            session=self.session,
            options=self.options,
            profile=profile,
            name=self.name,
            source=self.source,
            model=model,
            compiled=compiled,
            result=result,
            samples=self.evaluation or self.samples,
            calibration=self._calibration_facts(result),
            labels=self.labels,
            notes=self.notes,
        )
        if self.options.dry_run:
            return
        destination = self.options.out / f"{file_stem(self.name)}-{profile.id}"
        write(files, destination, force=self.options.force)
        result.bundle = destination

    def _method(self, result: TargetResult) -> str:
        from edgepack.quantize.ranges import DEFAULT_METHOD

        if result.improvements is None:
            return self.options.method or DEFAULT_METHOD
        kept = [step["step"] for step in result.improvements["steps"] if step["kept"]]
        return f"effort {self.options.effort}: {', '.join(kept)}"

    def _calibration_facts(self, result: TargetResult) -> dict[str, Any] | None:
        if self.float_model.quantized or result.scheme not in {"int8", "int16x8"}:
            return None
        random = self.samples is None
        return {
            "samples": RANDOM_SAMPLES if self.samples is None else len(self.samples),
            "source": "" if self.samples is None else self.samples.source,
            "random": random,
            "method": self._method(result),
        }
