"""`edgepack verify`."""

from pathlib import Path

import typer

from edgepack.cli import arguments, output


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
    error = result.error
    if json_:
        output.document("verify", [result.to_json()], error)
        return error.exit_code if error else 0
    for line in result.lines():
        output.out(output.wrap(line))
    if error is not None:
        output.error(error)
        return error.exit_code
    return 0
