"""Runs a generated Android loader on a JVM: a stand-in Interpreter replays the real runtime's outputs."""

import os
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from kotlin_tools import STANDINS, Kotlin

from edgepack.bundle.context import make_context
from edgepack.bundle.spec import BundleSpec
from edgepack.runtime import Runner, dequantize, quantize

Arrays = list[np.ndarray]

#: Runs of `benchmark(4)`, those that do not count included.
TIMED = 7


@dataclass(frozen=True)
class Recording:
    """Runs of the real runtime.

    Attributes:
        real: Real values given to each run, one array per input.
        raw: The same as the runtime took them.
        outputs: What the runtime gave, raw.
        results: The same as real values, float32 where the output is quantized.
    """

    real: list[Arrays]
    raw: list[Arrays]
    outputs: list[Arrays]
    results: list[Arrays]


def record(tflite: bytes, samples: Sequence[Arrays]) -> Recording:
    """Run the real runtime on real values, quantizing and dequantizing as edgepack does."""
    runner = Runner(tflite)
    raw = [[quantize(info, value) for info, value in zip(runner.inputs, sample, strict=True)] for sample in samples]
    outputs = [[np.array(output) for output in runner.run(arrays)] for arrays in raw]
    results = [
        [
            np.asarray(dequantize(info, output), np.float32) if info.quantized else output
            for info, output in zip(runner.outputs, arrays, strict=True)
        ]
        for arrays in outputs
    ]
    return Recording([list(sample) for sample in samples], raw, outputs, results)


def write_recording(folder: Path, recording: Recording, spec: BundleSpec, pictures: int) -> None:
    """Write the runs, images, golden cases and timed runs in the order in which the driver runs them."""
    golden = [list(case.outputs) for case in spec.golden.cases]
    # The result of an image does not matter: the test looks at its input.
    replayed = [*recording.outputs, *[golden[0]] * pictures, *golden, *[golden[0]] * TIMED]
    for number, outputs in enumerate(replayed):
        run = folder / str(number)
        run.mkdir(parents=True)
        for position, output in enumerate(outputs):
            (run / f"output_{position}.bin").write_bytes(output.tobytes())
    for number, sample in enumerate(recording.real):
        for position, value in enumerate(sample):
            (folder / str(number) / f"real_{position}.bin").write_bytes(value.tobytes())


def write_archive(files: Mapping[str, bytes], path: Path) -> None:
    """Write a module's assets as an app has them: models stored, everything else compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            _, found, asset = name.partition("/src/main/assets/")
            if found:
                kind = zipfile.ZIP_STORED if name.endswith(".tflite") else zipfile.ZIP_DEFLATED
                archive.writestr(f"assets/{asset}", data, compress_type=kind)


def compile_standins(kotlin: Kotlin, output: Path) -> Path:
    """Compile the stand-ins for Android and the runtime, and the driver."""
    sources = sorted(path for kind in ("replay", "driver") for path in (STANDINS / kind).rglob("*.java"))
    without_android = replace(kotlin, classpath=tuple(jar for jar in kotlin.classpath if "android-all" not in jar.name))
    done = without_android.compile_java(sources, output, strict=False)
    assert done.returncode == 0, done.stderr
    return output


def drive(
    kotlin: Kotlin,
    standins: Path,
    classes: Path,
    spec: BundleSpec,
    folder: Path,
    runs: int,
    pictures: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Let the driver use the loader; the stand-ins come first on the class path, Android itself is not on it."""
    context = make_context(spec)
    getters = [view.getter for view in context["outputs"]]
    jars = [jar for jar in kotlin.classpath if "android-all" not in jar.name]
    return subprocess.run(
        [
            "java",
            "-XX:TieredStopAtLevel=1",
            f"-Dreplay.folder={folder}",
            f"-Dreplay.archive={folder / 'app.zip'}",
            "-cp",
            os.pathsep.join(map(str, [standins, classes, kotlin.stdlib, *jars])),
            "Drive",
            f"{context['kotlin_package']}.{context['class_name']}",
            str(runs),
            ",".join(getters),
            *pictures,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def instrument(
    kotlin: Kotlin, standins: Path, classes: Path, package: str, folder: Path, key: str = "runs", value: str = "4"
) -> str:
    """Start a generated self-test and return what `am instrument -r -e KEY VALUE` prints; JSON is Android's own."""
    android = next(jar for jar in kotlin.classpath if "android-all" in jar.name)
    json = folder / "org.json.jar"
    with zipfile.ZipFile(android) as whole, zipfile.ZipFile(json, "w") as part:
        for name in whole.namelist():
            if name.startswith("org/json/") and name.endswith(".class"):
                part.writestr(name, whole.read(name))
    jars = [jar for jar in kotlin.classpath if jar != android]
    path = os.pathsep.join(map(str, [standins, classes, kotlin.stdlib, json, *jars]))
    flags = [f"-Dreplay.folder={folder}", f"-Dreplay.archive={folder / 'app.zip'}", "-XX:TieredStopAtLevel=1"]
    command = ["java", *flags, "-cp", path, "Instrument", f"{package}.SelfTest", key, value]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
