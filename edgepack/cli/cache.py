"""`edgepack cache show | clear`."""

import typer

from edgepack.cli import arguments, output


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(help="Kept results: show, clear.", no_args_is_help=True, rich_markup_mode=None)
    group.command("show")(show)
    group.command("clear")(clear)
    app.add_typer(group, name="cache")


def show(json_: bool = arguments.JSON) -> int:
    """Show what the cache holds."""
    from edgepack.cache import Cache

    usage = Cache().usage()
    if json_:
        rows = [
            {"step": step, "entries": usage.entries[step], "bytes": usage.bytes.get(step, 0)} for step in usage.entries
        ]
        output.document("cache show", rows, path=str(usage.path))
        return 0
    output.out(f"{usage.path}")
    rows_ = [(step, str(count), output.size(usage.bytes.get(step, 0))) for step, count in usage.entries.items()]
    output.out(output.table(("step", "entries", "size"), rows_, right=(1, 2)) if rows_ else "empty")
    return 0


def clear(json_: bool = arguments.JSON) -> int:
    """Remove everything that the cache holds."""
    from edgepack.cache import Cache

    removed = Cache().clear()
    if json_:
        output.document("cache clear", [{"removed": removed}])
    else:
        output.out(f"removed {removed} entries")
    return 0
