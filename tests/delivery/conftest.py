"""Fixtures of deliveries: two real bundles, and registries to push them to."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from registries import Standin, docker_registry, make_key

from edgepack.child import Worker

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, _cache_of_digits: Path) -> Path:
    """Folder with two real bundles, digits-cpu (signed) and digits-edgetpu, and the public key."""
    folder = tmp_path_factory.mktemp("bundles")
    make_key(folder)
    for target, more in (("cpu", ["--sign-key", str(folder / "key.pem")]), ("edgetpu", [])):
        command = [
            sys.executable, "-m", "edgepack", "build", "tests/data/digits_float.tflite", "-t", target,
            "--name", "digits", "--samples", "examples/digits/samples.npz", "--eval", "examples/digits/eval.npz",
            "--labels", "examples/digits/labels.txt", "-o", str(folder / "out"), *more,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "EDGEPACK_CACHE_DIR": str(_cache_of_digits)}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    """A child process in which every test runs the golden vectors."""
    with Worker() as child:
        yield child


# -- docker-registry ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a docker-registry without TLS and login."""
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start docker-registries with further settings."""
    with ExitStack() as stack:

        def start(http: str = "", more: str = "") -> str:
            folder = tmp_path / "registry"
            folder.mkdir()
            return stack.enter_context(docker_registry(folder, http, more))

        yield start


@pytest.fixture
def standin() -> Iterator[Standin]:
    server = Standin()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
