"""A signed bundle of the example, its keys, and a child process for all verifications."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack.child import Worker
from edgepack.pipeline.build import build
from edgepack.pipeline.options import BuildOptions

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLE = REPOSITORY / "examples/digits"


def make_key(folder: Path, name: str, curve: str = "prime256v1") -> tuple[Path, Path]:
    """Write a pair of keys as PEM and return (private, public)."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    subprocess.run(["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", private], check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`private` and `public` of the builder, `other` of somebody else."""
    folder = tmp_path_factory.mktemp("keys")
    private, public = make_key(folder, "builder")
    other_private, other = make_key(folder, "other")
    return {"private": private, "public": public, "other_private": other_private, "other": other}


@pytest.fixture(scope="session")
def cache_of_builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of `built`, with which an equal build takes a second."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def built(keys: dict[str, Path], cache_of_builds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with bundles of the example for cpu (signed) and edgetpu."""
    folder = tmp_path_factory.mktemp("built")
    options = {
        "name": "digits",
        "samples": str(EXAMPLE / "samples.npz"),
        "eval": str(EXAMPLE / "eval.npz"),
        "labels": EXAMPLE / "labels.txt",
        "out": folder,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPACK_CACHE_DIR", str(cache_of_builds))
        model = REPOSITORY / "tests/data/digits_float.tflite"
        for target, more in (("cpu", {"sign_key": keys["private"]}), ("edgetpu", {})):
            result = build(model, [target], BuildOptions(**options, **more))
            assert result.error is None, result.error
    return folder


@pytest.fixture
def signed(built: Path, tmp_path: Path) -> Path:
    """A copy of the signed bundle."""
    return Path(shutil.copytree(built / "digits-cpu", tmp_path / "digits-cpu"))


@pytest.fixture
def unsigned(built: Path, tmp_path: Path) -> Path:
    """A copy of the unsigned bundle."""
    return Path(shutil.copytree(built / "digits-edgetpu", tmp_path / "digits-edgetpu"))


@pytest.fixture(scope="session")
def child() -> Iterator[Worker]:
    """A child process for the golden vectors."""
    with Worker() as worker:
        yield worker
