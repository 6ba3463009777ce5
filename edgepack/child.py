"""Run functions in a child process, so that native code that aborts ends the child and not the user's command.

A `Worker` is one child process that serves calls until it is closed. The output of the child, native libraries
included, goes to a log; when the child dies or reaches a limit, the call raises `ChildCrash`, `ChildTimeout` or
`ChildMemory` with the end of that log. Values are pickled: both processes belong to the same user and the same
installation. Replies of the child are accepted as plain data only (`edgepack.messages`).

A child imports nothing from the current folder (`edgepack.import_path`), writes only to a temporary folder of its own
and has no network (`edgepack.confinement`), and has limits on memory and time (`edgepack.limits`).
"""

import contextlib
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, overload

from edgepack import confinement, limits
from edgepack.errors import EdgepackError
from edgepack.import_path import as_variable
from edgepack.job import ChildCrash, ChildException, ChildMemory, ChildTimeout, Job, JobCall, limit_hint
from edgepack.messages import HEADER, load_reply, receive, send
from edgepack.private_folder import PrivateFolder
from edgepack.tools import tail

__all__ = [
    "ChildCrash",
    "ChildException",
    "ChildMemory",
    "ChildTimeout",
    "Job",
    "JobCall",
    "Worker",
    "emit",
    "limit_hint",
]

R = TypeVar("R")

#: What native code prints when it runs out of memory, before it aborts.
_OUT_OF_MEMORY = re.compile(r"bad_alloc|MemoryError|out of memory|cannot allocate memory", re.IGNORECASE)

#: Environment of a child: NumPy's OpenBLAS lets its threads spin for 2**26 cycles after each product, which doubles the
#: processor time of effort low on EfficientNet-Lite0 (rounding: 24.9 CPU-seconds in 12.9; with 2**12 12.3 in 11.0).
THREADS = {"OPENBLAS_THREAD_TIMEOUT": "12"}


class Worker:
    """A child process that runs jobs.

    Args:
        env: Extra environment variables for the child.
        memory: Bytes that the child may hold; None for `limits.default_memory()`.
        writable: Existing folders in which the child may write, besides its temporary folder.

    Attributes:
        seconds: Time limit of calls that have none of their own.
        deadline: Time (`time.monotonic`) at which every call ends, None for no such time.
    """

    def __init__(
        self, env: Mapping[str, str] | None = None, *, memory: int | None = None, writable: Sequence[Path] = ()
    ) -> None:
        self.seconds = limits.TARGET_SECONDS
        self.deadline: float | None = None
        self._env = dict(env or {})
        self._memory = memory
        self._writable = [str(path.absolute()) for path in writable]
        self._folder: PrivateFolder | None = None
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
            timeout: Seconds until the child is killed, `seconds` by default; `deadline` ends it earlier.
            on_event: Called with each value that the function passes to `emit`.
            **kwargs: Keyword arguments.

        Raises:
            EdgepackError: The function raised it.
            ChildCrash: The child died, reached a limit (`ChildTimeout`, `ChildMemory`) or raised another error
                (`ChildException`).
        """
        if isinstance(function, JobCall):
            args, kwargs, function = function.args, dict(function.kwargs), function.job.reference
        seconds = self.seconds if timeout is None else timeout
        deadline = time.monotonic() + seconds
        if self.deadline is not None and self.deadline < deadline:
            seconds, deadline = self.seconds, self.deadline
        late = f"the time limit of {seconds:g} s was reached"
        if deadline <= time.monotonic():
            raise ChildTimeout(late, "")
        process = self._start()
        assert process.stdin is not None and self._log is not None
        self._log_start = self._log.seek(0, os.SEEK_END)
        try:
            cpu = limits.cpu_seconds(max(1.0, deadline - time.monotonic()))
            send(process.stdin, (function, args, kwargs, cpu))
            while True:
                kind, value = self._receive(process, deadline, late)
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
        if kind == "memory":
            raise ChildMemory(f"{self._memory_reason()} ({value})", self.log_tail())
        raise ChildException(value, self.log_tail())

    def run(
        self, call: JobCall[R], *, timeout: float | None = None, on_event: Callable[[Any], None] | None = None
    ) -> R:
        """Run a job in the child and return its result.

        Args:
            call: The job with its arguments.
            timeout: Seconds until the child is killed, `seconds` by default; `deadline` ends it earlier.
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
                hint=limit_hint(crash)
                or job.hint
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
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        if self._log is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        if self._folder is None:
            self._folder = PrivateFolder()
        if self._memory is None:
            self._memory = limits.default_memory()
        folder = str(self._folder.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgepack.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={
                **THREADS,
                **os.environ,
                "PYTHONPATH": as_variable(),
                "PYTHONSAFEPATH": "1",
                "PYTHONUNBUFFERED": "1",
                **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder),
                **self._env,
            },
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # The first call reports why the child ended.
            send(self._process.stdin, (self._memory, [folder, *self._writable]))
        return self._process

    def _receive(self, process: subprocess.Popen[bytes], deadline: float, late: str) -> tuple[str, Any]:
        (length,) = HEADER.unpack(self._read(process, HEADER.size, deadline, late))
        assert self._memory is not None
        try:
            if length > self._memory:
                raise pickle.UnpicklingError(f"the reply claims {length} bytes, more than the child may hold")
            return load_reply(self._read(process, length, deadline, late))
        except pickle.UnpicklingError as error:
            process.kill()
            self._forget(process)
            raise ChildException(str(error), self.log_tail()) from None

    def _read(self, process: subprocess.Popen[bytes], size: int, deadline: float, late: str) -> bytes:
        assert process.stdout is not None and self._memory is not None
        chunks = []
        while size:
            ready, _, _ = select.select([process.stdout], [], [], limits.POLL_SECONDS)
            if time.monotonic() > deadline:
                process.kill()
                self._forget(process)
                raise ChildTimeout(late, self.log_tail())
            if limits.memory_of(process.pid) > self._memory:
                process.kill()
                self._forget(process)
                raise ChildMemory(self._memory_reason(), self.log_tail())
            if not ready:
                continue
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

    def _memory_reason(self) -> str:
        return f"the memory limit of {limits.format_size(self._memory or 0)} was reached"

    def _crash(self, process: subprocess.Popen[bytes]) -> ChildCrash:
        code, log = self._forget(process), self.log_tail()
        if code == -signal.SIGXCPU:
            return ChildTimeout("the limit on CPU time was reached (the time limit on every processor)", log)
        if _OUT_OF_MEMORY.search(log):
            return ChildMemory(self._memory_reason(), log)
        if code < 0:
            name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else "unknown"
            return ChildCrash(f"signal {-code} ({name})", log)
        return ChildCrash(f"exit code {code}", log)


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
    import_module("edgepack.child")._emit = lambda value: send(replies, ("event", value))  # type: ignore[attr-defined]
    settings = receive(requests)
    if settings is None:
        return 0
    _confine(*pickle.loads(settings))
    while (request := receive(requests)) is not None:
        reply: tuple[str, Any]
        try:
            function, args, kwargs, cpu = pickle.loads(request)
            limits.restrict_cpu(cpu)
            module, name = function.split(":")
            reply = ("ok", getattr(import_module(module), name)(*args, **kwargs))
        except EdgepackError as error:
            reply = ("error", error)
        except Exception as error:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            kind = "memory" if isinstance(error, MemoryError) else "exception"
            reply = (kind, f"{type(error).__name__}: {error}")
        send(replies, reply)
    return 0


def _confine(memory: int, writable: Sequence[str]) -> None:
    """Apply limits and confinement; what the system refuses is shown by `edgepack doctor`, which tries it."""
    try:
        limits.restrict(memory)
        confinement.confine(writable, alone=True)
    except OSError as error:
        sys.stderr.write(f"this process is not confined: {error}\n")


if __name__ == "__main__":
    try:
        code = _serve()
    except KeyboardInterrupt:
        code = 130
    # Skip atexit handlers: those of TensorFlow take seconds and can crash.
    os._exit(code)
