"""Run a target's compiler: what it is asked for, and what of its answer the build keeps."""

import json
from dataclasses import replace
from pathlib import Path

from edgepack.bundle.names import file_stem
from edgepack.bundle.spec import ModelFile
from edgepack.bundle.write import is_bundle
from edgepack.compilers import Companion, CompileRequest, CompileResult, compare_placements, get_compiler
from edgepack.errors import ToolMissingError, UnfitModelError, UsageError
from edgepack.graph import read_model
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.results import TargetResult
from edgepack.pipeline.search.acceptance import require
from edgepack.profiles.model import SchemeRule, TargetProfile


def divides(profile: TargetProfile) -> bool:
    """Return whether the target's compiler cuts models into segments and compiles several together."""
    return profile.compiler is not None and bool(getattr(get_compiler(profile.compiler.id), "divides", False))


def compile_model(
    given: BuildContext, profile: TargetProfile, rule: SchemeRule, result: TargetResult
) -> tuple[ModelFile, ...]:
    """Run the vendor's compiler where there is one; return the files it made, segments in their order.

    Raises:
        ToolMissingError: The compiler is required and not installed.
        CompilerError: It failed.
        UnfitModelError: A model of --co-compile does not fit the target.
        UsageError: Segments or models to compile together that cannot be.
    """
    wanted = profile.compiler
    if wanted is None or rule.scheme not in wanted.schemes:
        result.compile["reason"] = f"{profile.id} needs no compiler" if wanted is None else f"not for {rule.scheme}"
        return ()
    if given.options.compile == "never":
        result.compile["reason"] = "--compile never"
        return ()
    assert result.model is not None and result.report is not None
    given.progress(f"compiling for {profile.id}")
    request = CompileRequest(
        model=result.model,
        name=file_stem(given.name),
        scheme=rule.scheme,
        options=dict(wanted.options),
        socs=given.options.target.socs,
    )
    if divides(profile):
        others = tuple(_companion(path, profile) for path in given.options.co_compile)
        request = replace(request, companions=others, segments=given.options.segments)
    done = get_compiler(wanted.id).compile(request, timeout=given.options.compile_timeout)
    result.compile = {**done.to_json(), "differences": []}
    if done.status == "skipped":
        if given.options.compile == "require" or wanted.policy == "required":
            raise ToolMissingError(f"{profile.id}: {done.reason}", hint=done.hint)
        result.warnings.append(f"not compiled: {done.reason}")
    if done.placements is not None:
        differences = compare_placements(result.report.ops, done.placements)
        result.compile["differences"] = [difference.to_json() for difference in differences]
        result.warnings.extend(difference.message for difference in differences)
    result.warnings.extend(done.warnings)
    return _files(done)


def _files(done: CompileResult) -> tuple[ModelFile, ...]:
    own = [name for name in sorted(done.files) if name not in {*done.segments, *done.companions}]
    roles = {"compiled": own, "segment": done.segments, "co-compiled": done.companions}
    return tuple(ModelFile(role, name, done.files[name]) for role, names in roles.items() for name in names)


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
    # What is not quantized, or compiled already, the compiler's wrapper refuses in better words.
    if model.is_quantized and not any(op.label.startswith("CUSTOM:") for op in model.main.ops):
        try:
            require(check(model, profile), profile, full=False)
        except UnfitModelError as error:
            raise UnfitModelError(f"--co-compile '{name}': {error.message}", hint=error.hint) from error
    return Companion(file_stem(name), data)
