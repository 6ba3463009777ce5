"""Child processes are closed in: no code from the current folder, no writing outside, no network, and limits."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 - before a test puts its own in the way
import pytest
from builders import classifier
from endless import endless_loop

from edgepack import confinement, import_path, limits, tools
from edgepack.cache import sha256
from edgepack.child import ChildMemory, ChildTimeout, Worker
from edgepack.errors import ToolMissingError, UsageError
from edgepack.pipeline.build import build
from edgepack.pipeline.options import BuildOptions

REPOSITORY = Path(__file__).resolve().parents[3]
PLANTED = "import os\nopen(os.environ['MARKER'], 'a').write(__name__ + chr(10))\nraise ImportError('planted')\n"
#: Modules that some start-up imports: the standard library's, a dependency's, edgepack's own.
NAMES = ("numpy", "typer", "typing", "json", "pickle", "tempfile", "ctypes", "sitecustomize", "signal", "PIL", "select")

#: Arguments of Python, and its PYTHONPATH.
WAYS = [
    *((["-m", "edgepack", "verify", "."], path) for path in ("{repo}:", ":{repo}", ".:{repo}")),
    (["-m", "edgepack", "doctor"], "{repo}"),
    (["-c", "from edgepack.cli import main; main()", "verify", "."], "{repo}"),
]

linux = pytest.mark.skipif(not confinement.landlock_version(), reason="Landlock is not offered here")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(PLANTED)
    return folder


def _start(arguments: list[str], **settings: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


@pytest.mark.slow
def test_nothing_in_the_current_folder_is_imported(hostile: Path, tmp_path: Path) -> None:
    """`edgepack verify .` and `doctor` (which starts a child) run no module of the folder that they are started in."""
    # Python itself imports it before edgepack, from PYTHONPATH, which the user sets.
    (hostile / "sitecustomize.py").unlink()
    started = []
    for number, (arguments, path) in enumerate(WAYS):
        env = {**os.environ, "MARKER": str(tmp_path / f"marker{number}"), "PYTHONPATH": path.format(repo=REPOSITORY)}
        started.append(_start(arguments, cwd=hostile, env=env))
    for process, way in zip(started, WAYS, strict=True):
        errors = process.communicate(timeout=120)[1]
        assert "planted" not in errors, way
    assert [path.read_text() for path in tmp_path.glob("marker*")] == []


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


def _forge(bundle: Path) -> None:
    """Replace the model by one that never ends, with golden vectors and hashes that fit."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for path in manifest["files"]:
        file = bundle / path
        if path.endswith(".tflite"):
            file.write_bytes(endless_loop())
        elif path.endswith(".bin") and "golden" in path:
            file.write_bytes(bytes(16))
        elif path.endswith("golden/index.json"):
            index = json.loads(file.read_text())
            for case in index["cases"]:
                for tensor in (*case["inputs"], *case["outputs"]):
                    tensor["shape"] = [1, 4]
            file.write_text(json.dumps(index))
        manifest["files"][path] = sha256(file.read_bytes())
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.slow
def test_a_loop_without_end_ends_by_the_limit(tmp_path: Path) -> None:
    """A .tflite of 2 kB whose WHILE never ends gives one error that names the limit, and no bundle.

    `inspect` and `check` do not run a model: they end by themselves.
    """
    (tmp_path / "m.tflite").write_bytes(classifier())
    result = build(tmp_path / "m.tflite", ["cpu"], BuildOptions(out=tmp_path / "bundles"))
    assert result.error is None
    bundle = tmp_path / "bundles/m-cpu"
    _forge(bundle)
    model = tmp_path / "endless.tflite"
    model.write_bytes(endless_loop())
    limit = ["--timeout", "3"]
    commands = {
        "build": [str(model), "-t", "cpu", "-o", str(tmp_path / "out"), "--no-cache", *limit],
        "compare": [str(model), "-t", "cpu", "--no-cache", *limit],
        "verify": [str(bundle), *limit],
        "check": [str(model), "-t", "cpu", "--no-cache"],
        "inspect": [str(model)],
    }
    started = {name: _start(["-m", "edgepack", name, *words]) for name, words in commands.items()}
    for name, process in started.items():
        text = " ".join("".join(process.communicate(timeout=120)).split())
        assert "Traceback" not in text
        if name in {"check", "inspect"}:
            assert process.returncode == 0, text
        else:
            assert process.returncode == {"build": 3, "compare": 4, "verify": 7}[name], text
            assert text.count("time limit of 3 s") == 1, text
            assert "--timeout" in text, text
    assert not list(tmp_path.glob("out/*"))
