"""The Kotlin compiler and the real Android artifacts, which Maven downloads into a folder of the user's cache."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from edgepack.bundle.android_runtime import VERSIONS

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
#: For the suspend functions and flows, which a loader has in a folder of its own; on Android the same classes.
_COROUTINES = ["org.jetbrains.kotlinx:kotlinx-coroutines-core-jvm:1.10.2:jar"]
_JUNIT = [f"junit:junit:{VERSIONS['junit']}:jar", "org.hamcrest:hamcrest-core:1.3:jar"]
_QNN = [f"com.qualcomm.qti:qnn-litert-delegate:{VERSIONS['qnn']}:aar"]


class Compilers:
    """The Kotlin and the Java compiler in one JVM that serves all tests: warm, they take a fifth of the time.

    Args:
        kotlin: Folder with the Kotlin compiler's jars.
    """

    def __init__(self, kotlin: Path) -> None:
        program = STANDINS / "compilers" / "Compilers.java"
        # The quick compiler only: the JVM lives too short for the thorough one to pay. Warnings of the JVM itself go to
        # stderr, because stdout carries the answers.
        options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:+DisplayVMOutputToStderr", "-Xlog:disable"]
        self._process = subprocess.Popen(
            ["java", *options, "-Xlog:all=warning:stderr", "-cp", f"{kotlin}/*", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def compile(self, language: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the compiler of a language, `kotlin` or `java`; its messages are the result's stderr."""
        assert self._process.stdin is not None and self._process.stdout is not None
        call = "\t".join([language, *arguments])
        assert "\n" not in call and call.count("\t") == len(arguments)
        limit = threading.Timer(600, self._process.kill)
        limit.start()
        try:
            self._process.stdin.write(call.encode() + b"\n")
            self._process.stdin.flush()
            code, size = self._process.stdout.readline().split()
            messages = self._process.stdout.read(int(size)).decode()
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the compilers' JVM died or took longer than 10 minutes: {call[:200]}") from error
        finally:
            limit.cancel()
        return subprocess.CompletedProcess([language, *arguments], int(code), "", messages)


@dataclass(frozen=True)
class Kotlin:
    """A Kotlin and a Java compiler with a class path.

    Attributes:
        compiler: Folder with the Kotlin compiler's jars.
        classpath: Jars and folders that the loaders are compiled against.
        qnn: `real` or `stand-in`: where Qualcomm's class comes from.
        compilers: Runs both compilers.
    """

    compiler: Path
    classpath: tuple[Path, ...]
    qnn: str
    compilers: Compilers

    @property
    def stdlib(self) -> Path:
        """Kotlin's standard library."""
        return next(self.compiler.glob("kotlin-stdlib-[0-9]*.jar"))

    def compile(self, sources: Sequence[Path], output: Path) -> subprocess.CompletedProcess[str]:
        """Compile with all warnings, as errors; coroutines are there for the sources in their folder only."""
        libraries = coroutines() if any("coroutines" in source.parts for source in sources) else ()
        path = os.pathsep.join(map(str, (*self.classpath, *libraries, self.stdlib)))
        flags = ["-Werror", "-Wextra", "-no-stdlib", "-no-reflect", "-jvm-target", "17", "-cp", path, "-d", str(output)]
        return self.compilers.compile("kotlin", *flags, *map(str, sources))

    def compile_java(
        self, sources: Sequence[Path], output: Path, *, strict: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Compile Java; `strict` makes every warning of the compiler an error."""
        path = os.pathsep.join(map(str, self.classpath))
        # Not about our code: classes of android-all whose annotations lack members.
        warnings = ["-Xlint:all,-classfile", "-Werror"] if strict else ["-nowarn"]
        flags = [*warnings, "--release", "17", "-encoding", "UTF-8", "-cp", path, "-d", str(output)]
        output.mkdir(parents=True, exist_ok=True)
        return self.compilers.compile("java", *flags, *map(str, sources))


def cache_folder() -> Path:
    """Return where the artifacts stay between runs."""
    configured = os.environ.get("EDGEPACK_TEST_ARTIFACTS")
    return Path(configured) if configured else Path.home() / ".cache" / "edgepack-tests"


@contextlib.contextmanager
def find_kotlin(scratch: Path) -> Iterator[Kotlin]:
    """Provide the compilers with everything they need; skips the test where something is missing."""
    missing = [tool for tool in ("mvn", "java", "javac") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"compiling Kotlin needs {', '.join(missing)}: install a JDK (17 or newer) and Maven")
    compiler = fetch(_COMPILER, transitive=True)
    android = fetch(_ANDROID)
    junit = fetch(_JUNIT)
    if compiler is None or android is None or junit is None:
        pytest.skip("compiling Kotlin needs its compiler and the Android artifacts, which Maven could not download")
    jars = [
        *sorted(android.glob("*.jar")),
        *sorted(junit.glob("*.jar")),
        *(_classes(aar) for aar in sorted(android.glob("*.aar"))),
    ]
    qnn = fetch(_QNN)
    with Compilers(compiler) as compilers:
        # LiteRT 2.x and AndroidX are on Google's Maven repository only.
        google = scratch / "google-stand-ins"
        sources = sorted(
            path for kind in ("compiled_model", "androidx_test") for path in (STANDINS / kind).rglob("*.java")
        )
        done = Kotlin(compiler, tuple(jars), "", compilers).compile_java(sources, google, strict=False)
        assert done.returncode == 0, done.stderr
        jars.append(google)
        if qnn is not None:
            classpath = (*jars, *(_classes(aar) for aar in sorted(qnn.glob("*.aar"))))
            yield Kotlin(compiler, classpath, "real", compilers)
            return
        built = scratch / "qnn-stand-in"
        sources = sorted((STANDINS / "compile").rglob("*.java"))
        done = Kotlin(compiler, tuple(jars), "stand-in", compilers).compile_java(sources, built, strict=False)
        assert done.returncode == 0, done.stderr
        yield Kotlin(compiler, (*jars, built), "stand-in", compilers)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder of the artifacts."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def fetch(coordinates: list[str], transitive: bool = False) -> Path | None:
    """Return a folder with the artifacts, None when Maven cannot download them."""
    parts = [coordinate.split(":") for coordinate in coordinates]
    folder = cache_folder() / "-".join([parts[0][1], parts[0][2]])
    with locked(folder):
        if (folder / "complete").is_file():
            return folder
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
        for aar in folder.glob("*.aar"):
            _unpack_classes(aar)
        (folder / "complete").touch()
    return folder


def coroutines() -> tuple[Path, ...]:
    """Return the jar of Kotlin's coroutines; skips the test where Maven cannot download it."""
    folder = fetch(_COROUTINES)
    if folder is None:
        pytest.skip("suspend functions need kotlinx-coroutines, which Maven could not download")
    return tuple(sorted(folder.glob("*.jar")))


def _classes(aar: Path) -> Path:
    """Return the classes of an Android archive as a jar."""
    jar = aar.parent / "classes" / f"{aar.stem}.jar"
    return jar if jar.is_file() else _unpack_classes(aar)


def _unpack_classes(aar: Path) -> Path:
    jar = aar.parent / "classes" / f"{aar.stem}.jar"
    jar.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(aar) as archive:
        jar.write_bytes(archive.read("classes.jar"))
    return jar
