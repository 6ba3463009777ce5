"""`edgepack train`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgepack.choices import IoType, LossName, Recipe, Resize, SparsityPattern, SparsitySchedule
from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.distribution import require_packages
from edgepack.limits import TARGET_SECONDS, TRAINING_SECONDS
from edgepack.text import readable_size

if TYPE_CHECKING:
    from edgepack.pipeline.train import TrainResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", cls=panels.Command)(train)


def train(
    model: Path = typer.Argument(..., metavar="MODEL", help="A .keras or .h5 file.", show_default=False),
    input_shape: list[str] = arguments.INPUT_SHAPE,
    allow_code: bool = arguments.ALLOW_CODE,
    data: str = arguments.option(
        panels.DATA,
        "--data",
        "SRC",
        "Labelled samples: an .npz with x and y, a folder of images or module:function.",
        default=...,
    ),
    validation: str = arguments.option(
        panels.DATA,
        "--validation",
        "SRC",
        "Labelled samples to measure accuracy on, after each epoch and at the end.",
        default="",
    ),
    preprocess: str | None = arguments.PREPROCESS,
    resize: Resize = arguments.RESIZE,
    recipe: Recipe = arguments.choice(
        panels.TRAINING, "--recipe", Recipe, "RECIPE", "Training recipe.", default=Recipe.QAT
    ),
    epochs: int = arguments.option(
        panels.TRAINING, "--epochs", "N", "Epochs of each stage.", default=0, show_default="4 to 6, by stage", min=0
    ),
    batch: int = arguments.option(panels.TRAINING, "--batch", "N", "Samples per training step.", default=32, min=1),
    learning_rate: float = arguments.option(
        panels.TRAINING,
        "--learning-rate",
        "RATE",
        "Initial learning rate.",
        default=0.0,
        show_default="by stage",
        min=0.0,
    ),
    loss: LossName | None = arguments.choice(
        panels.TRAINING,
        "--loss",
        LossName,
        "LOSS",
        "Loss on class labels.",
        show_default="the model's, else by its output",
    ),
    sparsity: float = arguments.option(
        panels.TRAINING, "--sparsity", "SHARE", "Share of zero weights after pruning, between 0 and 1.", default=0.5
    ),
    pattern: SparsityPattern | None = arguments.choice(
        panels.TRAINING, "--pattern", SparsityPattern, "PATTERN", "Where pruning places zeros.", show_default="anywhere"
    ),
    schedule: SparsitySchedule = arguments.choice(
        panels.TRAINING,
        "--schedule",
        SparsitySchedule,
        "SCHEDULE",
        "Sparsity schedule.",
        default=SparsitySchedule.POLYNOMIAL,
    ),
    clusters: int = arguments.option(
        panels.TRAINING, "--clusters", "N", "Number of distinct weights per layer after clustering.", default=16
    ),
    seed: int = arguments.option(panels.TRAINING, "--seed", "SEED", "Random seed.", default=7, min=0),
    out: Path = arguments.option(panels.OUTPUT, "-o, --out", "OUT", "Write OUT.tflite and OUT.json.", default=...),
    io: IoType = arguments.choice(
        panels.OUTPUT,
        "--io",
        IoType,
        "TYPE",
        "Data type of the inputs and outputs of an int8 file.",
        default=IoType.INT8,
    ),
    force: bool = arguments.flag(panels.OUTPUT, "--force", "Replace existing files."),
    timeout: float = arguments.option(
        panels.RUN,
        "--timeout",
        "SECONDS",
        "Time limit of the training, which the same command resumes after the last epoch.",
        default=TRAINING_SECONDS,
        min=1.0,
    ),
    memory_limit: str | None = arguments.MEMORY_LIMIT,
    no_cache: bool = arguments.NO_CACHE,
    cache: str | None = arguments.CACHE_URL,
    json_: bool = arguments.JSON,
) -> int:
    """Fine-tune a Keras model: quantization-aware, pruned, clustered."""
    from edgepack.pipeline.train import TrainRequest, run
    from edgepack.training import TrainOptions

    require_packages("train")
    request = TrainRequest(
        data=data,
        recipe=recipe,
        out=out,
        model=arguments.model_options(input_shape, "", allow_code, TARGET_SECONDS, no_cache, memory_limit, cache),
        validation=validation,
        options=TrainOptions(
            epochs, batch, learning_rate, loss, sparsity, pattern, schedule, clusters, seed, allow_code
        ),
        io=io,
        preprocess=preprocess or "",
        resize=resize,
        timeout=timeout,
        force=force,
    )
    result = run(
        arguments.require_path(model),
        request,
        arguments.progress(json_),
        _ignore if json_ or not sys.stderr.isatty() else _show,
    )
    if json_:
        output.document("train", [result.to_json()])
    else:
        _print(result)
    return 0


def _ignore(event: Mapping[str, Any]) -> None:
    """Show no events: there is no terminal, or stdout is one JSON document."""


def _show(event: Mapping[str, Any]) -> None:
    """Show an event of the training on stderr."""
    from edgepack.pipeline.training import event_text

    output.err(f"... {event_text(event)}")


def _print(result: "TrainResult") -> None:
    from edgepack.pipeline.search.loss import judge

    report = result.trained.report
    output.out(
        output.wrap(
            f"{result.tflite}: {readable_size(report.bytes)}, gzip {readable_size(report.gzip_bytes)} "
            f"(float: {readable_size(result.float_bytes)}, gzip {readable_size(result.float_gzip_bytes)})"
        )
    )
    quality = result.quality
    if quality is not None and quality.top1 is not None:
        output.out(f"top-1 {quality.top1:.2f} %, float {quality.top1_float:.2f} %, on {quality.samples} samples")
    for finding in judge(quality) if quality is not None else ():
        output.warn(str(finding))
    rows = [
        (
            layer.layer,
            layer.op,
            str(layer.weights),
            f"{100 * layer.sparsity:.1f} %",
            str(layer.unique),
            str(layer.unique_per_channel),
        )
        for layer in report.layers
    ]
    output.out()
    output.out(output.table(("layer", "op", "weights", "zeros", "unique", "per channel"), rows, right=(2, 3, 4, 5)))
    for note in result.trained.notes:
        output.out(output.wrap(f"note: {note}"))
