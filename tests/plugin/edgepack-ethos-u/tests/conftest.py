"""Fixtures: the package as pip installs it, its compiler, and real models."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip installs it, with its metadata."""
    for module in ("ethosu.vela", "hatchling", "pip"):
        pytest.importorskip(module, reason=f"{module} is not installed: the package's own requirement or its build")
    source = tmp_path_factory.mktemp("source") / "package"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    completed = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(folder), str(source)],
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    return folder


@pytest.fixture
def vela(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package's compiler module, imported from the installation."""
    monkeypatch.syspath_prepend(str(site))
    for name in [name for name in sys.modules if name.startswith("edgepack_ethos_u")]:
        del sys.modules[name]
    module = importlib.import_module("edgepack_ethos_u.compiler")
    assert Path(str(module.__file__)).is_relative_to(site)
    yield module
    for name in [name for name in sys.modules if name.startswith("edgepack_ethos_u")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder with coral/ and mlperf-tiny/; skips the test where there is none."""
    for candidate in (os.environ.get("EDGEPACK_TEST_MODELS"), str(PACKAGE.parents[3] / "shared" / "models")):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    pytest.skip("real models not found: set EDGEPACK_TEST_MODELS to the folder with coral/ and mlperf-tiny/")
