"""`edgepack cache show | clear`."""

import typer

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.text import readable_size


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = panels.group("Show or clear the cache of intermediate results.")
    group.command("show", cls=panels.Command)(show)
    group.command("clear", cls=panels.Command)(clear)
    app.add_typer(group, name="cache")


def show(json_: bool = arguments.JSON) -> int:
    """Show the cache's folder, entries and sizes by step, and how many damaged entries were removed."""
    from edgepack.cache import Cache

    usage = Cache().usage()
    if json_:
        rows = [
            {"step": step, "entries": usage.entries[step], "bytes": usage.bytes.get(step, 0)} for step in usage.entries
        ]
        output.document(
            "cache show",
            rows,
            path=str(usage.path),
            limit=usage.limit,
            damaged=usage.damaged,
            dropped=sum(usage.dropped.values()),
        )
        return 0
    output.out(f"{usage.path}")
    lines = [(step, str(count), readable_size(usage.bytes.get(step, 0))) for step, count in usage.entries.items()]
    output.out(output.table(("step", "entries", "size"), lines, right=(1, 2)) if lines else "empty")
    total = readable_size(sum(usage.bytes.values()))
    output.out(f"{total} of {readable_size(usage.limit)}" if usage.limit else f"{total}, no limit")
    for count, done in ((usage.damaged, "found"), (sum(usage.dropped.values()), "removed")):
        if count:
            reasons = "; ".join(f"{n} {reason}" for reason, n in sorted(usage.dropped.items()))
            noun = "damaged entry was" if count == 1 else "damaged entries were"
            output.out(f"{count} {noun} {done}{f' since the last clear ({reasons})' if done == 'removed' else ''}")
    return 0


def clear(json_: bool = arguments.JSON) -> int:
    """Remove every entry of the cache."""
    from edgepack.cache import Cache

    removed = Cache().clear()
    if json_:
        output.document("cache clear", [{"removed": removed}])
    else:
        output.out(f"removed {removed} entries")
    return 0
