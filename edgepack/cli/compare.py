"""`edgepack compare`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgepack.cli import arguments, output, simulations
from edgepack.cli import help as panels
from edgepack.files import write_atomically
from edgepack.text import readable_size

if TYPE_CHECKING:
    from edgepack.pipeline.compare import ComparedScheme, Comparison


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", cls=panels.Command)(compare)


def compare(
    model: Path = arguments.MODEL,
    input_shape: list[str] = arguments.INPUT_SHAPE,
    signature: str = arguments.SIGNATURE,
    allow_code: bool = arguments.ALLOW_CODE,
    samples: str = arguments.SAMPLES,
    evaluation: str = arguments.EVALUATION,
    train: str = arguments.option(
        panels.DATA,
        "--train",
        "SRC",
        "Labelled samples to train on; adds the training recipes to the comparison.",
        default="",
    ),
    epochs: int = arguments.option(
        panels.DATA,
        "--epochs",
        "N",
        "Epochs of each training stage.",
        default=0,
        show_default="4 to 6, by stage",
        min=0,
    ),
    preprocess: str = arguments.PREPROCESS,
    target: list[str] = arguments.option(
        panels.TARGET,
        "-t, --target",
        "ID",
        "Target whose schemes are compared; repeatable.",
        default=[],
        show_default="all",
    ),
    soc: list[str] = arguments.SOC,
    simulate: bool = arguments.SIMULATE,
    simulate_seconds: float = arguments.SIMULATE_SECONDS,
    html: Path | None = arguments.option(panels.OUTPUT, "--html", "FILE", "Also write a self-contained HTML page."),
    timeout: float = arguments.TIMEOUT,
    memory_limit: str = arguments.MEMORY_LIMIT,
    no_cache: bool = arguments.NO_CACHE,
    cache: str = arguments.CACHE_URL,
    json_: bool = arguments.JSON,
) -> int:
    """Compare every scheme by size, accuracy, latency and placement."""
    from edgepack.pipeline.compare import compare as run

    arguments.require_folder_of("--html", html)
    result = run(
        arguments.require_path(model),
        target or ["all"],
        arguments.model_options(input_shape, signature, allow_code, timeout, no_cache, memory_limit, cache),
        samples=samples,
        evaluation=evaluation,
        train=train,
        epochs=epochs,
        preprocess=preprocess,
        socs=soc,
        simulate=simulate,
        simulate_seconds=simulate_seconds,
        progress=arguments.progress(json_),
    )
    if html is not None:
        from edgepack.pipeline.reports.compare_page import html as page

        write_atomically(html, page(result))
    if json_:
        output.document("compare", [r.to_json() for r in result.results], notes=result.notes, source=result.source)
    else:
        _print(result)
    return 0


def _print(result: "Comparison") -> None:
    built = [entry for entry in result.results if not entry.reason]
    header = ("scheme", "file", "gzip", "top-1", "SNR", "logits", "ms here")
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
        output.out(output.wrap("top-1: float model -> this file; SNR: of outputs, and of logits, in dB"))
    timed = [entry.latency for entry in built if entry.latency is not None]
    if timed:
        threads = f"{timed[0].threads} thread{'s' * (timed[0].threads != 1)}"
        runs = min(latency.runs for latency in timed)
        output.out(
            output.wrap(f"ms here: median of at least {runs} runs on this machine, {threads}; not on the device")
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
    top1 = "-"
    if quality is not None and quality.top1 is not None:
        top1 = f"{_figure(quality.top1_float, 2)} -> {quality.top1:.2f}"
    return (
        entry.scheme,
        readable_size(entry.bytes),
        readable_size(entry.gzip_bytes),
        top1,
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
