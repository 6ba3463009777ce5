"""The Kotlin compiler and the real Android artifacts, brought by Maven into a folder of the user's cache."""

import os
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgepack.bundle.android import VERSIONS

STANDINS = Path(__file__).resolve().parent / "standins"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>test</groupId><artifactId>test</artifactId><version>1</version><dependencies>{}</dependencies></project>
"""
_TFLITE = VERSIONS["tensorflow_lite"]
_COMPILER = [f"org.jetbrains.kotlin:kotlin-compiler-embeddable:{VERSIONS['kotlin']}:jar"]
_ANDROID = [
    f"org.tensorflow:tensorflow-lite:{_TFLITE}:aar",
    f"org.tensorflow:tensorflow-lite-api:{_TFLITE}:aar",
    f"org.tensorflow:tensorflow-lite-gpu:{_TFLITE}:aar",
    f"org.tensorflow:tensorflow-lite-gpu-api:{VERSIONS['tensorflow_lite_gpu_api']}:aar",
    "org.robolectric:android-all:14-robolectric-10818077:jar",
]
_QNN = [f"com.qualcomm.qti:qnn-litert-delegate:{VERSIONS['qnn']}:aar"]


@dataclass(frozen=True)
class Kotlin:
    """A Kotlin compiler with a class path.

    Attributes:
        compiler: Folder with the compiler's jars.
        classpath: Jars and folders that the loaders are compiled against.
        qnn: `real` or `stand-in`: where Qualcomm's class comes from.
    """

    compiler: Path
    classpath: tuple[Path, ...]
    qnn: str

    @property
    def stdlib(self) -> Path:
        """Kotlin's standard library."""
        return next(self.compiler.glob("kotlin-stdlib-[0-9]*.jar"))

    def compile(self, sources: Sequence[Path], output: Path) -> subprocess.CompletedProcess[str]:
        """Compile with all warnings, as errors."""
        path = os.pathsep.join(map(str, (*self.classpath, self.stdlib)))
        flags = ["-Werror", "-Wextra", "-no-stdlib", "-no-reflect", "-jvm-target", "17", "-cp", path, "-d", str(output)]
        main = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
        return subprocess.run(
            # The quick compiler only: the JVM lives too short for the thorough one to pay.
            ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{self.compiler}/*", main, *flags, *map(str, sources)],
            capture_output=True,
            text=True,
            timeout=600,
        )

    def compile_java(self, sources: Sequence[Path], output: Path) -> subprocess.CompletedProcess[str]:
        """Compile Java with every warning of the compiler, as errors."""
        path = os.pathsep.join(map(str, self.classpath))
        # Not about our code: classes of android-all whose annotations lack members.
        flags = [
            "-Xlint:all,-classfile",
            "-Werror",
            "--release",
            "17",
            "-encoding",
            "UTF-8",
            "-cp",
            path,
            "-d",
            str(output),
        ]
        return subprocess.run(
            ["javac", *flags, *map(str, sources)],
            capture_output=True,
            text=True,
            timeout=600,
        )


def cache_folder() -> Path:
    """Return where the artifacts are kept between runs."""
    configured = os.environ.get("EDGEPACK_TEST_ARTIFACTS")
    return Path(configured) if configured else Path.home() / ".cache" / "edgepack-tests"


def find_kotlin(scratch: Path) -> Kotlin:
    """Return the compiler with everything it needs; skips the test where that cannot be had."""
    missing = [tool for tool in ("mvn", "java", "javac") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"compiling Kotlin needs {', '.join(missing)}")
    compiler = fetch(_COMPILER, transitive=True)
    android = fetch(_ANDROID)
    if compiler is None or android is None:
        pytest.skip("compiling Kotlin needs its compiler and the Android artifacts from Maven Central")
    jars = [*sorted(android.glob("*.jar")), *(_classes(aar) for aar in sorted(android.glob("*.aar")))]
    qnn = fetch(_QNN)
    if qnn is not None:
        return Kotlin(compiler, (*jars, *(_classes(aar) for aar in sorted(qnn.glob("*.aar")))), "real")
    built = scratch / "qnn-stand-in"
    built.mkdir()
    path = os.pathsep.join(map(str, jars))
    sources = sorted(map(str, (STANDINS / "compile").rglob("*.java")))
    subprocess.run(["javac", "-d", str(built), "-cp", path, *sources], check=True, timeout=120)
    return Kotlin(compiler, (*jars, built), "stand-in")


def fetch(coordinates: list[str], transitive: bool = False) -> Path | None:
    """Return a folder with the artifacts, None when Maven cannot bring them."""
    parts = [coordinate.split(":") for coordinate in coordinates]
    folder = cache_folder() / "-".join([parts[0][1], parts[0][2]])
    if (folder / "complete").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("groupId", "artifactId", "version", "type")
    # Without exclusions Maven looks for the libraries of an .aar as .jar files, which do not exist.
    alone = (
        ""
        if transitive
        else "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
    )
    fields = ["".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, part, strict=True)) for part in parts]
    entries = "".join(f"<dependency>{field}{alone}</dependency>" for field in fields)
    (folder / "pom.xml").write_text(_POM.format(entries))
    goal = "dependency:copy-dependencies"
    done = subprocess.run(
        ["mvn", "-B", "-q", "-f", str(folder / "pom.xml"), goal, f"-DoutputDirectory={folder}"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode != 0:
        return None
    (folder / "complete").touch()
    return folder


def _classes(aar: Path) -> Path:
    """Return the classes of an Android archive as a jar."""
    jar = aar.parent / "classes" / f"{aar.stem}.jar"
    if not jar.is_file():
        jar.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(aar) as archive:
            jar.write_bytes(archive.read("classes.jar"))
    return jar
