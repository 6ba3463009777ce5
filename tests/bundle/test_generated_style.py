"""Generated code is laid out as each language's own formatter lays it out: a reviewer finds nothing to move."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_specs import tiny_spec, write_tree
from kotlin_tools import fetch
from test_bundle_render import TASKS, in_segments, on_frames, with_picture
from test_compiled_model_loader import plain_spec, simulated_spec
from test_sample_app import task_spec
from test_task_loaders import VARIANTS, specs

from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.choices import Task
from edgepack.runtime.postprocessing import PostprocessStep

pytestmark = pytest.mark.slow

_KTLINT = "com.pinterest.ktlint:ktlint-cli:1.5.0:jar"
_JAVA_FORMAT = "com.google.googlejavaformat:google-java-format:1.28.0:jar"
#: Packages of the compiler that the Java formatter reads; a JDK exports them on request only.
_EXPORTS = [f"--add-exports=jdk.compiler/com.sun.tools.javac.{name}=ALL-UNNAMED" for name in
            ("api", "code", "file", "parser", "tree", "util")]  # fmt: skip

Formatter = Callable[[Sequence[Path]], str]


def with_tail(spec: BundleSpec) -> BundleSpec:
    """Return the spec with postprocessed outputs: probabilities, and a class."""
    scores = spec.outputs[0]
    softmax = PostprocessStep(0, scores.name, "SOFTMAX", 1, 1.0, "FLOAT32", scores.shape)
    choice = PostprocessStep(1, "2nd-output", "ARG_MAX", 1, 1.0, "INT32", (1,))
    first, second = replace(scores, tail=(softmax,)), replace(spec.outputs[1], tail=(choice,))
    return replace(spec, outputs=(first, second, spec.outputs[2]))


ANDROID = {
    "android-gpu": tiny_spec("android-gpu"),
    "hexagon": tiny_spec("hexagon"),
    "hexagon-float16": tiny_spec("hexagon", scheme="float16"),
    "pictures": with_picture(tiny_spec("android-gpu")),
    "cpu": tiny_spec("cpu", platform="android"),
    "tail": with_tail(tiny_spec("hexagon")),
    "state": tiny_spec("android-gpu", state="resource-variables"),
    "compiled": simulated_spec(),
    "litert2": plain_spec("hexagon"),
    "sample": task_spec(Task.DETECTION, "joined", (1, 10, 7)),
}
LINUX = {
    "cpu": tiny_spec("cpu"),
    "edgetpu": tiny_spec("edgetpu"),
    "not-compiled": tiny_spec("edgetpu", models=tiny_spec("cpu").models, runs="tiny.tflite"),
    "frames": on_frames(tiny_spec("cpu")),
    "segments": in_segments(with_picture(tiny_spec("edgetpu"))),
    "tail": with_tail(tiny_spec("cpu")),
    "state": tiny_spec("cpu", state="resource-variables"),
    **TASKS,
}


def files_of(spec: BundleSpec, folder: Path, *endings: str) -> list[Path]:
    """Write a bundle and return its files with these endings."""
    bundle = write_tree(render(spec), folder)
    return sorted(path for path in bundle.rglob("*") if path.name.endswith(endings))


def _java(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", *words], capture_output=True, text=True, encoding="utf-8", timeout=300
    )


def _maven(coordinates: str) -> str:
    missing = [tool for tool in ("mvn", "java") if shutil.which(tool) is None]
    folder = fetch([coordinates], transitive=True) if not missing else None
    if folder is None:
        pytest.skip(f"{coordinates.split(':')[1]} needs Java and Maven: install them, and let Maven download it")
    return f"{folder}/*"


@pytest.fixture(scope="module")
def ktlint() -> Formatter:
    """Ktlint with its own rules and no configuration."""
    path = _maven(_KTLINT)

    def check(files: Sequence[Path]) -> str:
        done = _java("-cp", path, "com.pinterest.ktlint.Main", "--log-level=error", *map(str, files))
        return "" if done.returncode == 0 else done.stdout + done.stderr

    return check


@pytest.fixture(scope="module")
def java_format() -> Formatter:
    """google-java-format; names the files that it would change."""
    path = _maven(_JAVA_FORMAT)

    def check(files: Sequence[Path]) -> str:
        main = "com.google.googlejavaformat.java.Main"
        done = _java(*_EXPORTS, "-cp", path, main, "--dry-run", *map(str, files))
        return done.stdout + (done.stderr if done.returncode else "")

    return check


@pytest.fixture(scope="module")
def clang_format() -> Formatter:
    """clang-format with the configuration that the generated project carries."""
    program = shutil.which("clang-format")
    spec = importlib.util.find_spec("clang_format")
    if program is None and spec is not None:
        program = shutil.which("clang-format", path=str(Path(str(spec.origin)).parent / "data" / "bin"))
    if program is None:
        pytest.skip("needs clang-format (pip install clang-format)")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    # Versions lay out comments differently; this is the one that is installed for development.
    if version.split("version ")[1].split(".")[0] != "20":
        pytest.skip(f"needs clang-format 20, got {version.strip()}")

    def check(files: Sequence[Path]) -> str:
        command = [str(program), "--dry-run", "-Werror", *map(str, files)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120).stderr

    return check


@pytest.fixture(scope="module")
def ruff() -> Formatter:
    """Ruff's formatter and linter for the oldest Python that the package supports."""
    program = shutil.which("ruff") or shutil.which("ruff", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("needs ruff")

    def check(files: Sequence[Path]) -> str:
        said = ""
        for words in (["format", "--check"], ["check", "--select", "E,F,I,W,UP,SIM,B", "--ignore", "B905"]):
            shared = ["--isolated", "--no-cache", "--line-length", "120", "--target-version", "py39"]
            done = subprocess.run(
                [program, *words, *shared, *map(str, files)], capture_output=True, text=True, timeout=120
            )
            said += done.stdout + done.stderr if done.returncode else ""
        return said

    return check


def by_variant(check: Formatter, folder: Path, files: dict[str, list[Path]]) -> dict[str, str]:
    """Return what a formatter says of each variant's files: one run for all, because its JVM starts slowly."""
    lines = check([file for name in files for file in files[name]]).splitlines()
    said = {name: [line for line in lines if f"{folder / name}{os.sep}" in line] for name in files}
    assert sum(map(len, said.values())) == len(lines), lines
    return {name: "\n".join(of_variant) for name, of_variant in said.items()}


@pytest.fixture(scope="module")
def ktlint_says(ktlint: Formatter, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What ktlint says of the loader, the self-test and the Gradle scripts of each variant."""
    folder = tmp_path_factory.mktemp("ktlint")
    # Compose names its functions like classes.
    rule = "[*.kt]\nktlint_function_naming_ignore_when_annotated_with = Composable\n"
    (folder / ".editorconfig").write_text(rule, encoding="utf-8")
    variants = ANDROID | specs("kotlin")
    files = {name: files_of(spec, folder / name, ".kt", ".kts") for name, spec in variants.items()}
    assert all(len(of_variant) >= 7 for of_variant in files.values())
    return by_variant(ktlint, folder, files)


@pytest.fixture(scope="module")
def java_format_says(java_format: Formatter, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What google-java-format says of each variant's Java."""
    folder = tmp_path_factory.mktemp("java-format")
    variants = ANDROID | specs("java")
    files = {name: files_of(replace(spec, language="java"), folder / name, ".java") for name, spec in variants.items()}
    assert all(len(of_variant) >= 8 for of_variant in files.values())
    return by_variant(java_format, folder, files)


@pytest.mark.parametrize("name", (*ANDROID, *VARIANTS, "audio"))
def test_kotlin(name: str, ktlint_says: dict[str, str]) -> None:
    """Ktlint finds nothing in the loader, the self-test and the Gradle scripts."""
    assert ktlint_says[name] == ""


@pytest.mark.parametrize("name", (*ANDROID, *VARIANTS, "audio"))
def test_java(name: str, java_format_says: dict[str, str]) -> None:
    """google-java-format would change nothing."""
    assert java_format_says[name] == ""


@pytest.mark.parametrize("name", LINUX)
def test_c_and_cpp(name: str, clang_format: Formatter, tmp_path: Path) -> None:
    """clang-format would change nothing, with the style file beside the code."""
    files = files_of(LINUX[name], tmp_path, ".c", ".h", ".cpp", ".hpp")
    assert len(files) >= 12
    assert clang_format(files) == ""


@pytest.mark.parametrize("name", LINUX)
def test_python(name: str, ruff: Formatter, tmp_path: Path) -> None:
    """Ruff would change nothing and finds nothing."""
    files = files_of(LINUX[name], tmp_path, ".py")
    assert len(files) >= 5
    assert ruff(files) == ""


@pytest.mark.parametrize(
    ("tool", "name", "text"),
    [
        ("ktlint", "A.kt", "class A  {\n}\n"),
        ("java_format", "A.java", "class A  {\n}\n"),
        ("clang_format", "a.c", "int  a;\n"),
        ("ruff", "a.py", "a = [1,2]\n"),
    ],
)
def test_the_check_can_fail(tool: str, name: str, text: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each formatter is really asked: it objects to a file that is out of order."""
    (tmp_path / name).write_text(text)
    assert name in request.getfixturevalue(tool)([tmp_path / name])
