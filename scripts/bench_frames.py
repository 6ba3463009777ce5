"""Camera frames on a JVM: time and allocation of the Kotlin and the Java loader, beside the Bitmap path that they had.

Each figure is the median of the thread's CPU time over the runs after two rounds of warm-up, and the bytes that the
thread allocated per run, which the JVM counts. A JVM is not Android's runtime; what is compared is the work.
"""

import argparse
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmark import work_folder, write_figures

TESTS = Path(__file__).resolve().parents[1] / "tests" / "bundle"
SIZES = ((640, 480), (1920, 1080), (4032, 3024))
FORMATS = ("yuv", "nv21", "rgba", "ARGB_8888")
INPUT = 224


def bitmap_path(classes: Path, standins: Path, size: tuple[int, int], runs: int) -> tuple[int, float]:
    """Return bytes and milliseconds of a run of the former path."""
    words = [*map(str, size), str(INPUT), str(runs)]
    command = ["java", "-cp", f"{classes}{os.pathsep}{standins}", "BitmapPath", *words]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout
    return int(printed.split()[0]), float(printed.split()[1])


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    options.add_argument("--runs", type=int, default=40, metavar="N", help="runs of each path")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    arguments = options.parse_args()
    sys.path[:0] = [str(TESTS)]
    import jvm_tools
    from frame_reference import Case, Input
    from kotlin_tools import find_kotlin
    from test_frames import LANGUAGES, compile_loader, java

    figures = []
    with ExitStack() as stack:
        work = stack.enter_context(work_folder(None))
        kotlin = stack.enter_context(find_kotlin(work))
        standins = jvm_tools.compile_standins(kotlin, work / "standins")
        done = replace(kotlin, classpath=(standins,)).compile_java(
            [Path(__file__).with_name("BitmapPath.java")], work / "bitmap", strict=False
        )
        assert done.returncode == 0, done.stderr
        loaders = {name: compile_loader(kotlin, standins, name, work / name) for name in LANGUAGES}
        for size in SIZES:
            before = bitmap_path(work / "bitmap", standins, size, arguments.runs)
            figures.append({"size": size, "path": "Bitmap, before", "bytes": before[0], "ms": before[1], "times": 1.0})
            for name, kind in ((name, kind) for name in LANGUAGES for kind in FORMATS):
                case = Case(kind, *size, uv_pixel=2 if kind == "yuv" else 1, input=Input(INPUT, INPUT))
                folder = work / "case"
                folder.mkdir(exist_ok=True)
                # More bytes than any plane has: what is in them does not matter for the time.
                for plane in range(3):
                    (folder / f"0.{plane}").write_bytes(np.random.default_rng(plane).bytes(4 * size[0] * size[1]))
                (folder / "cases.txt").write_text(f"0 {case.words()}\n")
                printed = java(loaders[name], "FrameCases", str(folder), str(arguments.runs)).split()
                ms = float(printed[1])
                figures.append(
                    {"size": size, "path": f"{name} {kind}", "bytes": int(printed[0]) // arguments.runs, "ms": ms,
                     "times": before[1] / ms}
                )  # fmt: skip
    print(f"{'frame':>11}  {'path':18} {'bytes':>12} {'CPU ms':>8} {'faster':>7}")
    for row in figures:
        wide, high = row["size"]
        print(f"{wide:>6}x{high:<4}  {row['path']:18} {row['bytes']:>12,} {row['ms']:>8.2f} {row['times']:>6.1f}x")
    write_figures(arguments.json, {"frames": figures})


if __name__ == "__main__":
    main()
