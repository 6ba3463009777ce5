"""`edgepack check`."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.cli.cell_runs import run_shown
from edgepack.cli.flags import Given, table_flags
from edgepack.cli.subjects import Selection, find_subject, shown_path, worst
from edgepack.files import write_atomically
from edgepack.findings import OpFinding, Placement, Report

if TYPE_CHECKING:
    from edgepack.pipeline.check import CheckedTarget
    from edgepack.project.cells import Cell

#: Finds the op that ended the partition in a message of `outside-partition`.
_CUT = re.compile(r"by op (\d+) \((.+)\), which runs elsewhere$")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check", cls=panels.Command)(check)


@table_flags("check")
def check(
    given: Given,
    words: list[str] | None = arguments.SUBJECTS,
    ask_compiler: bool | None = typer.Option(
        None,
        "--ask-compiler/--no-ask-compiler",
        help="Ask the vendor's compiler where each op runs, instead of the op table; --no-ask-compiler takes the "
        "table. Default: ask where it is installed, a chip is given and the file has at most 20 MB.",
        rich_help_panel=panels.TARGET,
        show_default=False,
    ),
    every: bool = arguments.flag(panels.OUTPUT, "--all", "List every op instead of grouping ops by reason."),
    sarif: Path | None = arguments.option(
        panels.OUTPUT, "--sarif", "FILE", "Also write the findings as SARIF 2.1.0, for code scanning."
    ),
    summary: Path | None = arguments.SUMMARY,
    project: Path | None = arguments.PROJECT,
    jobs: int = arguments.JOBS,
) -> int:
    """Report per-op accelerator support, with reasons and fixes."""
    from edgepack.pipeline.check import check as run

    arguments.require_folder_of("--sarif", sarif)
    arguments.require_folder_of("--summary", summary)
    subject = find_subject(words or [], project, given)
    if isinstance(subject, Selection):
        return _check_cells(subject, given, ask_compiler, every, sarif, summary, jobs)
    arguments.refuse_jobs(jobs)
    options = given.options()
    result = run(
        arguments.require_path(subject),
        arguments.require_targets(given.targets),
        options.model,
        options.target,
        scheme=options.scheme,
        ask_compiler=ask_compiler,
        progress=arguments.progress(given.json),
    )
    _write_reports(sarif, summary, {subject.as_posix(): result.results})
    if given.json:
        output.document("check", [entry.to_json() for entry in result.results], result.error)
    else:
        for position, entry in enumerate(result.results):
            if position:
                output.out()
            _print_target(entry, every)
    return result.error.exit_code if result.error else 0


def _check_cells(
    selection: Selection,
    given: Given,
    ask_compiler: bool | None,
    every: bool,
    sarif: Path | None,
    summary: Path | None,
    jobs: int,
) -> int:
    """Check cells of a project, and return the exit code of the worst."""
    from edgepack.pipeline.check import CheckedTarget
    from edgepack.project.cell_work import check_cell
    from edgepack.project.graph import Kind

    entries: list[tuple[Cell, CheckedTarget]] = []
    runs = run_shown(
        selection, Kind.CHECK, check_cell, lambda cell: {"ask_compiler": ask_compiler}, jobs, as_json=given.json
    )
    for run in runs:
        results = (CheckedTarget(run.cell.target, error=run.error),) if run.result is None else run.result.results
        entries.extend((run.cell, entry) for entry in results)
    error = worst([entry.error for _, entry in entries])
    checked: dict[str, list[CheckedTarget]] = {}
    for cell, entry in entries:
        checked.setdefault(shown_path(cell.path).as_posix(), []).append(entry)
    _write_reports(sarif, summary, checked)
    if given.json:
        documents = [{"cell": cell.id, **entry.to_json()} for cell, entry in entries]
        output.document("check", documents, error, project=selection.project.name)
    else:
        for position, (cell, entry) in enumerate(entries):
            if position:
                output.out()
            output.out(f"{cell.id}:")
            _print_target(entry, every)
    return error.exit_code if error else 0


def _write_reports(sarif: Path | None, summary: Path | None, checked: "Mapping[str, Sequence[CheckedTarget]]") -> None:
    """Write the files that were asked for; the SARIF document has a run for each model, by its path."""
    if sarif is not None:
        from edgepack.pipeline.reports.sarif import sarif as sarif_document

        documents = [
            sarif_document([entry.report for entry in entries if entry.report], model)
            for model, entries in checked.items()
        ]
        runs = [run for document in documents for run in document["runs"]]
        write_atomically(sarif, output.json_text({**documents[0], "runs": runs}) + "\n")
    if summary is not None:
        from edgepack.pipeline.reports.summary import check_summary

        write_atomically(summary, "\n".join(check_summary(model, entries) for model, entries in checked.items()))


def _print_target(entry: "CheckedTarget", every: bool) -> None:
    if entry.report is not None:
        _print(entry.report, entry.planned, every)
        for rewrite in entry.repairs:
            output.out(output.wrap(f"  build would rewrite: {rewrite.message} [{rewrite.code}]", "    "))
        for step in entry.postprocessing:
            output.out(output.wrap(f"  moved to the loader: {step.message}", "    "))
        for step in entry.cuttable:
            output.out(output.wrap(f"  --cut-tail would move {step.message} to the loader", "    "))
    if entry.error is not None:
        output.error(entry.error)


def _print(report: Report, planned: str, every: bool) -> None:
    summary = report.summary
    title = report.target + (f" ({report.variant})" if report.variant else "")
    verdict = output.style("fits", "green") if report.compatible else output.style("does not fit", "red")
    output.out(
        output.wrap(
            f"{title}: {verdict}; {summary['accelerator']} of {summary['total']} ops on the accelerator in "
            f"{summary['partitions']} partition{'' if summary['partitions'] == 1 else 's'}, "
            f"{summary['host']} on the host, "
            f"{summary['unsupported']} unsupported"
        )
    )
    if planned:
        output.out(output.wrap(f"  planned: the placement of the file that `edgepack build` would write as {planned}"))
    if every:
        _print_every(report.ops)
    else:
        _print_grouped(report)
    for basis, text in report.sources.items():
        output.out(output.wrap(f"  {_BASIS[basis]}: {text}", "    "))
    for reason in report.model_reasons:
        output.out(output.wrap(f"  model: {reason.message} [{reason.code}]", "    "))
        output.out(output.wrap(f"    fix: {reason.fix}", "      "))
    for note in report.notes:
        output.out(output.wrap(f"  note: {note}", "    "))


def _print_every(ops: Iterable[OpFinding]) -> None:
    for finding in ops:
        output.out(
            output.wrap(
                f"  {finding.index:4d}  {finding.placement!s:<12} {finding.op} v{finding.version}  {finding.output}"
                f"{_label(finding.source)}",
                "        ",
            )
        )
        _print_reasons(finding, "          ")


def _print_grouped(report: Report) -> None:
    for basis in dict.fromkeys(finding.source for finding in report.ops):
        accelerated = Counter(
            finding.op
            for finding in report.ops
            if finding.placement is Placement.ACCELERATOR and finding.source == basis
        )
        if accelerated:
            listed = ", ".join(
                f"{op} x{count}" for op, count in sorted(accelerated.items(), key=lambda item: (-item[1], item[0]))
            )
            output.out(output.wrap(f"  accelerator{_label(basis)}: {listed}", "    "))
    # Ops with the same reason share one entry, so that the report of a model with 300 ops stays readable.
    groups: dict[tuple[str, ...], list[OpFinding]] = {}
    for finding in report.ops:
        if finding.placement is not Placement.ACCELERATOR:
            groups.setdefault(_group(finding), []).append(finding)
    for findings in groups.values():
        listed = ", ".join(f"{op} ({_where(indices)})" for op, indices in _by_op(findings).items())
        output.out(output.wrap(f"  {findings[0].placement}{_label(*(f.source for f in findings))}: {listed}", "    "))
        if not _print_cut(findings):
            _print_reasons(findings[0], "    ")


def _group(finding: OpFinding) -> tuple[str, ...]:
    """Return the key under which ops share an entry: what ended the partition before them, else op and reasons."""
    codes = tuple(reason.code for reason in finding.reasons)
    if codes == ("outside-partition",):
        return (str(finding.placement), re.sub(r"op \d+", "op", finding.reasons[0].message))
    # What a compiler says depends on the op's data types, so that each sentence is shown.
    words = tuple(reason.message for reason in finding.reasons if reason.code == "compiler-leaves")
    return (str(finding.placement), finding.source, finding.op, *codes, *words)


#: Whose word a placement is, for people, by `Basis`.
_BASIS = {
    "compiler": "compiler",
    "measured": "measured",
    "source": "source code",
    "documentation": "documentation",
    "inferred": "inferred",
    "recalled": "not verified",
}


def _label(*bases: str) -> str:
    known = dict.fromkeys(_BASIS[basis] for basis in bases if basis in _BASIS)
    return f" ({', '.join(known)})" if known else ""


def _by_op(findings: list[OpFinding]) -> dict[str, list[int]]:
    indices: dict[str, list[int]] = {}
    for finding in findings:
        indices.setdefault(finding.op, []).append(finding.index)
    return indices


def _where(indices: list[int]) -> str:
    """Return `op 3`, `ops 3-5` or `ops 3, 7-9, 12, 14 and 12 more`."""
    if len(indices) == 1:
        return f"op {indices[0]}"
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    shown = runs if len(runs) <= 6 else runs[:4]
    listed = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in shown)
    left = len(indices) - sum(len(run) for run in shown)
    return f"ops {listed}" + (f" and {left} more" if left else "")


def _print_cut(findings: list[OpFinding]) -> bool:
    """Print one reason for ops outside the partition that several ops of one kind ended; return whether it applies."""
    matches = [_CUT.search(finding.reasons[0].message) for finding in findings]
    indices = sorted({int(match.group(1)) for match in matches if match})
    if len(indices) < 2 or not all(matches):
        return False
    where = f"{_where(indices)} ({next(match.group(2) for match in matches if match)})"
    message = (
        f"cut off from the accelerator's partition by {where}, which run elsewhere [{findings[0].reasons[0].code}]"
    )
    output.out(output.wrap(f"    {message}", "      "))
    output.out(output.wrap(f"    fix: replace or move {where}; these ops then run on the accelerator", "      "))
    return True


def _print_reasons(finding: OpFinding, indent: str) -> None:
    for reason in finding.reasons:
        output.out(output.wrap(f"{indent}{reason.message} [{reason.code}]", indent + "  "))
        output.out(output.wrap(f"{indent}fix: {reason.fix}", indent + "  "))
