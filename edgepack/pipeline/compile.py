"""The compiling stage: the vendor's compiler, where the target has one and it is installed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgepack.bundle.names import file_stem
from edgepack.bundle.spec import ModelFile
from edgepack.bundle.write import is_bundle
from edgepack.compilers import (
    Companion,
    CompileRequest,
    CompileResult,
    Difference,
    compare_placements,
    get_compiler,
)
from edgepack.compilers import (
    compile_model as run_compiler,
)
from edgepack.errors import ToolMissingError, UnfitModelError, UsageError
from edgepack.graph import read_model
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.option_validation import supports_segments
from edgepack.pipeline.results import NOT_COMPILED
from edgepack.pipeline.search.acceptance import Choice, require_placement
from edgepack.profiles.model import TargetProfile


@dataclass(frozen=True)
class CompiledModel:
    """What the vendor's compiler made of a file.

    Attributes:
        files: Compiled files, segments in their order; empty when nothing was compiled.
        report: `{status, tool, version, reason, ...}`.
        warnings: What the user should know.
        chips: SoC that a file was compiled for, by file name; empty for compilers that do not compile per SoC.
        latency: The compiler's estimate of an inference, or else the check's; None without one.
    """

    files: tuple[ModelFile, ...] = ()
    report: Mapping[str, Any] = field(default_factory=lambda: NOT_COMPILED)
    warnings: tuple[str, ...] = ()
    chips: Mapping[str, str] = field(default_factory=dict)
    latency: Mapping[str, Any] | None = None


def compile_model(context: BuildContext, profile: TargetProfile, choice: Choice) -> CompiledModel:
    """Run the vendor's compiler on the chosen file.

    Args:
        context: The build.
        profile: The target, with the variant resolved.
        choice: The chosen file with its placement.

    Raises:
        ToolMissingError: The compiler is required and not installed.
        CompilerError: It failed.
        UnfitModelError: A model of --co-compile does not fit the target.
        UsageError: The model cannot be cut into these segments, or compiled together with these models.
    """
    options, rule = profile.compiler, choice.trial.candidate.rule
    if options is None:
        return _skipped(f"{profile.id} needs no compiler")
    if rule.scheme not in options.schemes:
        return _skipped(f"not for {rule.scheme}")
    if context.options.compile == "never":
        return _skipped("--compile never")
    context.session.progress(f"compiling for {profile.id}")
    request = CompileRequest(
        model=choice.trial.quantized.tflite,
        name=file_stem(context.name),
        scheme=rule.scheme,
        options=dict(options.options),
        socs=context.options.target.socs,
        external_state=profile.external_state,
    )
    if supports_segments(profile):
        companions = tuple(_companion(path, profile) for path in context.options.co_compile)
        request = replace(request, companions=companions, segments=context.options.segments)
    timeout = min(context.options.compile_timeout, context.session.workers.remaining)
    result = run_compiler(get_compiler(options.id), request, timeout)
    warnings: list[str] = []
    if result.status == "skipped":
        if context.options.compile == "require" or options.policy == "required":
            raise ToolMissingError(f"{profile.id}: {result.reason}", hint=result.hint)
        warnings.append(f"not compiled: {result.reason}")
    differences: tuple[Difference, ...] = ()
    if result.placements is not None:
        differences = compare_placements(choice.trial.placement.ops, result.placements)
        warnings.extend(difference.message for difference in differences)
    warnings.extend(result.warnings)
    report = {**result.to_json(), "differences": [difference.to_json() for difference in differences]}
    return CompiledModel(_files(result), report, tuple(warnings), result.chips)


def with_latency(compiled: CompiledModel, context: BuildContext, choice: Choice) -> CompiledModel:
    """Return a compiled model with its estimated latency: the compiler's own estimate, or else the check's.

    The check's is of one model alone on one accelerator: there is none for segments and models compiled together.
    """
    estimated = compiled.report.get("latency")
    if estimated is None and not (context.options.segments or context.options.co_compile):
        estimated = choice.trial.placement.estimates.get("latency")
    return replace(compiled, latency=estimated)


def _skipped(reason: str) -> CompiledModel:
    return CompiledModel(report={**NOT_COMPILED, "reason": reason})


def _files(result: CompileResult) -> tuple[ModelFile, ...]:
    own = [name for name in sorted(result.files) if name not in {*result.segments, *result.companions}]
    roles = {"compiled": own, "segment": result.segments, "co-compiled": result.companions}
    return tuple(ModelFile(role, name, result.files[name]) for role, names in roles.items() for name in names)


def _companion(path: Path, profile: TargetProfile) -> Companion:
    """Return a model to compile together with the build's: a quantized .tflite, or a bundle's host file."""
    from edgepack.compat import check

    name, file = path.stem, path
    if path.is_dir() and is_bundle(path):
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        try:
            name, file = str(manifest["name"]), path / str(manifest["model"]["host"])
        except (KeyError, TypeError) as error:
            raise UsageError(f"--co-compile: the manifest of '{path}' names no model: run edgepack verify") from error
    if not file.is_file():
        raise UsageError(
            f"--co-compile: expected a quantized .tflite or a bundle, got '{path}'",
            hint="build the other model with -t edgetpu first, and give that bundle",
        )
    data = file.read_bytes()
    model = read_model(data)
    # The compiler's wrapper has better messages for files that are not quantized, or compiled already.
    if model.is_quantized and not any(op.label.startswith("CUSTOM:") for op in model.main.ops):
        try:
            require_placement(check(model, profile), profile, full=False)
        except UnfitModelError as error:
            raise UnfitModelError(f"--co-compile '{name}': {error.message}", hint=error.hint) from error
    return Companion(file_stem(name), data)
