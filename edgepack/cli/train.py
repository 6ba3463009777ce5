"""`edgepack train`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgepack.choices import IoType, LossName, Recipe, SparsityPattern, SparsitySchedule
from edgepack.cli import arguments, output
from edgepack.cli import help as panels
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
    data: str = typer.Option(
        ...,
        "--data",
        metavar="SRC",
        help="Labelled samples: an .npz with x and y, a folder of images or module:function.",
        rich_help_panel=panels.DATA,
        show_default=False,
    ),
    validation: str = typer.Option(
        "",
        "--validation",
        metavar="SRC",
        help="Labelled samples to measure accuracy on, after each epoch and at the end.",
        rich_help_panel=panels.DATA,
        show_default=False,
    ),
    preprocess: str = arguments.PREPROCESS,
    recipe: Recipe = arguments.choice(
        Recipe.QAT, "--recipe", Recipe, metavar="RECIPE", help="Training recipe.", panel=panels.TRAINING
    ),
    epochs: int = typer.Option(
        0,
        "--epochs",
        metavar="N",
        help="Epochs of each stage.",
        min=0,
        rich_help_panel=panels.TRAINING,
        show_default="4 to 6, by stage",
    ),
    batch: int = typer.Option(
        32, "--batch", metavar="N", help="Samples per training step.", min=1, rich_help_panel=panels.TRAINING
    ),
    learning_rate: float = typer.Option(
        0.0,
        "--learning-rate",
        metavar="RATE",
        help="Initial learning rate.",
        min=0.0,
        rich_help_panel=panels.TRAINING,
        show_default="by stage",
    ),
    loss: LossName | None = arguments.choice(
        None,
        "--loss",
        LossName,
        metavar="LOSS",
        help="Loss on class labels.",
        panel=panels.TRAINING,
        show_default="the model's, else by its output",
    ),
    sparsity: float = typer.Option(
        0.5,
        "--sparsity",
        metavar="SHARE",
        help="Share of zero weights after pruning, between 0 and 1.",
        rich_help_panel=panels.TRAINING,
    ),
    pattern: SparsityPattern | None = arguments.choice(
        None,
        "--pattern",
        SparsityPattern,
        metavar="PATTERN",
        help="Where pruning places zeros.",
        panel=panels.TRAINING,
        show_default="anywhere",
    ),
    schedule: SparsitySchedule = arguments.choice(
        SparsitySchedule.POLYNOMIAL,
        "--schedule",
        SparsitySchedule,
        metavar="SCHEDULE",
        help="Sparsity schedule.",
        panel=panels.TRAINING,
    ),
    clusters: int = typer.Option(
        16,
        "--clusters",
        metavar="N",
        help="Number of distinct weights per layer after clustering.",
        rich_help_panel=panels.TRAINING,
    ),
    seed: int = typer.Option(7, "--seed", metavar="SEED", help="Random seed.", min=0, rich_help_panel=panels.TRAINING),
    out: Path = typer.Option(
        ...,
        "-o",
        "--out",
        metavar="OUT",
        help="Write OUT.tflite and OUT.json.",
        rich_help_panel=panels.OUTPUT,
        show_default=False,
    ),
    io: IoType = arguments.choice(
        IoType.INT8,
        "--io",
        IoType,
        metavar="TYPE",
        help="Data type of the inputs and outputs of an int8 file.",
        panel=panels.OUTPUT,
    ),
    force: bool = typer.Option(False, "--force", help="Replace existing files.", rich_help_panel=panels.OUTPUT),
    timeout: float = typer.Option(
        0.0,
        "--timeout",
        metavar="SECONDS",
        help="Time limit of the training.",
        min=0.0,
        rich_help_panel=panels.RUN,
        show_default="none",
    ),
    no_cache: bool = arguments.NO_CACHE,
    json_: bool = arguments.JSON,
) -> int:
    """Fine-tune a Keras model: quantization-aware, pruned, clustered."""
    from edgepack.pipeline.train import TrainRequest, run
    from edgepack.train import TrainOptions

    request = TrainRequest(
        data=data,
        recipe=recipe,
        out=out,
        model=arguments.model_options(input_shape, "", allow_code, 900.0, no_cache),
        validation=validation,
        options=TrainOptions(
            epochs, batch, learning_rate, loss, sparsity, pattern, schedule, clusters, seed, allow_code
        ),
        io=io,
        preprocess=preprocess,
        timeout=timeout or None,
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
