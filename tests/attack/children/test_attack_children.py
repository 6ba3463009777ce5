"""Child processes are closed in: no code from the current folder, no writing outside, no network, and limits."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy  # noqa: F401 - before a test puts its own in the way
import pytest
from endless import endless_loop

from edgepack import confinement, import_path, limits, tools
from edgepack.child import ChildMemory, ChildTimeout, Worker
from edgepack.errors import ToolMissingError, UsageError

REPOSITORY = Path(__file__).resolve().parents[3]
PLANTED = "import os\nopen(os.environ['MARKER'], 'a').write(__name__ + chr(10))\nraise ImportError('planted')\n"
#: Modules that some start-up imports: the standard library's, a dependency's, edgepack's own.
NAMES = ("numpy", "typer", "typing", "json", "pickle", "tempfile", "ctypes", "sitecustomize", "signal", "PIL", "select")

linux = pytest.mark.skipif(not confinement.landlock_version(), reason="Landlock is not offered here")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(PLANTED)
    return folder


@pytest.mark.parametrize(
    ("how", "path"),
    [
        *((["-m", "edgepack"], path) for path in ("{repo}", "{repo}:", ":{repo}", ".:{repo}")),
        (["-c", "from edgepack.cli import main; main()"], "{repo}"),
    ],
)
def test_nothing_in_the_current_folder_is_imported(hostile: Path, tmp_path: Path, how: list[str], path: str) -> None:
    """`edgepack verify .` and `doctor` (which starts a child) run no module of the folder that they are started in."""
    marker = tmp_path / "marker"
    # Python itself imports it before edgepack, from PYTHONPATH, which the user sets.
    (hostile / "sitecustomize.py").unlink()
    env = {**os.environ, "MARKER": str(marker), "PYTHONPATH": path.format(repo=REPOSITORY)}
    # doctor starts a child; it also asks every vendor tool for its version, which takes longer.
    for command in (["verify", "."], ["doctor"])[: 2 if how[0] == "-m" and path == "{repo}" else 1]:
        done = subprocess.run(
            [sys.executable, *how, *command], cwd=hostile, env=env, capture_output=True, text=True, timeout=60
        )
        assert not marker.exists(), marker.read_text()
        assert "planted" not in done.stderr


def test_a_child_imports_nothing_from_the_current_folder(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child starts in the folder, for the user's relative paths, and imports none of its modules."""
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    monkeypatch.chdir(hostile)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with Worker() as worker:
        path = worker.call("edgepack.import_path:trusted")
        worker.call("numpy:isscalar", 2)
        assert worker.call("os:getcwd") == str(hostile)
    assert str(hostile) not in path and "" not in path
    assert not (tmp_path / "marker").exists()


def test_a_full_path_in_pythonpath_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the user wrote into PYTHONPATH in full is the user's choice, even when it is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert str(tmp_path) not in import_path.trusted()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert str(tmp_path) in import_path.trusted()


@linux
@pytest.mark.parametrize(
    "function",
    [
        "os:unlink",
        "os:truncate",
        "os:rename",
        "os:link",
        "os:symlink",
        "os:mkdir",
        "shutil:copy",
        "os:mkfifo",
        "os:open",
    ],
)
def test_a_child_changes_nothing_outside(tmp_path: Path, function: str) -> None:
    """Each call that would create, change or remove a file outside the child's folder is refused."""
    own = tmp_path / "own"
    own.write_text("text")
    arguments: dict[str, tuple[object, ...]] = {
        "os:unlink": (own,),
        "os:truncate": (own, 0),
        "os:rename": (own, tmp_path / "b"),
        "os:link": (own, tmp_path / "b"),
        "os:symlink": (own, tmp_path / "b"),
        "shutil:copy": (own, tmp_path / "b"),
        "os:open": (own, os.O_RDWR),
    }
    with Worker() as worker, pytest.raises(Exception, match="PermissionError"):
        worker.call(function, *arguments.get(function, (tmp_path / "b",)))
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    assert own.read_text() == "text"


@linux
def test_modes_outside_stay(tmp_path: Path) -> None:
    """Landlock does not cover modes: the call reports success and changes nothing."""
    own = tmp_path / "own"
    own.write_text("text")
    before = own.stat()
    with Worker() as worker:
        worker.call("os:chmod", own, 0)
    assert own.stat().st_mode == before.st_mode


@linux
@pytest.mark.parametrize("family", [1, 2, 10, 16, 17])
def test_a_child_has_no_network(family: int) -> None:
    """No kind of socket can be opened: unix, IPv4, IPv6, netlink, packet."""
    with Worker() as worker, pytest.raises(Exception, match="PermissionError"):
        worker.call("socket:socket", family)


@linux
def test_what_a_child_starts_is_confined(tmp_path: Path) -> None:
    """A program that the child starts is confined as well."""
    with Worker() as worker:
        assert worker.call("os:system", f"echo > {tmp_path / 'marker'}") != 0
    assert not (tmp_path / "marker").exists()


def test_the_childs_folder_is_its_own_and_removed() -> None:
    """Temporary files go to a folder of the child, which `close` removes."""
    with Worker() as worker:
        file = Path(worker.call("tempfile:mktemp"))
        assert file.parent.is_dir()
        worker.call("os:mkdir", file)
        with Worker() as other:
            assert Path(other.call("tempfile:gettempdir")) != file.parent
    assert not file.parent.exists()


def test_a_time_limit_names_itself() -> None:
    """A call ends at its own limit, or at the deadline of its target, and calls after it do not start."""
    with Worker() as worker:
        with pytest.raises(ChildTimeout, match=r"time limit of 0\.3 s"):
            worker.call("time:sleep", 60, timeout=0.3)
        worker.seconds, worker.deadline = 2, time.monotonic() + 0.2
        for _ in range(2):
            with pytest.raises(ChildTimeout, match="time limit of 2 s"):
                worker.call("time:sleep", 60)


@linux
def test_a_memory_limit_names_itself() -> None:
    """Memory that is filled ends the child; so does one allocation that is larger than the machine."""
    with Worker(memory=100 << 20) as worker:
        with pytest.raises(ChildMemory, match="memory limit of 100 MiB"):
            worker.call("numpy:ones", 1 << 27)
        with pytest.raises(ChildMemory, match="memory limit of 100 MiB"):
            worker.call("numpy:empty", 1 << 45)
        assert worker.call("numpy:ones", 2).sum() == 2


@linux
def test_a_mapped_file_is_no_memory(tmp_path: Path) -> None:
    """A mapped file that is larger than the limit can be read: it does not count."""
    file = tmp_path / "big"
    with file.open("wb") as stream:
        stream.truncate(200 << 20)
    with Worker(memory=100 << 20) as worker:
        assert worker.call("endless:sum_of_mapped", file) == 0


@linux
def test_a_vendor_program_is_confined(tmp_path: Path) -> None:
    """A vendor's program writes to its folder only; one that cannot be started is reported as before."""
    inside = tmp_path / "in"
    inside.mkdir()
    command = ["/bin/sh", "-c", f"touch a; touch {tmp_path}/marker; exit 3"]
    assert tools.run(command, cwd=inside, writable=(inside,)).exit_code == 3
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a"]
    with pytest.raises(ToolMissingError, match="cannot be started"):
        tools.run([str(tmp_path / "none")], writable=(inside,))


@pytest.mark.parametrize("text", ["", "8", "x", "-1GB", "1e9", "8 parsecs", "63MiB", "9" * 40])
def test_a_wrong_size_is_refused(text: str) -> None:
    """A --memory-limit that is no size is a usage error."""
    with pytest.raises(UsageError, match="--memory-limit"):
        limits.parse_memory(text)


def test_sizes_are_read() -> None:
    """Sizes are decimal or binary, and at least 64 MiB."""
    assert [limits.parse_memory(text) for text in ("8GB", "512MiB", "1.5g")] == [8 * 10**9, 512 << 20, 1_500_000_000]


@pytest.mark.parametrize("command", ["build", "compare"])
def test_a_loop_without_end_ends_by_the_limit(tmp_path: Path, command: str) -> None:
    """A .tflite of 2 kB whose WHILE never ends gives one error that names the limit, and no bundle."""
    model = tmp_path / "endless.tflite"
    model.write_bytes(endless_loop())
    words = [command, str(model), "-t", "cpu", "--timeout", "3", "--no-cache"]
    words += ["-o", str(tmp_path / "out")] if command == "build" else []
    env = {**os.environ, "EDGEPACK_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "edgepack", *words], env=env, capture_output=True, text=True, timeout=60
    )
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode in {3, 4}, text
    assert "the time limit of 3 s was reached" in text
    assert "--timeout" in text
    assert "Traceback" not in text
    assert not list(tmp_path.glob("out/*"))
