"""The wheel works outside the checkout, and features that do not need TensorFlow work without it."""

import json
import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "examples" / "digits"
FLOAT = REPOSITORY / "tests" / "data" / "digits_float.tflite"
TENSORFLOW = ("tensorflow", "tf-keras", "tensorflow-model-optimization")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as for a release."""
    out = tmp_path_factory.mktemp("dist")
    completed = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(REPOSITORY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr[-2000:]
    (path,) = out.glob("*.whl")
    return path


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
    import zipfile

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
