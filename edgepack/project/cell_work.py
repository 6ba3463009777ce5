"""What `check`, `compare` and `verify` do with one cell of a project, in the process that runs it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.child import Worker
from edgepack.errors import UsageError
from edgepack.pipeline.option_validation import bundle_path
from edgepack.pipeline.options import BuildOptions
from edgepack.profiles.registry import get_target
from edgepack.project.cells import Cell
from edgepack.project.node import Report

if TYPE_CHECKING:
    from edgepack.bundle.signers import Verifier
    from edgepack.bundle.verify_result import VerifyResult
    from edgepack.pipeline.check import CheckResult
    from edgepack.pipeline.compare import Comparison


def check_cell(cell: Cell, report: Report, *, ask_compiler: bool | None) -> "CheckResult":
    """Check the model of a cell against its target.

    Raises:
        EdgepackError: The model cannot be read.
    """
    from edgepack.pipeline.check import check

    _require(cell.path)
    options = cell.options
    return check(
        cell.path,
        [cell.target],
        options.model,
        options.target,
        scheme=options.scheme,
        ask_compiler=ask_compiler,
        progress=report,
    )


def with_chips(cells: Sequence[Cell]) -> Cell:
    """Return the first of a model's cells with the chips of all, as `compare` takes it."""
    chips = dict.fromkeys(chip for cell in cells for chip in cell.options.target.socs)
    first = cells[0]
    return replace(first, options=replace(first.options, target=replace(first.options.target, socs=tuple(chips))))


def compare_cell(cell: Cell, report: Report, *, targets: Sequence[str]) -> "Comparison":
    """Compare the schemes of a cell's model, with the options of the cell.

    Args:
        cell: The first cell of a model.
        report: Receives progress.
        targets: The targets of the model's cells.

    Raises:
        EdgepackError: The model or its samples cannot be read.
    """
    _require(cell.path)
    return compare_model(cell.path, targets, cell.options, report)


def compare_model(path: Path, targets: Sequence[str], options: BuildOptions, report: Report) -> "Comparison":
    """Compare the schemes of a model with the options of a build.

    Raises:
        EdgepackError: The model or its samples cannot be read.
    """
    from edgepack.pipeline.compare import compare

    return compare(
        path,
        targets,
        options.model,
        samples=options.samples,
        evaluation=options.eval,
        train=options.train,
        epochs=options.epochs,
        labels=options.labels,
        preprocess=options.preprocess,
        resize=options.resize,
        task=options.task,
        socs=options.target.socs,
        simulate=options.simulate,
        simulate_seconds=options.simulate_seconds,
        progress=report,
    )


def verify_cell(
    cell: Cell,
    report: Report,
    *,
    signer: "Verifier | None",
    evaluation: str,
    timeout: float,
    memory: int | None,
) -> "VerifyResult":
    """Verify the bundle of a cell.

    Raises:
        EdgepackError: There is none, or it cannot be read.
    """
    from edgepack.pipeline.verify import verify

    return verify(
        require_bundle(cell),
        signer=signer,
        evaluation=evaluation,
        worker=_worker(memory),
        timeout=timeout,
        progress=report,
    )


def require_bundle(cell: Cell) -> Path:
    """Return the folder of a cell's bundle.

    Raises:
        UsageError: It does not exist.
    """
    path = bundle_of(cell)
    _require(path)
    return path


def bundle_of(cell: Cell) -> Path:
    """Return the folder that a cell's bundle has, whether it exists or not."""
    return bundle_path(cell.path, get_target(cell.target), cell.options)


@cache
def _worker(memory: int | None) -> Worker:
    """Return the child that runs golden vectors; it serves all bundles of this process, and ends with it."""
    return Worker(memory=memory)


def _require(path: Path) -> None:
    if not path.exists():
        raise UsageError(f"'{path}' does not exist")
