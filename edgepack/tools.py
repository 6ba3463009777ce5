"""A vendor's program: find it, ask its version, run it with a time limit, translate what goes wrong.

Nothing here knows one vendor's program from another; the wrappers in `edgepack.compilers` do. The path of a program is
for people (`edgepack doctor`) and never goes into a bundle or a manifest.
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

from edgepack.errors import CompilerError, ToolMissingError

_TAIL_LINES = 40
_VERSION_TIMEOUT = 10.0


@dataclass(frozen=True)
class Tool:
    """What has to be known to find a program.

    Attributes:
        name: Name for people and in results.
        program: File name looked up on PATH.
        variable: Environment variable that holds the program's path and wins over PATH.
        install: What a user without it should do, one sentence.
        version_args: Arguments that make it print its version and end.
        version_pattern: Regular expression whose first group is the version in what it prints.
        from_pip: True for a program that pip installs: it stands beside the Python that runs edgepack, and is found
            there when PATH does not have it (a virtual environment that is used without being activated).
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
    """Whether a program is there, for `edgepack doctor`.

    Attributes:
        name: Name for people.
        path: Where it is on this machine; empty when it was not found. For people only.
        version: As it says itself; empty when it is not found or does not say.
        found: True when it can be run.
        problem: What is wrong with it; empty when all is well.
        install: What to do to get it.
    """

    name: str
    path: str
    version: str
    found: bool
    problem: str
    install: str


@dataclass(frozen=True)
class Completed:
    """A program that ended by itself.

    Attributes:
        exit_code: As the system reports it: negative for a signal.
        stdout: What it wrote to standard output.
        stderr: What it wrote to standard error.
    """

    exit_code: int
    stdout: str
    stderr: str

    @property
    def signal_name(self) -> str:
        """`SIGSEGV` when a signal ended it, empty otherwise.

        A shell script around a crashed program ends with 128 plus the signal's number; that counts as well.
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

    The variable is looked at first. When it is set it decides: a wrong value is an error and PATH is not searched,
    because a user who points at one program must not get another.

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
    found = shutil.which(tool.program)
    if found is None and tool.from_pip:
        found = shutil.which(tool.program, path=str(Path(sys.executable).parent))
    return Path(found).absolute() if found else None


def find(tool: Tool) -> ToolInfo:
    """Return whether the program is there and what it is; never raises for a broken installation."""
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
    """Return the version a program prints, empty when it prints none.

    Raises:
        ToolMissingError: The file is not a program of this machine.
        CompilerError: It does not answer within 10 seconds.
    """
    done = run([str(path), *tool.version_args], timeout=_VERSION_TIMEOUT, name=tool.name)
    match = re.search(tool.version_pattern, done.output)
    return match.group(1) if match else ""


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    name: str = "",
) -> Completed:
    """Run a program to its end.

    It gets no standard input and the C locale, and leads a process group of its own: when the time is up, or the user
    interrupts, the program and everything it started are killed before this function returns.

    Args:
        argv: Program and arguments.
        cwd: Folder to run in, the current one by default.
        timeout: Seconds, None for no limit.
        env: Variables to add to the environment.
        name: What to call it in messages, the file name by default.

    Returns:
        How it ended, whatever its exit code.

    Raises:
        ToolMissingError: The program does not exist, may not be executed or is built for another machine.
        CompilerError: It could not be started for another reason, or took longer than `timeout`; `details` hold the
            tail of what it had written.
    """
    name = name or Path(argv[0]).name
    # Files, not pipes: a grandchild that outlives its parent would keep a pipe open and the reader waiting.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "LC_ALL": "C", **(env or {})},
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise ToolMissingError(
                f"{name} cannot be started: {error.strerror}", hint=f"install {name} again"
            ) from error
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                raise ToolMissingError(
                    f"{name} cannot be started: the file is not a program of this machine ({error.strerror})",
                    hint="install the build for this operating system and processor (a script needs a '#!' line)",
                ) from error
            raise CompilerError(f"{name} cannot be started: {error.strerror or error}") from error
        timed_out = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            # Also reached by KeyboardInterrupt: a session of its own does not get the terminal's Ctrl-C.
            if process.poll() is None:
                _kill_group(process)
        texts = []
        for stream in (stdout, stderr):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    done = Completed(process.returncode, *texts)
    if timed_out:
        raise CompilerError(
            f"{name} took longer than {timeout:g} s and was stopped",
            hint="give it more time, or a smaller model",
            details={"timeout_seconds": timeout, "log_tail": tail(done.output)},
        )
    return done


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The program leads its session, so its pid is the group's id.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
