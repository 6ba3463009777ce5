"""`edgepack compare`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgepack.cli import arguments, output, simulations
from edgepack.cli import help as panels
from edgepack.cli.cell_runs import run_shown
from edgepack.cli.flags import Given, table_flags
from edgepack.cli.subjects import Selection, find_subject, worst
from edgepack.distribution import require_packages
from edgepack.files import write_atomically
from edgepack.text import readable_size

if TYPE_CHECKING:
    from edgepack.pipeline.compare import ComparedScheme, Comparison
    from edgepack.project.cells import Cell


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", cls=panels.Command)(compare)


@table_flags("compare")
def compare(
    given: Given,
    words: list[str] | None = arguments.SUBJECTS,
    html: Path | None = arguments.option(
        panels.OUTPUT,
        "--html",
        "FILE",
        "Also write a self-contained HTML page; of several models, a folder with one page each.",
    ),
    project: Path | None = arguments.PROJECT,
    jobs: int = arguments.option(
        panels.RUN,
        "--jobs",
        "N",
        "Models of a project that are compared side by side; more than one makes the times of each less exact.",
        default=1,
        min=1,
    ),
) -> int:
    """Compare every scheme by size, accuracy, latency and placement."""
    require_packages("compare")
    arguments.require_folder_of("--html", html)
    subject = find_subject(words or [], project, given)
    if isinstance(subject, Selection):
        return _compare_models(subject, given, html, jobs)
    arguments.refuse_jobs(jobs - 1)
    from edgepack.project.cell_work import compare_model

    path, show = arguments.require_path(subject), arguments.progress(given.json)
    result = compare_model(path, given.targets or ["all"], given.options(), show)
    if html is not None:
        _write_page(html, result)
    if given.json:
        output.document("compare", [r.to_json() for r in result.results], notes=result.notes, source=result.source)
    else:
        _print(result)
    return 0


def _compare_models(selection: Selection, given: Given, html: Path | None, jobs: int) -> int:
    """Compare each model of a selection, with the options of its first cell; return the exit code of the worst."""
    from edgepack.project.cell_work import compare_cell, with_chips
    from edgepack.project.graph import Kind

    models = selection.models
    several = len(models) > 1
    if html is not None and several:
        html.mkdir(exist_ok=True)

    def targets(cell: "Cell") -> dict[str, list[str]]:
        return {"targets": list(dict.fromkeys(other.target for other in models[cell.model]))}

    first = replace(selection, cells=tuple(map(with_chips, models.values())))
    runs = run_shown(first, Kind.COMPARE, compare_cell, targets, jobs, as_json=given.json)
    documents: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []
    errors = []
    for position, run in enumerate(runs):
        name, result, error = run.cell.model, run.result, run.error
        errors.append(error)
        if result is not None and html is not None:
            _write_page(html / f"{name}.html" if several else html, result)
        if given.json:
            found = {} if result is None else {"notes": list(result.notes), "source": result.source}
            reports.append({"model": name, "error": None if error is None else error.to_json(), **found})
            documents.extend({"model": name, **entry.to_json()} for entry in (result.results if result else ()))
            continue
        output.out(f"{chr(10) if position else ''}{name}:")
        if result is not None:
            _print(result, jobs)
        if error is not None:
            output.error(error)
    problem = worst(errors)
    if given.json:
        output.document("compare", documents, problem, project=selection.project.name, models=reports)
    return problem.exit_code if problem else 0


def _write_page(file: Path, result: "Comparison") -> None:
    from edgepack.pipeline.reports.compare_page import html

    write_atomically(file, html(result))


def _print(result: "Comparison", jobs: int = 1) -> None:
    built = [entry for entry in result.results if not entry.reason]
    metric = next((one.quality.accuracy.metric for one in built if one.quality and one.quality.accuracy), "top-1")
    header = ("scheme", "file", "gzip", metric, "SNR", "logits", "ms here")
    output.out(output.table(header, [_row(entry) for entry in built], right=range(1, len(header))))
    output.out()
    names = result.targets
    output.out(
        output.table(
            ("ops on the accelerator", *names),
            [(entry.scheme, *(_placed(entry, name) for name in names)) for entry in built],
            right=range(1, len(names) + 1),
        )
    )
    output.out()
    if any(entry.quality for entry in built):
        output.out(output.wrap(f"{metric}: float model -> this file; SNR: of outputs, and of logits, in dB"))
    timed = [entry.latency for entry in built if entry.latency is not None]
    if timed:
        threads = f"{timed[0].threads} thread{'s' * (timed[0].threads != 1)}"
        runs = min(latency.runs for latency in timed)
        output.out(
            output.wrap(
                f"ms here: median of at least {runs} runs on this machine, {threads}; not on the device"
                + ("; other models were compared meanwhile" if jobs > 1 else "")
            )
        )
    for entry in built:
        for simulation in entry.simulation:
            output.out()
            output.out(f"{entry.scheme}")
            simulations.show(simulation)
        for name, latency in entry.latencies.items():
            output.out(output.wrap(f"{entry.scheme} on {name}: {latency['text']}", "  "))
    for entry in result.results:
        if entry.reason:
            output.warn(f"{entry.scheme} was not built: {entry.reason}")
        for note in entry.notes:
            output.warn(f"{entry.scheme}: {note}")
    for note in result.notes:
        output.warn(note)


def _row(entry: "ComparedScheme") -> tuple[str, ...]:
    quality = entry.quality
    equal = quality is not None and quality.snr_db is None
    accuracy = None if quality is None else quality.accuracy
    return (
        entry.scheme,
        readable_size(entry.bytes),
        readable_size(entry.gzip_bytes),
        "-" if accuracy is None else f"{_figure(accuracy.value_float, 2)} -> {accuracy.value:.2f}",
        "equal" if equal else _figure(None if quality is None else quality.snr_db, 1),
        _figure(None if quality is None else quality.logits_snr_db, 1),
        _figure(None if entry.latency is None else entry.latency.median_ms, 3),
    )


def _placed(entry: "ComparedScheme", target: str) -> str:
    summary = entry.targets.get(target)
    if summary is None:
        return "-"
    placed = f"{summary['accelerator']}/{summary['total']}"
    return placed if target in entry.accepted else f"refused {placed}"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
