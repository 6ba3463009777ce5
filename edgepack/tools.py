"""External programs: find one, query its version, run it with a time limit, and translate failures.

Nothing here is specific to one program; the wrappers in `edgepack.compilers` are. The path of a program is shown to
people (`edgepack doctor`) and is never written to a bundle or a manifest.
"""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgepack import confinement, limits
from edgepack.errors import CompilerError, ToolMissingError

_TAIL_LINES = 40
_VERSION_TIMEOUT = 10.0


@dataclass(frozen=True)
class Tool:
    """How to find a program.

    Attributes:
        name: Name for people and in results.
        program: File name looked up on PATH.
        variable: Environment variable with the program's path; overrides PATH.
        install: How to install it, one sentence.
        version_args: Arguments that make it print its version and exit.
        version_pattern: Regular expression; its first group is the version in the program's output.
        from_pip: True for a program that pip installs. When it is not on PATH, the folder of the running Python is
            searched as well (a virtual environment that is not activated).
    """

    name: str
    program: str
    variable: str
    install: str
    version_args: tuple[str, ...] = ("--version",)
    version_pattern: str = r"(\d+(?:\.\d+)+)"
    from_pip: bool = False


@dataclass(frozen=True)
class ToolInfo:
    """Whether a program is installed, for `edgepack doctor`.

    Attributes:
        name: Name for people.
        path: Path on this machine, for people only; empty when it was not found.
        version: Version that the program prints; empty when it was not found or prints none.
        found: True when it can be run.
        problem: What is wrong with it; empty when nothing is.
        install: How to install it.
    """

    name: str
    path: str
    version: str
    found: bool
    problem: str
    install: str


@dataclass(frozen=True)
class Completed:
    """A program that ran to its end.

    Attributes:
        exit_code: Exit code as the system reports it: negative for a signal.
        stdout: Its standard output.
        stderr: Its standard error.
    """

    exit_code: int
    stdout: str
    stderr: str

    @property
    def signal_name(self) -> str:
        """Name of the signal that ended it (`SIGSEGV`), empty otherwise.

        An exit code of 128 plus a signal's number counts as well: a shell script around a crashed program returns it.
        """
        number = -self.exit_code if self.exit_code < 0 else self.exit_code - 128
        try:
            return signal.Signals(number).name
        except ValueError:
            return ""

    @property
    def output(self) -> str:
        """Both streams, standard output first."""
        return "\n".join(text.rstrip("\n") for text in (self.stdout, self.stderr) if text.strip())


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a log."""
    return "\n".join(text.splitlines()[-lines:])


def locate(tool: Tool) -> Path | None:
    """Return the program's path, None when it is not installed.

    When the environment variable is set, only its value counts: a wrong value is an error and PATH is not searched,
    because a user who names one program must not get another.

    Raises:
        ToolMissingError: The variable names a file that does not exist or cannot be executed.
    """
    if configured := os.environ.get(tool.variable):
        path = Path(configured).expanduser()
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "does not exist"
        elif not os.access(path, os.X_OK):
            problem = "is not executable"
        else:
            return path.absolute()
        raise ToolMissingError(
            f"{tool.variable} is set to '{configured}', which {problem}: expected the path of {tool.program}",
            hint=f"correct {tool.variable}, or unset it to search PATH",
        )
    program = shutil.which(tool.program)
    if program is None and tool.from_pip:
        program = shutil.which(tool.program, path=str(Path(sys.executable).parent))
    return Path(program).absolute() if program else None


def find(tool: Tool) -> ToolInfo:
    """Return whether the program is installed and its version; never raises for a broken installation."""
    try:
        path = locate(tool)
    except ToolMissingError as error:
        return ToolInfo(tool.name, "", "", False, error.message, error.hint)
    if path is None:
        return ToolInfo(
            tool.name, "", "", False, f"{tool.program} is not on PATH and {tool.variable} is not set", tool.install
        )
    try:
        version = version_of(tool, path)
    except (CompilerError, ToolMissingError) as error:
        return ToolInfo(tool.name, str(path), "", False, error.message, tool.install)
    problem = "" if version else f"{tool.program} {' '.join(tool.version_args)} does not print a version"
    return ToolInfo(tool.name, str(path), version, True, problem, tool.install)


def version_of(tool: Tool, path: Path) -> str:
    """Return the version that a program prints, empty when it prints none.

    Raises:
        ToolMissingError: The file is not a program for this machine.
        CompilerError: It does not end within 10 seconds.
    """
    completed = run([str(path), *tool.version_args], timeout=_VERSION_TIMEOUT, name=tool.name)
    match = re.search(tool.version_pattern, completed.output)
    return match.group(1) if match else ""


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    name: str = "",
    writable: Sequence[Path] | None = None,
) -> Completed:
    """Run a program to its end.

    It runs without standard input, in the C locale and in its own process group: at the time limit, or when the user
    interrupts, the program and all processes it started are killed before this function returns.

    Args:
        argv: Program and arguments.
        cwd: Folder to run in, the current one by default.
        timeout: Seconds, None for no limit.
        env: Environment variables to add.
        name: Name for messages, the file name by default.
        writable: Existing folders: the program is confined, without network, and writes to these only, with the
            limits of child processes. None for a program that needs more (adb, compilers of the loader's source).

    Returns:
        Exit code and output, for any exit code.

    Raises:
        ToolMissingError: The program does not exist, is not executable or is built for another machine.
        CompilerError: It could not be started for another reason, or took longer than `timeout`; `details` contain the
            end of its output.
    """
    name = name or Path(argv[0]).name
    # Files, not pipes: a grandchild that outlives the program would keep a pipe open and block the reader.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            process = _start(argv, cwd, stdout, stderr, {**os.environ, "LC_ALL": "C", **(env or {})}, timeout, writable)
        except (FileNotFoundError, PermissionError) as error:
            raise ToolMissingError(f"{name} cannot be started: {error.strerror}", hint=f"reinstall {name}") from error
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                raise ToolMissingError(
                    f"{name} cannot be started: the file is not a program for this machine ({error.strerror})",
                    hint="install the build for this operating system and processor (a script needs a '#!' line)",
                ) from error
            raise CompilerError(f"{name} cannot be started: {error.strerror or error}") from error
        timed_out = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            # KeyboardInterrupt passes here as well: the terminal's Ctrl-C does not reach the program's own session.
            if process.poll() is None:
                _kill_group(process)
        texts = []
        for stream in (stdout, stderr):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    completed = Completed(process.returncode, *texts)
    if timed_out:
        raise CompilerError(
            f"{name} took longer than {timeout:g} s and was stopped",
            hint="allow more time, or use a smaller model",
            details={"timeout_seconds": timeout, "log_tail": tail(completed.output)},
        )
    return completed


def _start(
    argv: Sequence[str],
    cwd: Path | None,
    stdout: BinaryIO,
    stderr: BinaryIO,
    env: Mapping[str, str],
    timeout: float | None,
    writable: Sequence[Path] | None,
) -> subprocess.Popen[bytes]:
    """Start a program, confined when `writable` is given.

    Raises:
        OSError: It cannot be started.
    """

    def start(command: Sequence[str], inherited: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(command), cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env,
            start_new_session=True, pass_fds=inherited,
        )  # fmt: skip

    if writable is None or sys.platform != "linux":
        return start(argv)
    status, inherited = os.pipe()
    try:
        cpu = limits.cpu_seconds(limits.TARGET_SECONDS if timeout is None else timeout)
        folders = [path.absolute() for path in writable]
        process = start(
            confinement.command(argv, folders, inherited, limits.default_memory(), cpu), inherited=(inherited,)
        )
        os.close(inherited)
        inherited = -1
        # The end of the pipe: the program has been started, or could not be.
        if number := os.read(status, 16):
            process.wait()
            raise OSError(int(number), os.strerror(int(number)))
    finally:
        os.close(status)
        if inherited >= 0:
            os.close(inherited)
    return process


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The program leads its session, so its pid is the group's id.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
