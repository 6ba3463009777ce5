"""The wheel works outside the checkout, and features that do not need TensorFlow work without it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "examples" / "digits"
FLOAT = REPOSITORY / "tests" / "data" / "digits_float.tflite"
TENSORFLOW = ("tensorflow", "tf-keras", "tensorflow-model-optimization")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of both distributions by name, built as for a release."""
    out = tmp_path_factory.mktemp("dist")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    completed = subprocess.run(
        [str(REPOSITORY / "scripts" / "wheels"), str(out)], capture_output=True, text=True, check=False, env=environment
    )
    assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr[-2000:]
    return {path.name.split("-")[0].replace("_", "-"): path for path in out.glob("*.whl")}


@pytest.fixture(scope="module")
def wheel(wheels: dict[str, Path]) -> Path:
    """The wheel of the whole distribution."""
    return wheels["edgepack"]


@pytest.fixture(scope="module")
def light(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with `edgepack-check` and everything that it requires, nothing else; its bin folder."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, with_pip=False)
    # Without bytecode, the size is that of the files in the wheels: what `pip install --no-compile` writes.
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    completed = subprocess.run(
        [*command, "--no-compile", "--disable-pip-version-check", str(wheels["edgepack-check"])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-2000:]
    return folder / "bin"


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new environment with the wheel and its dependencies except TensorFlow; yields its bin folder."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    dependencies = [text for text in declared if not text.startswith(TENSORFLOW)]
    for arguments in (["--no-deps", str(wheel)], dependencies):
        completed = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
        assert completed.returncode == 0, completed.stderr[-2000:]
    yield folder / "bin"


def run(clean: Path, cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(
        [str(clean / "edgepack"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**environment, "EDGEPACK_CACHE_DIR": str(cwd / "cache")},
    )


def test_the_wheel_carries_targets_and_templates(wheel: Path) -> None:
    """The wheel contains targets/ and templates/ under edgepack/_data, the lists of harmless names, and no tests."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "edgepack/_data/targets/edgetpu/profile.toml" in names
    assert {"edgepack/untrusted/keras_objects.toml", "edgepack/untrusted/graph_ops.toml"} <= set(names)
    assert any(name.startswith("edgepack/_data/templates/android/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "examples/"))]


def test_everything_without_tensorflow(clean: Path, tmp_path: Path) -> None:
    """In an environment without TensorFlow: build from .tflite for all targets, check, verify, inspect."""
    probe = subprocess.run(
        [str(clean / "python"), "-c", "import tensorflow"], capture_output=True, cwd=tmp_path, check=False
    )
    assert probe.returncode != 0, "TensorFlow is installed: the test would prove nothing"
    completed = run(
        clean, tmp_path, "build", FLOAT, "-t", "all", "--name", "digits", "--samples", EXAMPLES / "samples.npz",
        "--eval", EXAMPLES / "eval.npz", "--labels", EXAMPLES / "labels.txt", "-o", "out", "--json",
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout + completed.stderr
    bundles = [entry["bundle"] for entry in json.loads(completed.stdout)["results"]]
    assert len(bundles) == 4
    for bundle in bundles:
        checked = run(clean, tmp_path, "verify", bundle)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    assert run(clean, tmp_path, "check", FLOAT, "-t", "all").returncode == 0
    assert run(clean, tmp_path, "inspect", bundles[0]).returncode == 0


def test_keras_without_tensorflow_says_what_to_install(clean: Path, tmp_path: Path) -> None:
    """A .keras file in that environment gives one error that names TensorFlow."""
    completed = run(clean, tmp_path, "build", EXAMPLES / "digits.keras", "-t", "cpu")
    assert completed.returncode == 4
    assert "tensorflow" in completed.stderr.lower()
    assert "Traceback" not in completed.stderr.split("log:")[0]


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel but for its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def test_both_wheels_have_the_same_files(wheels: dict[str, Path], tmp_path: Path) -> None:
    """Installed over each other, the distributions change nothing; built again, a wheel has the same bytes."""
    assert set(wheels) == {"edgepack", "edgepack-check"}
    assert contents(wheels["edgepack"]) == contents(wheels["edgepack-check"])
    assert not [name for name in contents(wheels["edgepack-check"]) if "__pycache__" in name]
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*command, str(REPOSITORY / "packaging" / "edgepack-check")], capture_output=True, check=True)
    (again,) = tmp_path.glob("*.whl")
    assert again.read_bytes() == wheels["edgepack-check"].read_bytes()


def test_the_light_distribution_is_part_of_the_whole() -> None:
    """Its requirements are the whole one's, in the same versions; entry points and scripts are equal."""
    whole = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    light = tomllib.loads((REPOSITORY / "packaging" / "edgepack-check" / "pyproject.toml").read_text())["project"]
    assert set(light["dependencies"]) < set(whole["dependencies"])
    assert not [text for text in light["dependencies"] if text.startswith((*TENSORFLOW, "ai-edge-quantizer"))]
    for extra, requirements in light["optional-dependencies"].items():
        assert requirements == whole["optional-dependencies"][extra]
    for key in ("scripts", "entry-points", "requires-python", "classifiers", "license"):
        assert light[key] == whole[key]


def test_the_light_distribution_is_light(light: Path) -> None:
    """All that it installs, LiteRT's runtime included, is under 150 MB."""
    (packages,) = light.parent.glob("lib/python3*/site-packages")
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc")
    print(f"edgepack-check installs {size / 1e6:.0f} MB")
    assert size < 150e6
    assert not [name for name in ("tensorflow", "ai_edge_quantizer", "jinja2", "PIL") if (packages / name).exists()]


def test_the_light_commands_work(light: Path, tmp_path: Path) -> None:
    """As a user of CI or a board: check, verify with golden vectors, inspect, targets, doctor, init, --version."""
    built = subprocess.run(
        [
            sys.executable, "-m", "edgepack", "build", str(FLOAT), "-t", "edgetpu", "-o", str(tmp_path / "out"),
            "--samples", str(EXAMPLES / "samples.npz"), "--json",
        ],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (bundle,) = (tmp_path / "out").iterdir()
    (file,) = (bundle / "model").glob("*.tflite")
    checked = run(light, tmp_path, "check", file, "-t", "all", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    whole = subprocess.run(
        [sys.executable, "-m", "edgepack", "check", str(file), "-t", "all", "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert json.loads(checked.stdout) == json.loads(whole.stdout)
    verified = run(light, tmp_path, "verify", bundle, "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads(verified.stdout)["ok"] is True
    assert run(light, tmp_path, "verify", tmp_path).returncode == 7
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    pictures = run(light, tmp_path, "verify", bundle, "--eval", "photos")
    assert pictures.returncode == 5
    assert "pip install pillow" in pictures.stderr
    shutil.copy(FLOAT, tmp_path / "net.tflite")
    for words in (["inspect", file], ["targets", "list"], ["targets", "show", "edgetpu"], ["doctor"], ["init"]):
        completed = run(light, tmp_path, *words)
        assert completed.returncode == 0, completed.stdout + completed.stderr
    version = run(light, tmp_path, "--version").stdout.splitlines()
    assert re.fullmatch(r"edgepack \S+ \(edgepack-check\)", version[0])
    assert version[1].startswith("ai-edge-litert 2.3")
    assert version[3] == "tensorflow is not installed"


@pytest.mark.parametrize(
    ("words", "code", "package"),
    [
        (["build", FLOAT, "-t", "cpu"], 5, "edgepack"),
        (["compare", FLOAT], 5, "edgepack"),
        (["train", EXAMPLES / "digits.keras", "--data", EXAMPLES / "eval.npz", "-o", "t"], 5, "edgepack"),
        (["check", EXAMPLES / "digits.keras", "-t", "cpu"], 4, "edgepack"),
        (["pull", "oci://localhost:1/a:b"], 5, "edgepack-check[oci]"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_other_commands_say_what_to_install(
    light: Path, tmp_path: Path, words: list[str | Path], code: int, package: str
) -> None:
    """One error with the documented exit code and the command that installs what is missing, and no traceback."""
    completed = run(light, tmp_path, *words, "--json")
    document = json.loads(completed.stdout)
    assert completed.returncode == document["error"]["code"] == code
    assert re.search(rf"pip install '?{re.escape(package)}'?$", document["error"]["hint"])
    assert "Traceback" not in completed.stderr
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "cache"])


def test_two_versions_in_one_environment_are_refused(light: Path, tmp_path: Path) -> None:
    """The distributions share their files: another version beside this one has replaced some of them."""
    (packages,) = light.parent.glob("lib/python3*/site-packages")
    other = packages / "edgepack-0.0.9.dist-info"
    other.mkdir()
    try:
        completed = run(light, tmp_path, "targets", "list")
    finally:
        other.rmdir()
    assert completed.returncode == 2
    assert "pip uninstall edgepack edgepack-check" in " ".join(completed.stderr.split())


def test_bash_completes(light: Path, tmp_path: Path) -> None:
    """What --show-completion prints makes bash complete commands, options, targets, values and models of a project."""
    project = '[[model]]\npath = "keyword.tflite"\n'
    (tmp_path / "edgepack.toml").write_text(project)
    lines = {
        "edgepack ch": "check",
        "edgepack check --requ": "--require-full",
        "edgepack check -t edge": "edgetpu",
        "edgepack check k": "keyword",
    }
    script = """eval "$(edgepack --show-completion)"
while read -r line; do
  COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
  _edgepack_completion edgepack
  echo "${COMPREPLY[*]}"
done"""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    completed = subprocess.run(
        ["bash", "--norc", "-c", script],
        input="\n".join(lines) + "\n", capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**environment, "PATH": f"{light}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert completed.stdout.splitlines() == list(lines.values()), completed.stderr
