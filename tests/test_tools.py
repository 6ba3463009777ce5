"""External programs are found, run within a time limit and never left running. The programs are shell scripts."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack import tools
from edgepack.errors import CompilerError, ToolMissingError

TOOL = tools.Tool(
    name="Sample Compiler",
    program="sample_compiler",
    variable="EDGEPACK_SAMPLE_COMPILER",
    install="install the sample compiler",
    version_pattern=r"version (\S+)",
)


def script(path: Path, body: str, mode: int = 0o755) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


def gone(pid: int, within: float = 5.0) -> bool:
    """Wait until the process has ended; a zombie counts as ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def wait_for(path: Path, within: float = 10.0) -> str:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if path.is_file() and (text := path.read_text().strip()):
            return text
        time.sleep(0.02)
    raise AssertionError(f"{path} was never written")


@pytest.fixture
def no_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder as the whole PATH, and no variable."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(TOOL.variable, raising=False)
    return folder


def test_missing_tool_is_reported_with_both_places_and_what_to_do(no_tool: Path) -> None:
    """For a missing program the result says where it was searched and how to install it; nothing is raised."""
    info = tools.find(TOOL)
    assert not info.found
    assert (info.path, info.version) == ("", "")
    assert "sample_compiler" in info.problem
    assert TOOL.variable in info.problem
    assert info.install == "install the sample compiler"
    assert tools.locate(TOOL) is None


def test_found_on_path_with_its_version(no_tool: Path) -> None:
    """A program on PATH is found with its version."""
    path = script(no_tool / "sample_compiler", 'echo "Sample version 1.2.3-rc"')
    info = tools.find(TOOL)
    assert info == tools.ToolInfo("Sample Compiler", str(path), "1.2.3-rc", True, "", "install the sample compiler")


def test_variable_wins_over_path(no_tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that the variable names is used, whatever is on PATH."""
    script(no_tool / "sample_compiler", 'echo "version 1"')
    mine = script(tmp_path / "mine", 'echo "version 2"')
    monkeypatch.setenv(TOOL.variable, str(mine))
    assert tools.locate(TOOL) == mine
    assert tools.find(TOOL).version == "2"


def test_program_beside_python_is_found_when_pip_installs_it(
    no_tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool installed by pip is found in a virtual environment that is not activated; PATH is searched first."""
    (tmp_path / "venv").mkdir()
    script(tmp_path / "venv" / "sample_compiler", 'echo "version 3"')
    monkeypatch.setattr("sys.executable", str(tmp_path / "venv" / "python"))
    assert tools.locate(TOOL) is None
    packaged = replace(TOOL, from_pip=True)
    assert tools.find(packaged).version == "3"
    script(no_tool / "sample_compiler", 'echo "version 1"')
    assert tools.find(packaged).version == "1"


@pytest.mark.parametrize(
    ("kind", "words"), [("absent", "does not exist"), ("folder", "is a folder"), ("plain", "executable")]
)
def test_wrong_variable_is_an_error_that_names_it(
    no_tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    """A wrong value of the variable is an error; PATH is not used instead."""
    script(no_tool / "sample_compiler", 'echo "version 1"')
    target = tmp_path / "wrong"
    if kind == "folder":
        target.mkdir()
    elif kind == "plain":
        script(target, "exit 0", mode=0o644)
    monkeypatch.setenv(TOOL.variable, str(target))
    with pytest.raises(ToolMissingError) as caught:
        tools.locate(TOOL)
    assert TOOL.variable in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint
    info = tools.find(TOOL)
    assert not info.found
    assert info.problem == caught.value.message


def test_tool_that_says_no_version_is_found_with_a_problem(no_tool: Path) -> None:
    """A program that prints no version can be run; doctor shows the problem."""
    script(no_tool / "sample_compiler", "echo hello")
    info = tools.find(TOOL)
    assert info.found
    assert info.version == ""
    assert "--version" in info.problem


def test_tool_that_hangs_on_its_version_is_a_problem(no_tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor does not hang when a program does."""
    monkeypatch.setattr(tools, "_VERSION_TIMEOUT", 0.3)
    script(no_tool / "sample_compiler", "exec /bin/sleep 60")
    started = time.monotonic()
    info = tools.find(TOOL)
    assert time.monotonic() - started < 5
    assert not info.found
    assert "0.3 s" in info.problem


def test_file_of_another_machine_is_a_missing_tool(no_tool: Path) -> None:
    """A program that the kernel refuses to load gives an explanation, not a traceback."""
    binary = no_tool / "sample_compiler"
    binary.write_bytes(b"\x7fELF not for here")
    binary.chmod(0o755)
    info = tools.find(TOOL)
    assert not info.found
    assert "not a program for this machine" in info.problem
    with pytest.raises(ToolMissingError):
        tools.run([str(binary)])


def test_run_returns_streams_and_exit_code(tmp_path: Path) -> None:
    """Both streams and the exit code are returned separately; the program runs in the requested folder."""
    program = script(tmp_path / "program", 'pwd; echo "oops $WORD" >&2; exit 3')
    work = tmp_path / "work"
    work.mkdir()
    completed = tools.run([str(program)], cwd=work, env={"WORD": "word"})
    assert completed == tools.Completed(3, f"{work}\n", "oops word\n")
    assert completed.output == f"{work}\noops word"
    assert completed.signal_name == ""


@pytest.mark.parametrize("body", ["kill -SEGV $$", "exit 139"])
def test_death_by_signal_has_a_name(tmp_path: Path, body: str) -> None:
    """The signal of a crash is named, also when a wrapper script turned it into an exit code."""
    assert tools.run([str(script(tmp_path / "program", body))]).signal_name == "SIGSEGV"


def test_run_of_nothing_is_a_missing_tool(tmp_path: Path) -> None:
    """A program that does not exist is a missing tool."""
    with pytest.raises(ToolMissingError, match="No such file"):
        tools.run([str(tmp_path / "none")])


def test_time_limit_kills_the_program_and_its_children(tmp_path: Path) -> None:
    """After the time limit no process that the program started is left, and the end of its output is in the error."""
    pids = tmp_path / "pids"
    program = script(tmp_path / "program", f"/bin/sleep 60 & echo $! $$ > {pids}; echo working; wait")
    started = time.monotonic()
    with pytest.raises(CompilerError) as caught:
        tools.run([str(program)], timeout=1, name="Sample Compiler")
    assert time.monotonic() - started < 8
    assert "Sample Compiler took longer than 1 s" in caught.value.message
    assert caught.value.details == {"timeout_seconds": 1, "log_tail": "working"}
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_interrupt_kills_the_program_and_its_children(tmp_path: Path) -> None:
    """Ctrl-C ends the program and every process it started before the command returns."""
    pids = tmp_path / "pids"
    program = script(tmp_path / "program", f"/bin/sleep 60 & echo $! $$ > {pids}; wait")
    # A shell starts background jobs with SIGINT ignored, which a child would inherit.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from edgepack import tools; tools.run([{str(program)!r}])"
    )
    root = str(Path(tools.__file__).parents[1])
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with parent:
        children = [int(pid) for pid in wait_for(pids).split()]
        parent.send_signal(signal.SIGINT)
        try:
            # Less than the program sleeps, and enough for a busy machine.
            _, stderr = parent.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            parent.kill()
            raise
    assert b"KeyboardInterrupt" in stderr
    assert len(children) == 2
    assert all(gone(pid) for pid in children)


def test_tail_keeps_the_end() -> None:
    """`tail` returns the last lines of a log."""
    assert tools.tail("\n".join(str(i) for i in range(100)), 3) == "97\n98\n99"
