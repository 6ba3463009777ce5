"""Run functions in a child process, so that native code that aborts ends the child and not the user's command.

A `Worker` is one child process that serves calls until it is closed. The output of the child, native libraries
included, goes to a log; when the child dies or exceeds its time limit, the call raises `ChildCrash` or `ChildTimeout`
with the end of that log. Values are pickled: both processes belong to the same user and the same installation.
"""

import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic, ParamSpec, Self, TypeVar, overload

from edgepack.errors import EdgepackError
from edgepack.tools import tail

P = ParamSpec("P")
R = TypeVar("R")

#: Length of a pickle that follows, in bytes.
_HEADER = struct.Struct("<Q")


class ChildCrash(Exception):
    """The child process died before it replied.

    Attributes:
        reason: `signal 11 (SIGSEGV)` or `exit code 3`.
        log_tail: Last lines that the child printed.
    """

    def __init__(self, reason: str, log_tail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log_tail = log_tail


class ChildTimeout(ChildCrash):
    """The child process exceeded its time limit and was killed."""


class ChildException(ChildCrash):
    """The function raised an exception other than `EdgepackError`; `reason` is its type and message."""


@dataclass(frozen=True)
class Job(Generic[P, R]):
    """A function that runs in a child process, with the error that its failure becomes.

    Attributes:
        function: A function at module level; its arguments and its result must be picklable.
        error: Raised when the child dies, exceeds its time limit or raises an exception other than `EdgepackError`.
        purpose: What the function does, as the subject of an error message (`calibration`).
        hint: What the user can do when it fails.
    """

    function: Callable[P, R]
    error: type[EdgepackError]
    purpose: str
    hint: str = ""

    def call(self, *args: P.args, **kwargs: P.kwargs) -> "JobCall[R]":
        """Bind the arguments; a type checker compares them with the function's signature."""
        return JobCall(self, args, kwargs)

    @property
    def reference(self) -> str:
        """The function as `module:name`, which is how the child finds it."""
        return f"{self.function.__module__}:{self.function.__name__}"


@dataclass(frozen=True)
class JobCall(Generic[R]):
    """A job with its arguments."""

    job: Job[Any, R]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Worker:
    """A child process that runs jobs.

    Args:
        env: Extra environment variables for the child.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def started(self) -> bool:
        """True once a call has started the child."""
        return self._process is not None

    def start(self) -> None:
        """Start the child now, on the main thread: Linux ends a child together with the thread that started it."""
        self._start()

    @overload
    def call(
        self, function: JobCall[R], /, *, timeout: float | None = None, on_event: Callable[[Any], None] | None = None
    ) -> R: ...

    @overload
    def call(
        self,
        function: str,
        /,
        *args: Any,
        timeout: float | None = None,
        on_event: Callable[[Any], None] | None = None,
        **kwargs: Any,
    ) -> Any: ...

    def call(
        self,
        function: JobCall[Any] | str,
        /,
        *args: Any,
        timeout: float | None = None,
        on_event: Callable[[Any], None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run a function in the child and return its result.

        Unlike `run`, this leaves the failure of the child itself to the caller, who can name files and formats.

        Args:
            function: A job with its arguments, or `package.module:name`; arguments and result must be picklable.
            *args: Positional arguments.
            timeout: Seconds until the child is killed, None for no limit.
            on_event: Called with each value that the function passes to `emit`.
            **kwargs: Keyword arguments.

        Raises:
            EdgepackError: The function raised it.
            ChildCrash: The child died, exceeded `timeout` (`ChildTimeout`) or raised another error (`ChildException`).
        """
        if isinstance(function, JobCall):
            args, kwargs, function = function.args, dict(function.kwargs), function.job.reference
        process = self._start()
        assert process.stdin is not None and self._log is not None
        self._log_start = self._log.seek(0, os.SEEK_END)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            _send(process.stdin, (function, args, kwargs))
            while True:
                kind, value = self._receive(process, deadline)
                if kind == "event":
                    if on_event is not None:
                        on_event(value)
                    continue
                break
        except (EOFError, BrokenPipeError):
            raise self._crash(process) from None
        if kind == "ok":
            return value
        if kind == "error":
            raise value
        raise ChildException(value, self.log_tail())

    def run(
        self, call: JobCall[R], *, timeout: float | None = None, on_event: Callable[[Any], None] | None = None
    ) -> R:
        """Run a job in the child and return its result.

        Args:
            call: The job with its arguments.
            timeout: Seconds until the child is killed, None for no limit.
            on_event: Called with each value that the function passes to `emit`.

        Raises:
            EdgepackError: The function raised it. When the child failed, it is the job's error class with the end of
                the child's log in its details.
        """
        job = call.job
        try:
            return self.call(call, timeout=timeout, on_event=on_event)
        except ChildCrash as crash:
            raise job.error(
                f"{job.purpose} failed: {crash.reason}",
                hint=job.hint
                or "run `edgepack inspect` on the model; if it is valid, report an issue with the log below",
                details={"log_tail": crash.log_tail},
            ) from crash

    def log_tail(self) -> str:
        """Return the last lines that the child printed during the last call."""
        if self._log is None:
            return ""
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log_start, end - 65536))
        return tail(self._log.read().decode("utf-8", "replace"))

    def kill(self) -> None:
        """End the child without waiting; a call that is running in another thread fails."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the child and delete its log."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                # TensorFlow's cleanup takes seconds, and the child has nothing to save.
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        if self._log is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgepack.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Without -P: the current folder may contain the user's modules that yield samples.
            env={**os.environ, "PYTHONPATH": import_path(), "PYTHONUNBUFFERED": "1", **self._env},
        )
        return self._process

    def _receive(self, process: subprocess.Popen[bytes], deadline: float | None) -> tuple[str, Any]:
        assert process.stdout is not None
        (length,) = _HEADER.unpack(self._read(process, _HEADER.size, deadline))
        kind, value = pickle.loads(self._read(process, length, deadline))
        return kind, value

    def _read(self, process: subprocess.Popen[bytes], size: int, deadline: float | None) -> bytes:
        assert process.stdout is not None
        chunks = []
        while size:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([process.stdout], [], [], wait)
            if not ready:
                process.kill()
                self._forget(process)
                raise ChildTimeout("time limit reached", self.log_tail())
            chunk = os.read(process.stdout.fileno(), min(size, 1 << 20))
            if not chunk:
                raise EOFError
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)

    def _forget(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a dead child, close its pipes and return its exit code; the next call starts a new child."""
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process = None
        return code

    def _crash(self, process: subprocess.Popen[bytes]) -> ChildCrash:
        code = self._forget(process)
        if code < 0:
            name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else "unknown"
            return ChildCrash(f"signal {-code} ({name})", self.log_tail())
        return ChildCrash(f"exit code {code}", self.log_tail())


def import_path() -> str:
    """Return this process's import path as PYTHONPATH, so that a child imports the same modules."""
    return os.pathsep.join(str(Path(p).resolve()) if p else str(Path.cwd()) for p in sys.path)


def _send(stream: BinaryIO | Any, message: Any) -> None:
    payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_HEADER.pack(len(payload)))
    stream.write(payload)
    stream.flush()


_emit: Callable[[Any], None] = lambda value: None  # noqa: E731


def emit(value: Any) -> None:
    """Pass a progress value to the parent's `on_event`; does nothing outside a child process."""
    _emit(value)


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies (prctl PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _serve() -> int:
    _die_with_parent()
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    # Not `globals()`: functions import this module as edgepack.child, but it runs here as __main__.
    import_module("edgepack.child")._emit = lambda value: _send(replies, ("event", value))  # type: ignore[attr-defined]
    while True:
        header = requests.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return 0
        reply: tuple[str, Any]
        try:
            function, args, kwargs = pickle.loads(requests.read(_HEADER.unpack(header)[0]))
            module, name = function.split(":")
            reply = ("ok", getattr(import_module(module), name)(*args, **kwargs))
        except EdgepackError as error:
            reply = ("error", error)
        except Exception as error:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            reply = ("exception", f"{type(error).__name__}: {error}")
        _send(replies, reply)


if __name__ == "__main__":
    try:
        code = _serve()
    except KeyboardInterrupt:
        code = 130
    # Skip atexit handlers: those of TensorFlow take seconds and can crash.
    os._exit(code)
