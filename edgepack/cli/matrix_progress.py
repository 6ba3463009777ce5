"""Shows a run of a project: a live table on a terminal, plain lines in a log, JSON lines for programs."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgepack.cli import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgepack.project.events import Event
    from edgepack.project.progress import Progress

#: Rows of the live table; of many nodes that run, the first are shown.
_ROWS = 12


@contextmanager
def shown(*, as_json: bool) -> Iterator[Callable[["Event"], None]]:
    """Return a function that shows each event on stderr.

    Args:
        as_json: Write each event as a line of JSON.
    """
    if as_json:
        yield lambda event: output.err(json.dumps(event.to_json()))
    elif sys.stderr.isatty():
        with _live() as show:
            yield show
    else:
        yield _lines()


def _lines() -> Callable[["Event"], None]:
    """Return a function that prints what ends, which is what a log of CI needs."""
    from edgepack.project.progress import Progress

    progress = Progress()

    def show(event: "Event") -> None:
        progress.handle(event)
        if event.kind == "planned":
            counts = event.data["cells"]
            if "build" in counts:
                output.err(
                    f"{counts['build']} to build, {counts['cached']} from the cache, {counts['current']} up to date"
                )
        elif event.kind == "cell" and event.data["state"] != "current":
            text = f": {event.text}" if event.text else ""
            output.err(f"[{progress.done}/{progress.cells}] {event.cell} {event.data['state']}{text}")
        elif event.kind in {"retried", "notice"}:
            output.err(_note(event))

    return show


@contextmanager
def _live() -> Iterator[Callable[["Event"], None]]:
    from rich.console import Console
    from rich.live import Live

    from edgepack.project.progress import Progress

    progress = Progress()
    console = Console(stderr=True)
    # The table is drawn by a thread of rich four times a second, whatever happens in between.
    with Live(get_renderable=lambda: table(progress), console=console, transient=True, refresh_per_second=4):

        def show(event: "Event") -> None:
            progress.handle(event)
            if event.kind == "cell" and event.data["state"] == "failed":
                console.print(output.safe(f"{event.cell} failed: {event.text}"), markup=False, highlight=False)
            elif event.kind in {"retried", "notice"}:
                console.print(output.safe(_note(event)), markup=False, highlight=False)

        yield show


def _note(event: "Event") -> str:
    return f"{event.node}: {event.text}" if event.node else output.wrap(f"note: {event.text}")


def table(progress: "Progress") -> "RenderableType":
    """Return the live table: what runs, and a line with progress, rate and time left."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    # The last column takes what the others leave, and is cut.
    rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False, expand=True)
    rows.add_column(no_wrap=True, overflow="ellipsis", max_width=32)
    rows.add_column(justify="right", no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    running = list(progress.running.values())
    now = progress.start + progress.elapsed
    for entry in running[:_ROWS]:
        rows.add_row(Text(entry.node), Text(duration(now - entry.since)), Text(output.safe(entry.step)))
    more = f", {len(running) - _ROWS} more running" if len(running) > _ROWS else ""
    failed = f", {progress.failed} failed" if progress.failed else ""
    line = f"{progress.done}/{progress.cells} cells{failed}{more}, {duration(progress.elapsed)}"
    if progress.done:
        line += f", {progress.rate:.1f} a minute"
    return Group(rows, Text(f"{line}, about {duration(progress.left)} left", overflow="ellipsis", no_wrap=True))


def duration(seconds: float) -> str:
    """Return `7 s`, `3:05` minutes or `2:03:05` hours."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
