"""`edgepack build` of a project: its plan as a table, its run, and the table of its results."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.cli.matrix_progress import duration, shown
from edgepack.cli.subjects import shown_path
from edgepack.files import write_atomically
from edgepack.text import readable_size

if TYPE_CHECKING:
    from edgepack.project.cells import Project
    from edgepack.project.executors import Executor
    from edgepack.project.matrix import Prepared
    from edgepack.project.outcomes import CellResult, MatrixResult

#: Options of `build` for a project.
SCHEDULER = arguments.option(
    panels.RUN,
    "--scheduler",
    "ADDRESS",
    "Build a project on the workers of this Dask scheduler; `local` starts one.",
    default="",
)
FAIL_FAST = arguments.flag(
    panels.RUN, "--fail-fast/--keep-going", "Stop a project's build at the first failure; the default is to go on."
)

#: Words for what has to be done for a cell.
_STATES = {"current": "up to date", "cached": "write", "build": "build"}


def build_cells(
    project: "Project",
    *,
    dry_run: bool,
    jobs: int,
    scheduler: str,
    fail_fast: bool,
    as_json: bool,
    summary: Path | None = None,
) -> int:
    """Build the cells of a project, or show its plan; return the exit code: see `show_plan` and `build_project`."""
    if dry_run:
        return show_plan(project, as_json=as_json)
    return build_project(project, jobs=jobs, scheduler=scheduler, fail_fast=fail_fast, as_json=as_json, summary=summary)


def show_plan(project: "Project", *, as_json: bool) -> int:
    """Print what a build would do for each cell, and why; return 0, or the exit code of the worst cell.

    Args:
        project: The project, or a selection of its cells.
        as_json: Print the plan as a document.
    """
    from edgepack.project.matrix import plan_matrix

    prepared = plan_matrix(project)
    error = min(prepared.errors.values(), key=lambda one: one.exit_code, default=None)
    document = prepared.plan.to_json()
    if as_json:
        for entry in document["cells"]:
            problem = prepared.errors.get(entry["id"])
            entry["error"] = None if problem is None else problem.to_json()
        output.document("build", document["cells"], error, project=project.name, nodes=document["nodes"])
    else:
        _print_plan(prepared)
    return 0 if error is None else error.exit_code


def _print_plan(prepared: "Prepared") -> None:
    plan = prepared.plan
    rows = []
    for planned in plan.cells:
        problem = prepared.errors.get(planned.cell.id)
        rows.append(
            (planned.cell.id, "cannot build", problem.message)
            if problem is not None
            else (planned.cell.id, _STATES[planned.state], planned.reason)
        )
    output.out(_fitted(("cell", "to do", "because"), rows))
    output.out()
    shared = [node for node in plan.nodes if node.kind != "build"]
    sound = [planned for planned in plan.cells if planned.cell.id not in prepared.errors]
    counts = ", ".join(
        f"{sum(planned.state == state for planned in sound)} {words}"
        for state, words in (("build", "to build"), ("cached", "to write"), ("current", "up to date"))
    )
    output.out(f"{len(plan.cells)} cell{'' if len(plan.cells) == 1 else 's'}: {counts}")
    if shared:
        output.out(output.wrap(f"shared work, done once: {', '.join(node.id for node in shared)}"))


def _fitted(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that fits the terminal: the last column is cut."""
    width = output.width()
    lines = output.table(header, rows).splitlines()
    cut = [line if len(line) <= width else f"{line[: width - 3]}..." for line in lines]
    return "\n".join([cut[0], lines[1][:width], *cut[2:]])


def build_project(
    project: "Project",
    *,
    jobs: int = 0,
    scheduler: str = "",
    fail_fast: bool = False,
    as_json: bool = False,
    summary: Path | None = None,
) -> int:
    """Build every cell of a project that is not up to date, and print the results; return the worst exit code.

    Args:
        project: The project, or a selection of its cells.
        jobs: Nodes that run side by side on this machine; 0 for as many as it can hold.
        scheduler: Address of a Dask scheduler, `local` for a cluster of this machine, empty for processes.
        fail_fast: Stop at the first failure.
        as_json: Print the results as a document on stdout, and events as lines of JSON on stderr.
        summary: File to write a summary in Markdown to, None for none.
    """
    from edgepack.project.catalog import write_catalog
    from edgepack.project.matrix import build_matrix

    executor = _executor(scheduler, jobs)
    try:
        with shown(as_json=as_json) as show:
            result = build_matrix(project, jobs=jobs, executor=executor, fail_fast=fail_fast, on_event=show)
    finally:
        if executor is not None:
            executor.close()
    page = write_catalog(project, result)
    if summary is not None:
        from edgepack.pipeline.reports.summary import project_summary

        write_atomically(
            summary, project_summary(project.name, [(entry.to_json(), entry.error) for entry in result.results])
        )
    if as_json:
        documents = [entry.to_json() for entry in result.results]
        more = {"project": project.name, "executed": result.executed, "catalog": str(page.with_suffix(".json"))}
        output.document("build", documents, result.error, **more)
    else:
        _print_results(result)
        output.out(output.wrap(f"catalog: {shown_path(page)}"))
    return 0 if result.error is None else result.error.exit_code


def _executor(scheduler: str, jobs: int) -> "Executor | None":
    if not scheduler:
        return None
    from edgepack.project.cluster import DaskExecutor

    return DaskExecutor(scheduler, jobs)


def _print_results(result: "MatrixResult") -> None:
    results = result.results
    output.out(output.table(_HEADER, [_row(entry) for entry in results], right=range(3, len(_HEADER))))
    output.out()
    for note in dict.fromkeys(f"{entry.cell.model}: {note}" for entry in results for note in entry.notes):
        output.warn(note)
    warnings: dict[str, list[str]] = {}
    for entry in results:
        # Warnings of bundles that were there before were printed when they were built.
        for warning in entry.document.get("warnings", ()) if entry.state == "built" else ():
            warnings.setdefault(warning, []).append(entry.cell.id)
    for warning, cells in warnings.items():
        output.warn(f"{', '.join(cells)}: {warning}")
    for entry in results:
        if entry.error is not None:
            output.err(f"{entry.cell.id}:")
            output.error(entry.error)


_HEADER = ("cell", "bundle", "scheme", "size", "accel", "host", "top-1", "SNR", "time")


def _row(entry: "CellResult") -> tuple[str, ...]:
    from edgepack.runtime.metrics import measured_accuracy

    document = entry.document
    model, summary, quality = (document.get(name) or {} for name in ("model", "summary", "quality"))
    accuracy, snr = measured_accuracy(quality), quality.get("snr_db")
    return (
        entry.cell.id,
        _STATES.get(entry.state, entry.state) if entry.state != "cached" else "from cache",
        document.get("scheme") or "-",
        readable_size(model["bytes"]) if model else "-",
        str(summary["accelerator"]) if summary else "-",
        str(summary["host"] + summary["unsupported"]) if summary else "-",
        "-" if accuracy is None else accuracy.text,
        "-" if snr is None else f"{snr:.1f}",
        duration(entry.seconds) if entry.state == "built" else "-",
    )
