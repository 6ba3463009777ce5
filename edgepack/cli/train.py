"""`edgepack train`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgepack.cli import arguments, output

if TYPE_CHECKING:
    from edgepack.pipeline.train import TrainResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def train(
    model: Path = typer.Argument(..., help="A .keras or .h5 file.", show_default=False),
    data: str = typer.Option(
        ...,
        "--data",
        help="Labelled samples: .npz with x and y, a folder of images, module:function.",
        show_default=False,
    ),
    recipe: str = typer.Option(
        "qat", "--recipe", help="qat, prune, cluster, prune+qat, cluster+qat, prune+cluster, prune+cluster+qat."
    ),
    out: Path = typer.Option(..., "-o", "--out", help="OUT.tflite and OUT.json are written.", show_default=False),
    validation: str = typer.Option(
        "", "--validation", help="Labelled samples to measure on, after each epoch and at the end.", show_default=False
    ),
    epochs: int = typer.Option(0, "--epochs", help="Epochs of each stage.", min=0, show_default="4 to 6 by stage"),
    batch: int = typer.Option(32, "--batch", help="Samples per step.", min=1),
    learning_rate: float = typer.Option(
        0.0, "--learning-rate", help="Where the rate starts.", min=0.0, show_default="by stage"
    ),
    loss: str = typer.Option(
        "", "--loss", help="Loss, such as sparse_categorical_crossentropy.", show_default="the model's"
    ),
    sparsity: float = typer.Option(0.5, "--sparsity", help="Share of zeros that pruning aims at: 0.5, 0.8."),
    pattern: str = typer.Option("", "--pattern", help="2:4 or block: where the zeros are.", show_default="anywhere"),
    schedule: str = typer.Option("polynomial", "--schedule", help="constant or polynomial: how zeros come."),
    clusters: int = typer.Option(16, "--clusters", help="Different weights per layer: 16, 32, 64."),
    io: str = typer.Option("int8", "--io", help="Inputs and outputs of an int8 file: int8, uint8, float32."),
    preprocess: str = typer.Option(
        "", "--preprocess", help="MEAN,STD of pixels: input = (pixel - MEAN) / STD.", show_default="0,255"
    ),
    seed: int = typer.Option(7, "--seed", help="Of every random choice.", min=0),
    timeout: float = typer.Option(
        0.0, "--timeout", help="Seconds that the training may take.", min=0.0, show_default="no limit"
    ),
    force: bool = typer.Option(False, "--force", help="Replace files that are there."),
    input_shape: list[str] = arguments.INPUT_SHAPE,
    allow_code: bool = arguments.ALLOW_CODE,
    no_cache: bool = arguments.NO_CACHE,
    json_: bool = arguments.JSON,
) -> int:
    """Train a model for its target: quantization-aware, with zeros, with few different weights."""
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
        io=io.upper(),
        preprocess=preprocess,
        timeout=timeout or None,
        force=force,
    )
    quiet = json_ or not sys.stderr.isatty()
    result = run(
        arguments.need_path(model),
        request,
        output.progress if not json_ else lambda _: None,
        (lambda _: None) if quiet else _tell,
    )
    if json_:
        output.document("train", [result.to_json()])
    else:
        _print(result)
    return 0


def _tell(event: Mapping[str, Any]) -> None:
    """Say one event on stderr."""
    from edgepack.pipeline.train import event_text

    output.err(f"... {event_text(event)}")


def _print(result: "TrainResult") -> None:
    report = result.trained.report
    output.out(
        output.wrap(
            f"{result.tflite}: {output.size(report.bytes)}, compressed {output.size(report.gzip_bytes)} "
            f"(float {output.size(result.float_bytes)}, compressed {output.size(result.float_gzip_bytes)})"
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
