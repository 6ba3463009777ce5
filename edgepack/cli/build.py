"""`edgepack build`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgepack.cli import arguments, matrix, output, simulations
from edgepack.cli import help as panels
from edgepack.cli.flags import Given, table_flags
from edgepack.cli.subjects import Selection, find_subject
from edgepack.distribution import require_packages
from edgepack.errors import UsageError
from edgepack.files import write_atomically

if TYPE_CHECKING:
    from edgepack.pipeline.results import TargetResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("build", cls=panels.Command)(build)


@table_flags("build")
def build(
    given: Given,
    words: list[str] | None = arguments.SUBJECTS,
    project: Path | None = arguments.PROJECT,
    jobs: int = arguments.JOBS,
    scheduler: str = matrix.SCHEDULER,
    fail_fast: bool = matrix.FAIL_FAST,
    summary: Path | None = arguments.SUMMARY,
) -> int:
    """Convert, quantize, check, compile, measure and bundle a model for one or more targets."""
    from edgepack.pipeline.build import build

    require_packages("build")
    arguments.require_folder_of("--summary", summary)
    subject = find_subject(words or [], project, given)
    if isinstance(subject, Selection):
        if summary is not None and given.get("dry-run"):
            raise UsageError("--summary is for what was built", hint="leave out --dry-run; its plan is on stdout")
        return matrix.build_cells(
            replace(subject.project, cells=subject.cells),
            dry_run=bool(given.get("dry-run")),
            jobs=jobs,
            scheduler=scheduler,
            fail_fast=fail_fast,
            as_json=given.json,
            summary=summary,
        )
    if jobs or scheduler or fail_fast:
        raise UsageError("--jobs, --scheduler and --fail-fast are for projects", hint="`edgepack init` writes one")
    result = build(
        arguments.require_path(subject),
        arguments.require_targets(given.targets),
        given.options(),
        arguments.progress(given.json),
        arguments.notice(given.json),
    )
    if summary is not None:
        from edgepack.pipeline.reports.summary import build_summary

        write_atomically(summary, build_summary(subject.as_posix(), result.results))
    if given.json:
        output.document(
            "build", [r.to_json() for r in result.results], result.error, notes=result.notes, source=result.source
        )
    else:
        _print(result.results, result.notes)
    return result.error.exit_code if result.error else 0


def _print(results: Sequence["TargetResult"], notes: Sequence[str]) -> None:
    output.out(_table(results))
    output.out()
    for entry in results:
        if entry.reason:
            output.out(output.wrap(f"{entry.target}: {entry.reason}"))
        if entry.latency is not None:
            output.out(output.wrap(f"  latency: {entry.latency['text']}", "    "))
        for rewrite in entry.repairs:
            output.out(output.wrap(f"  rewritten: {rewrite.message}{_moved(rewrite.moved_ops)}", "    "))
        for step in entry.postprocessing:
            output.out(output.wrap(f"  moved to the loader: {step.message}", "    "))
        for simulation in entry.simulation:
            simulations.show(simulation)
    for note in notes:
        output.warn(note)
    for warning in dict.fromkeys(warning for entry in results for warning in entry.warnings):
        targets = ", ".join(entry.target for entry in results if warning in entry.warnings)
        output.warn(f"{targets}: {warning}")
    for entry in results:
        if entry.error is not None:
            output.err(f"{entry.target}:")
            output.error(entry.error)


def _moved(count: int) -> str:
    # Some rewrites move nothing: they give values of different ranges scales of their own.
    return f" ({count} more op{'' if count == 1 else 's'} on the accelerator)" if count else ""


def _table(results: Sequence["TargetResult"]) -> str:
    """Return the table of a build, with the path of each bundle on a line below its row because paths are long."""
    metrics = {one.quality.accuracy.metric for one in results if one.quality and one.quality.accuracy}
    accuracy = "top-1" if metrics <= {"top-1"} else "accuracy"
    header = ["target", "scheme", "size", "accel", "host", accuracy, "SNR dB"]
    rows = [_row(entry) for entry in results]
    # SOFTMAX hides errors of small probabilities: where the model ends in it, the SNR of its input says more.
    logits = [None if entry.quality is None else entry.quality.logits_snr_db for entry in results]
    if any(logits):
        header[-1:] = ["SNR", "logits"]
        rows = [(*row, "-" if value is None else f"{value:.1f}") for row, value in zip(rows, logits, strict=True)]
    lines = output.table(header, rows, right=range(2, len(header))).splitlines()
    text = lines[:2]
    for entry, line in zip(results, lines[2:], strict=True):
        text.append(line)
        if entry.error is not None:
            text.append(f"  failed: {entry.error.kind}, exit code {entry.error.exit_code} (see below)")
        elif entry.bundle is not None:
            text.append(f"  {entry.bundle}")
        else:
            text.append("  dry run: nothing written")
        text.extend(_judgement(entry))
    return "\n".join(text)


def _judgement(entry: "TargetResult") -> list[str]:
    """Return a line for the worst loss of a file; the warnings list all."""
    from edgepack.pipeline.search.loss import judge

    findings = () if entry.quality is None else judge(entry.quality)
    return [
        output.wrap(f"  {'LIKELY UNUSABLE' if finding.unusable else 'loses accuracy'}: {finding.message}", "    ")
        for finding in findings[:1]
    ]


def _row(entry: "TargetResult") -> tuple[str, ...]:
    summary = None if entry.report is None else entry.report.summary
    quality = entry.quality
    equal = quality is not None and quality.snr_db is None and quality.agreement == 100.0
    return (
        entry.target,
        entry.scheme or "-",
        "-" if entry.model is None else output.change(entry.float_bytes, len(entry.model)),
        "-" if summary is None else str(summary["accelerator"]),
        "-" if summary is None else str(summary["host"] + summary["unsupported"]),
        "-" if quality is None or quality.accuracy is None else str(quality.accuracy),
        "equal" if equal else "-" if quality is None or quality.snr_db is None else f"{quality.snr_db:.1f}",
    )
