"""Compilers for the C and C++ loader, and the real runtime libraries that it loads."""

import importlib.util
import os
import platform
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from kotlin_tools import cache_folder, locked

#: TensorFlow Lite with its C API, from Maven Central: built for Java, but its C functions are exported.
_TFLITE = ("org.bytedeco", "tensorflow-lite", "2.18.0-1.5.11")
STRICT = ("-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wshadow")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True)
class Loader:
    """The C and C++ project of a bundle.

    Attributes:
        folder: linux/cpp of the bundle.
        name: Prefix of the model's functions.
    """

    folder: Path
    name: str

    @property
    def data(self) -> Path:
        """Folder with the model's files."""
        return next(self.folder.parent.glob("src/*/data"))


def loader_of(bundle: Path) -> Loader:
    """Return the project of a written bundle."""
    folder = bundle / "linux" / "cpp"
    return Loader(folder, next(path.name for path in (folder / "include").iterdir() if path.name != "edgepack"))


def needs_compilers() -> None:
    """Skip the test where there is no C and C++ compiler."""
    missing = [tool for tool in ("cc", "c++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"compiling the loader needs {', '.join(missing)}: install GCC or Clang with C++")


def compile_c(loader: Loader, source: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compile one C11 file of, or on, a loader, with every warning as an error."""
    wide = ("-Wconversion",)
    return _compile(["cc", "-std=c11", *wide, f"-DEDGEPACK_PREFIX={loader.name}"], loader, source, flags)


def compile_cpp(loader: Loader, source: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compile one C++17 file on a loader, with every warning as an error."""
    return _compile(["c++", "-std=c++17"], loader, source, flags)


def _compile(
    compiler: Sequence[str], loader: Loader, source: Path, flags: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    include = f"-I{loader.folder / 'include'}"
    command = [*compiler, *STRICT, include, f"-I{loader.folder / 'src'}", *flags, "-c", str(source)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def link(program: Path, sources: Sequence[Path], loaders: Sequence[Loader], flags: Sequence[str] = SANITIZED) -> Path:
    """Compile loaders, each with its own prefix, and C or C++ sources into a program with the sanitizers."""
    objects = []
    work = program.with_suffix(".objects")
    for loader in loaders:
        (work / loader.name).mkdir(parents=True)
        for source in sorted((loader.folder / "src").glob("*.c")):
            objects.append(work / loader.name / f"{source.stem}.o")
            checked(compile_c(loader, source, *flags, "-o", str(objects[-1])))
    for source in sources:
        objects.append(work / f"{source.stem}{source.suffix}.o")
        extra = [f"-I{loader.folder / 'include'}" for loader in loaders[1:]]
        compile_ = compile_c if source.suffix == ".c" else compile_cpp
        checked(compile_(loaders[0], source, *flags, *extra, "-o", str(objects[-1])))
    checked(
        subprocess.run(
            ["c++", *flags, *map(str, objects), "-o", str(program), "-ldl", "-lm"], capture_output=True, text=True
        )
    )
    return program


def self_test_program(loader: Loader, program: Path) -> Path:
    """Return the bundle's own self-test, compiled."""
    return link(program, [loader.folder / "tests" / "self_test.cpp"], [loader])


def checked(done: subprocess.CompletedProcess[str]) -> None:
    """Fail with the compiler's output."""
    assert done.returncode == 0, done.stderr


def run(program: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a compiled program; leaks inside the runtime libraries are theirs."""
    done = run_bytes(program, *arguments, **variables)
    texts = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, *texts)


def run_bytes(
    program: Path, *arguments: object, given: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a compiled program that reads and writes bytes."""
    ignored = program.with_suffix(".leaks")
    ignored.write_text("leak:libjnitensorflowlite\nleak:libLiteRt\n")
    environment = {**os.environ, "LSAN_OPTIONS": f"suppressions={ignored}:print_suppressions=0", **variables}
    return subprocess.run(
        [str(program), *map(str, arguments)], input=given, capture_output=True, timeout=120, env=environment
    )


def litert_library() -> Path:
    """Return the C library of the installed LiteRT; skips where the package has none for this system."""
    spec = importlib.util.find_spec("ai_edge_litert")
    found = Path(str(spec.origin)).parent / "libLiteRt.so" if spec is not None else Path()
    if not found.is_file():
        pytest.skip("the installed ai-edge-litert has no libLiteRt.so")
    return found


def tflite_library(system: str = "linux-x86_64") -> Path:
    """Return a real TensorFlow Lite with its C API; skips where Maven cannot download it and on other machines."""
    if platform.machine() != "x86_64":
        pytest.skip("the TensorFlow Lite library of the tests is for x86_64")
    group, artifact, version = _TFLITE
    folder = cache_folder() / f"{artifact}-{version}" / system
    library = folder / "libjnitensorflowlite.so"
    with locked(folder):
        if library.is_file():
            return library
        if shutil.which("mvn") is None:
            pytest.skip("a real TensorFlow Lite library needs Maven: install it")
        coordinates = f"{group}:{artifact}:{version}:jar:{system}"
        done = subprocess.run(
            ["mvn", "-B", "-q", "dependency:copy", f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}"],
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode != 0:
            pytest.skip("a real TensorFlow Lite library is needed, which Maven could not download")
        with zipfile.ZipFile(next(folder.glob("*.jar"))) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith(library.name)]
            part = library.with_suffix(".part")
            part.write_bytes(archive.read(member))
        part.rename(library)
    return library


def runtime_library(kind: str) -> Path:
    """Return the library of `litert` or `tflite`."""
    return litert_library() if kind == "litert" else tflite_library()
