"""`edgepack compare`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgepack.cli import arguments, output
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.pipeline.comparing import ComparedScheme, Comparison


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    model: Path = arguments.MODEL,
    target: list[str] = arguments.TARGET,
    samples: str = typer.Option("", "--samples", help="Representative samples.", show_default=False),
    evaluation: str = typer.Option("", "--eval", help="Samples with labels.", show_default=False),
    preprocess: str = typer.Option("", "--preprocess", help="MEAN,STD of pixels.", show_default="0,255"),
    html: Path | None = typer.Option(None, "--html", help="Also write one self-contained page.", show_default=False),
    input_shape: list[str] = arguments.INPUT_SHAPE,
    signature: str = arguments.SIGNATURE,
    allow_code: bool = arguments.ALLOW_CODE,
    timeout: float = arguments.TIMEOUT,
    no_cache: bool = arguments.NO_CACHE,
    json_: bool = arguments.JSON,
) -> int:
    """Make every scheme that the targets take and show them side by side: size, accuracy, time here, ops per target."""
    from edgepack.pipeline.comparing import compare as run

    if html is not None and not html.resolve().parent.is_dir():
        raise UsageError(f"--html: the folder of '{html}' does not exist")
    result = run(
        arguments.need_path(model),
        target or ["all"],
        arguments.model_options(input_shape, signature, allow_code, timeout, no_cache),
        samples=samples,
        evaluation=evaluation,
        preprocess=preprocess,
        progress=output.progress if not json_ else lambda _: None,
    )
    if html is not None:
        from edgepack.pipeline.report import html as page

        arguments.write_file(html, page(result))
    if json_:
        output.document("compare", [r.to_json() for r in result.results], notes=result.notes, source=result.source)
    else:
        _print(result)
    return 0


def _print(result: "Comparison") -> None:
    made = [entry for entry in result.results if not entry.reason]
    header = ("scheme", "file", "gzip", "top-1 float", "top-1", "SNR dB", "ms here")
    output.out(output.table(header, [_row(entry) for entry in made], right=(1, 2, 3, 4, 5, 6)))
    output.out()
    names = result.targets
    output.out(
        output.table(
            ("ops on the accelerator", *names),
            [(entry.scheme, *(_placed(entry, name) for name in names)) for entry in made],
            right=range(1, len(names) + 1),
        )
    )
    if any(entry.latency for entry in made):
        output.out()
        output.out(output.wrap("ms here: median on this machine with one thread; it says nothing about the device"))
    for entry in result.results:
        if entry.reason:
            output.warn(f"{entry.scheme} was not made: {entry.reason}")
        for note in entry.notes:
            output.warn(f"{entry.scheme}: {note}")
    for note in result.notes:
        output.warn(note)


def _row(entry: "ComparedScheme") -> tuple[str, ...]:
    quality = entry.quality
    equal = quality is not None and quality.snr_db is None
    return (
        entry.scheme,
        output.size(entry.bytes),
        output.size(entry.gzip_bytes),
        _figure(None if quality is None else quality.top1_float, 2),
        _figure(None if quality is None else quality.top1, 2),
        "equal" if equal else _figure(None if quality is None else quality.snr_db, 1),
        _figure(None if entry.latency is None else entry.latency.median_ms, 3),
    )


def _placed(entry: "ComparedScheme", target: str) -> str:
    summary = entry.targets.get(target)
    return "-" if summary is None else f"{summary['accelerator']}/{summary['total']}"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
