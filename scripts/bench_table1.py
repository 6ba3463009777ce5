"""TensorFlow's Table 1 by size and placement: four Keras architectures, untrained, as int8 for every target.

The published sizes are from "Table 1: Benefits of model quantization for select CNN models" in TensorFlow's guide to
model optimization (2019). Sizes and placements do not depend on the values of weights, so the networks are not trained
and are calibrated on four random images; accuracy is not measured.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import edgepack, parser, work_folder, write_figures

#: Architecture in keras.applications -> (title, image size, published float MB, published int8 MB).
ARCHITECTURES = {
    "MobileNet": ("MobileNet-v1-1-224", 224, 16.9, 4.3),
    "MobileNetV2": ("MobileNet-v2-1-224", 224, 14.0, 3.6),
    "InceptionV3": ("Inception_v3", 299, 95.7, 23.9),
    "ResNet101V2": ("Resnet_v2_101", 224, 178.3, 44.9),
}
_SAVE_MODEL = """
import sys, keras
keras.utils.set_random_seed(1)
size = int(sys.argv[2])
getattr(keras.applications, sys.argv[1])(weights=None, input_shape=(size, size, 3)).save(sys.argv[3])
"""


def measure(name: str, work: Path) -> dict[str, Any]:
    """Convert, quantize and check one architecture."""
    size = ARCHITECTURES[name][1]
    model, samples = work / f"{name}.keras", work / f"images_{size}.npz"
    if not model.exists():
        subprocess.run(
            [sys.executable, "-c", _SAVE_MODEL, name, str(size), str(model)], check=True, capture_output=True
        )
    if not samples.exists():
        images = np.random.default_rng(1).random((4, size, size, 3), np.float32)
        np.savez(samples, x=images)
    start = time.perf_counter()
    built = edgepack(
        "build", model, "-t", "cpu", "-t", "edgetpu", "-t", "hexagon", "--scheme", "int8", "--samples", samples,
        "--compile", "never", "--dry-run", "-o", work / "out", work=work, allow_failure=True,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    (gpu,) = edgepack("check", model, "-t", "android-gpu", work=work, allow_failure=True)
    summaries = {entry["target"]: entry["summary"] for entry in built} | {"android-gpu": gpu["summary"]}
    return {
        "float_bytes": built[0]["float_bytes"],
        "int8_bytes": built[0]["model"]["bytes"],
        "placed": {target: [summary["accelerator"], summary["total"]] for target, summary in summaries.items()},
        "seconds": seconds,
    }


def main() -> None:
    """Run the benchmark."""
    arguments = parser(__doc__, ARCHITECTURES).parse_args()
    figures: dict[str, Any] = {}
    targets = ("cpu", "edgetpu", "hexagon", "android-gpu")
    print(f"{'sizes in MB':<20}{'published':>14}{'edgepack':>14}" + "".join(f"{target:>13}" for target in targets))
    with work_folder(arguments.work) as work:
        for name in arguments.model or ARCHITECTURES:
            title, _, before, after = ARCHITECTURES[name]
            row = figures[name] = measure(name, work)
            sizes = f"{row['float_bytes'] / 1e6:.1f} -> {row['int8_bytes'] / 1e6:.1f}"
            placed = "".join(f"{'/'.join(map(str, row['placed'][target])):>13}" for target in targets)
            print(f"{title:<20}{f'{before:g} -> {after:g}':>14}{sizes:>14}{placed}", flush=True)
    print("columns of targets: ops on the accelerator / all ops, as int8; android-gpu as float16, its preferred scheme")
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
