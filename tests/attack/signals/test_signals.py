"""A signal at any moment ends a command with its own exit code and leaves nothing behind."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import classifier

#: Python's own start, before any code of edgepack can run, has the system's default behavior.
PYTHON_START = 0.05
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def _start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "EDGEPACK_CACHE_DIR": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "edgepack", *arguments],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _members(session: int) -> list[str]:
    """Return the processes of a session that still run."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(place.parent.name)
    return found


def _wait_until_imported(process: "subprocess.Popen[str]") -> None:
    """Wait until the handlers are installed: the process has caught signals in its mask."""
    for _ in range(1000):
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)
    raise AssertionError("no handler was installed")


def _check(process: "subprocess.Popen[str]", number: signal.Signals, folder: Path) -> None:
    out, errors = process.communicate(timeout=60)
    assert process.returncode in {CODES[number], 0}, (process.returncode, errors)
    assert "Traceback" not in out + errors
    deadline = time.monotonic() + 5
    while _members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _members(process.pid) == []
    assert list((folder / "tmp").iterdir()) == []
    # A finished bundle has a file for clang-format; what is left over of an interrupted one is a hidden folder.
    hidden = [p for p in folder.rglob(".*") if p.name not in {".damaged", ".clang-format"}]
    assert hidden == []
    if process.returncode:
        assert not (folder / "out").exists()


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("arguments", [["--help"], ["build", "m.tflite", "--target", "cpu", "-o", "out"]])
def test_from_the_first_moment(tmp_path: Path, number: signal.Signals, arguments: list[str]) -> None:
    """A signal that arrives while the command line is imported has the documented code, and no traceback."""
    (tmp_path / "m.tflite").write_bytes(classifier())
    process = _start(tmp_path, *arguments)
    _wait_until_imported(process)
    process.send_signal(number)
    _check(process, number, tmp_path)
    assert process.returncode == CODES[number]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_handlers_are_early(tmp_path: Path, number: signal.Signals) -> None:
    """On a machine with nothing else to do they stand within 50 ms; here with a margin for a busy one."""
    start = time.monotonic()
    process = _start(tmp_path, "--help")
    _wait_until_imported(process)
    elapsed = time.monotonic() - start
    process.communicate()
    assert elapsed < 20 * PYTHON_START


@pytest.mark.parametrize("seed", range(6))
def test_at_random_moments_of_a_build(tmp_path: Path, seed: int) -> None:
    """Neither children nor temporary folders nor parts of a bundle stay, also when the signal is sent twice."""
    (tmp_path / "m.tflite").write_bytes(classifier())
    chance = random.Random(seed)
    number = chance.choice(sorted(CODES))
    process = _start(tmp_path, "build", "m.tflite", "--target", "cpu", "-o", "out")
    _wait_until_imported(process)
    time.sleep(chance.random() * 2.5)
    process.send_signal(number)
    time.sleep(chance.random() * 0.05)
    if process.poll() is None:
        process.send_signal(number)
    _check(process, number, tmp_path)


def test_what_the_parent_ignores_stays_ignored(tmp_path: Path) -> None:
    """`nohup` protects against SIGHUP."""
    code = (
        "import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, '-c', 'from edgepack import interrupts as i; import signal, os;"
        " i.raise_interrupted(); os.kill(os.getpid(), signal.SIGHUP); print(1)'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
