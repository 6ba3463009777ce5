"""`edgepack verify`."""

from pathlib import Path

import typer

from edgepack.cli import arguments, output
from edgepack.errors import BundleError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    bundle: Path = typer.Argument(..., help="Folder of a bundle.", show_default=False),
    json_: bool = arguments.JSON,
) -> int:
    """Recompute a bundle's hashes and run its golden vectors through the runtime."""
    from edgepack.bundle.verify import verify as run

    result = run(arguments.need_path(bundle))
    error = None
    if not result.ok:
        count = len(result.problems)
        error = BundleError(
            f"'{bundle}' is not what its manifest says: {count} problem{'' if count == 1 else 's'}",
            hint=result.problems[0].fix,
        )
    if json_:
        output.document("verify", [result.to_json()], error)
        return error.exit_code if error else 0
    for problem in result.problems:
        output.out(output.wrap(f"{problem.path}: {problem.what}"))
        output.out(output.wrap(f"  fix: {problem.fix}", "    "))
    vectors = len({difference.case for difference in result.golden})
    if result.golden:
        largest = max(difference.largest for difference in result.golden)
        kind = "the kind of machine that built it" if result.tolerance == "same" else "another kind of machine"
        output.out(output.wrap(f"golden vectors: {vectors} run, largest difference {largest:g} (on {kind})"))
    for note in result.notes:
        output.out(output.wrap(f"note: {note}"))
    if error is not None:
        output.error(error)
        return error.exit_code
    output.out(f"sound: {result.files} files, {vectors} golden vectors")
    return 0
