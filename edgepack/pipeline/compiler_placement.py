"""The vendor's compiler in place of the op table: what a check asks it, and the report that its answer gives."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgepack.compat import cut_note, reason
from edgepack.compilers import (
    CompiledOp,
    Compiler,
    CompileRequest,
    CompileResult,
    compare_placements,
    compile_model,
    get_compiler,
)
from edgepack.errors import CompilerError, EdgepackError, QuantizationError, ToolMissingError
from edgepack.findings import Basis, OpFinding, Placement, Reason, Report
from edgepack.graph import read_model
from edgepack.graph.edit import unique_names
from edgepack.pipeline.options import TargetOptions
from edgepack.pipeline.placement import check_placement
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.variants import choose_variant

if TYPE_CHECKING:
    from edgepack.pipeline.session import Session

#: Differences between the table and the compiler that a report names one by one.
_MOST_NAMED = 5

#: Random samples that a preview is calibrated with: scales do not decide where an op runs.
_SAMPLES = 1


@dataclass(frozen=True)
class Asking:
    """Whether a check asks the vendor's compiler.

    Attributes:
        compiler: The compiler; None when it is not asked.
        note: Why it is not, one sentence for people; empty where nobody expects it.
    """

    compiler: Compiler | None = None
    note: str = ""


def decide(profile: TargetProfile, scheme: str, size: int, options: TargetOptions, wanted: bool | None) -> Asking:
    """Decide whether the compiler is asked about a file.

    Args:
        profile: The target.
        scheme: The file's scheme.
        size: Bytes of the file.
        options: Variant and chips.
        wanted: True and False are the user's word. None asks a compiler that names a size up to which it answers
            within seconds (`asks_up_to`), about a file of at most that size, when a chip is given and it is installed.

    Raises:
        ToolMissingError: It is wanted and cannot be asked.
    """
    rule = profile.compiler
    if rule is None or wanted is False:
        return Asking()
    compiler = get_compiler(rule.id)
    limit = int(getattr(compiler, "asks_up_to", 0))
    if wanted is None and (not limit or not options.soc):
        return Asking()
    variant = choose_variant(profile, variant=options.variant, soc=options.soc)
    if variant.id != profile.variants[0].id:
        return Asking(note=f"The compiler was not asked: it does not compile for the variant {variant.id}.")
    if wanted is None and size > limit:
        return Asking(
            note=f"The compiler was not asked: the file has {size / 1e6:.1f} MB, and above {limit / 1e6:.0f} MB that "
            "takes longer than a check should. Ask it with --ask-compiler."
        )
    info = compiler.find()
    if info.found:
        return Asking(compiler)
    if wanted:
        raise ToolMissingError(f"{profile.id}: {info.name}: {info.problem or 'not installed'}", hint=info.install)
    return Asking(note=f"The compiler was not asked, because it is not installed: {info.install}.")


def quantized_file(session: "Session", tflite: bytes, rule: SchemeRule) -> bytes | None:
    """Return a float model in a scheme, with ranges of random samples; None where the quantizer refuses it.

    The data types, ops and shapes are those of the file that a build writes; only the scales differ.

    Args:
        session: Child processes.
        tflite: The float model, rewritten.
        rule: The scheme.
    """
    from edgepack.pipeline.jobs import CALIBRATE, QUANTIZE
    from edgepack.schemes import get_scheme

    calibration = None
    try:
        if get_scheme(rule.scheme).is_integer:
            calibration = session.workers.run(CALIBRATE.call(tflite, _SAMPLES, session.workers.threads))
        return session.workers.run(QUANTIZE.call(tflite, rule, calibration, "")).tflite
    except EdgepackError as error:
        if isinstance(error, QuantizationError) or error.exit_code == 3:
            return None
        raise


def ask(
    compiler: Compiler,
    tflite: bytes,
    report: Report,
    profile: TargetProfile,
    options: TargetOptions,
    timeout: float,
) -> Report:
    """Return the report of a check with the compiler's placement in place of the table's.

    Args:
        compiler: The vendor's compiler, installed.
        tflite: The checked file.
        report: The check of this file by the table.
        profile: The target.
        options: The chip.
        timeout: Seconds.
    """
    assert profile.compiler is not None
    if not _fails(report) and (distinct := unique_names(tflite)) is not tflite:
        # Ops are identified by their outputs, and some converters give several outputs one name.
        tflite, report = distinct, check_placement(read_model(distinct), profile, options)
    request = CompileRequest(
        tflite,
        "model",
        "int8",
        dict(profile.compiler.options),
        (options.soc,) * bool(options.soc),
        external_state=profile.external_state,
    )
    try:
        result = compile_model(compiler, request, timeout)
    except CompilerError as error:
        if failure := error.details.get("failures", {}).get(options.soc):
            return _failed(report, str(failure["reason"]), error.hint, _name_of(compiler, options.soc))
        note = f"The compiler gave no answer: {error.message}."
        return replace(report, notes=(*report.notes, note))
    if result.placements is None:
        return replace(report, notes=(*report.notes, f"The compiler was not asked: {result.reason}."))
    rows = result.placements
    if not all(row.output and row.count == 1 for row in rows):
        placed = sum(row.count for row in rows if row.placement is Placement.ACCELERATOR)
        note = (
            f"The compiler ({result.tool} {result.version}) places {placed} of {sum(row.count for row in rows)} ops on "
            "the accelerator. Its output does not tell which, so the ops are listed as the table places them."
        )
        return replace(report, notes=(*report.notes, note))
    return _placed(report, result, {row.output: row for row in rows}, profile, options)


def _placed(
    report: Report,
    result: CompileResult,
    rows: Mapping[str, CompiledOp],
    profile: TargetProfile,
    options: TargetOptions,
) -> Report:
    findings = tuple(_finding(finding, rows.get(finding.output)) for finding in report.ops)
    differences = compare_placements(report.ops, rows.values())
    notes = [note for note in report.notes if not note.endswith(profile.partition.cut) or not profile.partition.cut]
    hosted = sum(finding.placement is Placement.HOST for finding in findings)
    unsupported = any(finding.placement is Placement.UNSUPPORTED for finding in findings)
    if hosted and hosted < len(findings) and profile.partition.cut:
        notes.append(cut_note(hosted, len(findings), profile.partition.cut))
    moved = [difference for difference in differences if difference.ours != difference.theirs]
    for difference in moved[:_MOST_NAMED]:
        notes.append(f"The table disagrees with the compiler, whose word counts: {difference.message}.")
    if len(moved) > _MOST_NAMED:
        notes.append(f"The table disagrees with the compiler about {len(moved) - _MOST_NAMED} further ops.")
    figures = result.figures.get(options.soc, result.figures)
    return replace(
        report,
        compatible=not unsupported and (profile.fallback == "host" or not hosted),
        partitions=int(figures.get("partitions", report.partitions)),
        ops=findings,
        notes=tuple(notes),
        sources={
            str(Basis.COMPILER): _name(result.tool, result.version, options.soc),
            **{basis: text for basis, text in report.sources.items() if any(f.source == basis for f in findings)},
        },
    )


def _finding(finding: OpFinding, row: CompiledOp | None) -> OpFinding:
    """Return a finding as the compiler places the op."""
    asked = replace(finding, source=str(Basis.COMPILER))
    if row is None or finding.placement is Placement.UNSUPPORTED:
        return replace(finding, source=finding.source if row is None else asked.source)
    if row.placement is Placement.ACCELERATOR:
        return replace(asked, placement=row.placement, reasons=())
    own: tuple[Reason, ...] = ()
    if row.code == "left-by-compiler" and row.status != "left in the compiled file":
        own = (reason("compiler-leaves", row.status),)
    elif not finding.reasons:
        own = (reason("compiler-leaves", "left on the host, and the compiler's log names no reason"),)
    return replace(asked, placement=row.placement, reasons=(*own, *finding.reasons))


def _failed(report: Report, cause: str, fix: str, compiler: str) -> Report:
    """Return the report of a file that the compiler refuses as a whole: nothing runs on the accelerator."""
    whole = reason("compile-fails", f"the compiler writes no file: {cause}", fix=fix)
    findings = tuple(
        replace(
            finding,
            source=str(Basis.COMPILER),
            placement=Placement.HOST if finding.placement is Placement.ACCELERATOR else finding.placement,
            reasons=finding.reasons or (reason("compile-refused", "the compiler writes no file for this model"),),
        )
        for finding in report.ops
    )
    notes = (
        () if _fails(report) else ("The table disagrees with the compiler, whose word counts: it predicts no failure.",)
    )
    return replace(
        report,
        partitions=0,
        ops=findings,
        model_reasons=(whole, *report.model_reasons),
        notes=(*report.notes, *notes),
        sources={str(Basis.COMPILER): compiler},
    )


def _fails(report: Report) -> bool:
    """Return whether the table predicts that the compiler refuses the file as a whole."""
    return any(one.code == "compile-fails" for finding in report.ops for one in finding.reasons)


def _name_of(compiler: Compiler, soc: str) -> str:
    info = compiler.find()
    return _name(info.name, info.version, soc)


def _name(tool: str, version: str, soc: str) -> str:
    return f"{tool} {version}{f', asked for {soc}' if soc else ''}"
