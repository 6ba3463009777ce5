"""TensorFlow's Table 1 by size and placement: four Keras architectures, untrained, as int8 for every target.

The published sizes are those of "Table 1: Benefits of model quantization for select CNN models" in TensorFlow's guide
to model optimization (2019). Weights do not change sizes or placements, so the networks are made here without training
and calibrated on four random images; accuracy is not measured.
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

REPOSITORY = Path(__file__).resolve().parent.parent
#: Architecture in keras.applications -> (title, image size, published float MB, published int8 MB).
ARCHITECTURES = {
    "MobileNet": ("MobileNet-v1-1-224", 224, 16.9, 4.3),
    "MobileNetV2": ("MobileNet-v2-1-224", 224, 14.0, 3.6),
    "InceptionV3": ("Inception_v3", 299, 95.7, 23.9),
    "ResNet101V2": ("Resnet_v2_101", 224, 178.3, 44.9),
}
_MAKE = """
import sys, keras
keras.utils.set_random_seed(1)
size = int(sys.argv[2])
getattr(keras.applications, sys.argv[1])(weights=None, input_shape=(size, size, 3)).save(sys.argv[3])
"""


def edgepack(*words: str | Path, work: Path) -> list[dict[str, Any]]:
    """Run a command with --json; return its results, also of a model that a target refuses."""
    environment = {**os.environ, "EDGEPACK_CACHE_DIR": str(work / "cache"), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "edgepack", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if not done.stdout:
        sys.exit(f"edgepack {' '.join(map(str, words))} failed:\n{done.stderr[-2000:]}")
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return results


def measure(name: str, work: Path) -> dict[str, Any]:
    """Make one architecture, convert, quantize and check it."""
    size = ARCHITECTURES[name][1]
    model, samples = work / f"{name}.keras", work / f"images_{size}.npz"
    if not model.exists():
        subprocess.run([sys.executable, "-c", _MAKE, name, str(size), str(model)], check=True, capture_output=True)
    if not samples.exists():
        images = np.random.default_rng(1).random((4, size, size, 3), np.float32)
        np.savez(samples, x=images)
    start = time.perf_counter()
    built = edgepack(
        "build", model, "-t", "cpu", "-t", "edgetpu", "-t", "hexagon", "--scheme", "int8", "--samples", samples,
        "--compile", "never", "--dry-run", "-o", work / "out", work=work,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    (gpu,) = edgepack("check", model, "-t", "android-gpu", work=work)
    summaries = {entry["target"]: entry["summary"] for entry in built} | {"android-gpu": gpu["summary"]}
    return {
        "float_bytes": built[0]["float_bytes"],
        "int8_bytes": built[0]["model"]["bytes"],
        "placed": {target: [found["accelerator"], found["total"]] for target, found in summaries.items()},
        "seconds": seconds,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder that keeps models and results between runs")
    parser.add_argument("--model", choices=list(ARCHITECTURES), action="append", help="default: all four")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    targets = ("cpu", "edgetpu", "hexagon", "android-gpu")
    print(f"{'sizes in MB':<20}{'published':>14}{'edgepack':>14}" + "".join(f"{target:>13}" for target in targets))
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for name in arguments.model or ARCHITECTURES:
            title, _, before, after = ARCHITECTURES[name]
            row = found[name] = measure(name, work)
            sizes = f"{row['float_bytes'] / 1e6:.1f} -> {row['int8_bytes'] / 1e6:.1f}"
            placed = "".join(f"{'/'.join(map(str, row['placed'][target])):>13}" for target in targets)
            print(f"{title:<20}{f'{before:g} -> {after:g}':>14}{sizes:>14}{placed}", flush=True)
    print("ops on the accelerator of all: int8; android-gpu: its own first scheme, float16")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
