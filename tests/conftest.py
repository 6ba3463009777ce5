"""Fixtures that the tests of several packages share, and the order in which the tests run."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "examples" / "digits"


def pytest_configure() -> None:
    """Let tests interrupt processes: background jobs and all they start ignore Ctrl-C, those of `nohup` SIGHUP."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def find_shared_models() -> Path | None:
    """Return the folder of real test models, None when it is not on this machine."""
    for candidate in (os.environ.get("EDGEPACK_TEST_MODELS"), str(REPOSITORY.parent / "shared" / "models")):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder with coral/ and mlperf-tiny/; skips the test where there is none."""
    folder = find_shared_models()
    if folder is None:
        pytest.skip(
            "real test models not found: set EDGEPACK_TEST_MODELS to the folder that holds coral/ and mlperf-tiny/"
        )
    return folder


def once(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]) -> Path:
    """Return a folder that the first worker fills for all."""
    import fcntl

    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, filled = root / name, root / f"{name}.filled"
    with (root / f"{name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not filled.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fill(folder)
            filled.touch()
    return folder


@pytest.fixture(scope="session")
def postprocessing_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with models whose last steps can go to the loader, and samples.npz."""
    from postprocessing_models import make_folder

    return once(tmp_path_factory, "postprocessing-models", make_folder)


# -- the cache of builds -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _cache_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of folders that do not exist yet: most tests never write to their cache."""
    root = tmp_path_factory.mktemp("caches")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_cache(_cache_folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test an empty cache of its own, away from the user's."""
    folder = next(_cache_folders)
    monkeypatch.setenv("EDGEPACK_CACHE_DIR", str(folder))
    monkeypatch.delenv("EDGEPACK_CACHE_URL", raising=False)
    return folder


@pytest.fixture(scope="session")
def _cache_of_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that a build of the example for every target leaves."""

    def fill(folder: Path) -> None:
        command = [
            sys.executable, "-m", "edgepack", "build", "tests/data/digits_float.tflite", "-t", "all", "--dry-run",
            "--samples", "examples/digits/samples.npz", "--eval", "examples/digits/eval.npz",
            "--labels", "examples/digits/labels.txt",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "EDGEPACK_CACHE_DIR": str(folder)}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return once(tmp_path_factory, "cache-of-digits", fill)


@pytest.fixture
def warm_cache(own_cache: Path, _cache_of_digits: Path) -> Path:
    """Fill the test's cache with the results of a build of the example, for tests of what comes after those."""
    shutil.copytree(_cache_of_digits, own_cache)
    return own_cache


# -- the order of the tests --------------------------------------------------------------------------------------------

#: Session-scoped fixtures that cost so much that all tests which use them run on one worker.
ONE_WORKER = ("kotlin",)


def _group(item: pytest.Item) -> str | None:
    """Return the name that a test has in common with those that share a costly fixture with it, None without one."""
    fixtures = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    shared = next((name for name in ONE_WORKER if name in fixtures), "")
    if not shared and any(definitions[-1].scope == "module" for definitions in fixtures.values()):
        shared = item.path.stem
    return f"{shared}-slow" if shared and is_slow(item) else shared or None


def is_slow(item: pytest.Item) -> bool:
    """Return whether a test or its module is marked as slow."""
    return item.get_closest_marker("slow") is not None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let tests that share a costly fixture run on one worker (`-n`), so that the fixture is made once."""
    group = _group(item)
    if group is not None:
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run fast tests first: a broken import should show in seconds.

    The groups of `pytest_itemcollected` come before the other tests, which then fill the time until all workers are
    done; the group that takes longest is the first of the slow ones.
    """

    def order(item: pytest.Item) -> tuple[bool, bool, bool]:
        group = item.get_closest_marker("xdist_group")
        return is_slow(item), group is None, group is not None and group.args[0] != f"{ONE_WORKER[0]}-slow"

    items.sort(key=order)
