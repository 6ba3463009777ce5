"""`edgepack cache show | clear`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.text import readable_size

if TYPE_CHECKING:
    from edgepack.cache import CacheUsage
    from edgepack.remote_cache import RemoteUsage


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = panels.group("Show or clear the cache of intermediate results.")
    group.command("show", cls=panels.Command)(show)
    group.command("clear", cls=panels.Command)(clear)
    app.add_typer(group, name="cache")


def show(
    url: str = arguments.option(
        panels.RUN,
        "--cache",
        "URL",
        "The shared cache to show; `off` for none.",
        default="",
        show_default="EDGEPACK_CACHE_URL",
    ),
    json_: bool = arguments.JSON,
) -> int:
    """Show the cache's folder, entries and sizes by step, damaged entries that were removed, and the shared cache."""
    from edgepack.cache import open_cache

    cache = open_cache(url=url)
    usage = cache.usage()
    shared = None if cache.remote is None else cache.remote.usage()
    if json_:
        output.document(
            "cache show",
            _rows(usage.entries, usage.bytes),
            path=str(usage.path),
            limit=usage.limit,
            damaged=usage.damaged,
            dropped=sum(usage.dropped.values()),
            shared=None
            if shared is None
            else {
                "url": shared.url,
                "problem": shared.problem,
                "entries": _rows(shared.entries, shared.bytes),
            },
        )
        return 0
    output.out(f"{usage.path}")
    output.out(_table(usage))
    total = readable_size(sum(usage.bytes.values()))
    output.out(f"{total} of {readable_size(usage.limit)}" if usage.limit else f"{total}, no limit")
    for count, done in ((usage.damaged, "found"), (sum(usage.dropped.values()), "removed")):
        if count:
            reasons = "; ".join(f"{n} {reason}" for reason, n in sorted(usage.dropped.items()))
            noun = "damaged entry was" if count == 1 else "damaged entries were"
            output.out(f"{count} {noun} {done}{f' since the last clear ({reasons})' if done == 'removed' else ''}")
    if shared is not None:
        output.out()
        output.out(f"shared: {shared.url}")
        if shared.problem:
            output.out(output.wrap(f"cannot be used: {shared.problem}"))
        else:
            output.out(_table(shared))
            output.out(f"{readable_size(sum(shared.bytes.values()))} for this kind of machine")
    return 0


def _rows(entries: Mapping[str, int], sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"step": step, "entries": count, "bytes": sizes.get(step, 0)} for step, count in entries.items()]


def _table(usage: "CacheUsage | RemoteUsage") -> str:
    lines = [(step, str(count), readable_size(usage.bytes.get(step, 0))) for step, count in usage.entries.items()]
    return output.table(("step", "entries", "size"), lines, right=(1, 2)) if lines else "empty"


def clear(json_: bool = arguments.JSON) -> int:
    """Remove every entry of the local cache; a shared one keeps its entries."""
    from edgepack.cache import Cache

    removed = Cache().clear()
    if json_:
        output.document("cache clear", [{"removed": removed}])
    else:
        output.out(f"removed {removed} entries")
    return 0
