"""A process that runs nodes one after another, and its other end.

Nodes run in processes of their own, not in threads: a node can exhaust the memory, be killed, or be stopped at any
moment, and what it started ends with it. The process leads a session, ends when its parent does (it waits for the end
of its input in a thread), and leaves nothing behind when it is asked to end.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from edgepack import interrupts
from edgepack.errors import EdgepackError
from edgepack.import_path import as_variable
from edgepack.messages import HEADER, receive, send
from edgepack.private_folder import PrivateFolder
from edgepack.project.node import Outcome, Work

#: Seconds that a process has to remove its files before it is killed.
_GRACE = 3.0

_SERVE = "from edgepack.project.processes import serve; serve()"


class LostError(Exception):
    """The process ended in the middle of a node."""


class NodeProcess:
    """The parent's end of a process that runs nodes.

    Args:
        env: Environment variables in addition to the parent's.

    Attributes:
        pid: Its id, 0 before it was started.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def pid(self) -> int:
        """The process's id, 0 before it was started."""
        return 0 if self._process is None else self._process.pid

    def run(self, task: Work, report: Callable[[str], None], notice: Callable[[str], None] | None = None) -> Outcome:
        """Run a node and wait for its end.

        Args:
            task: The node.
            report: Called with each line about its progress.
            notice: Called with each warning that concerns more than this node, such as one about the shared cache.

        Raises:
            LostError: The process was killed or ended itself.
        """
        process = self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            send(process.stdin, task)
            while True:
                payload = _receive(process.stdout)
                if payload is None:
                    raise LostError(_describe(process))
                kind, value = pickle.loads(payload)
                if kind == "line":
                    report(value)
                elif kind == "warning":
                    if notice is not None:
                        notice(value)
                elif kind == "bug":
                    raise RuntimeError(value)
                else:
                    assert isinstance(value, Outcome)
                    return value
        except (BrokenPipeError, EOFError) as error:
            raise LostError(_describe(process)) from error
        finally:
            if process.poll() is not None:
                self._process = None
                for stream in (process.stdin, process.stdout):
                    # What was not sent cannot be sent any more.
                    with contextlib.suppress(OSError):
                        stream.close()

    def close(self, *, at_once: bool = False) -> None:
        """End the process and what it started.

        Args:
            at_once: Do not wait for the end of a node.
        """
        self._closed = True
        process, self._process = self._process, None
        if process is None:
            return
        if at_once:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
        # Whatever it started and did not end.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with contextlib.suppress(OSError):
            assert process.stdout is not None
            process.stdout.close()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise LostError("closed")
        if self._process is None:
            with interrupts.hold():
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _SERVE],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL if os.environ.get("EDGEPACK_NODE_STDERR") is None else None,
                    env={**os.environ, "PYTHONPATH": as_variable(), **self._env},
                    start_new_session=True,
                )
            if self._closed:
                # Closed by another thread in the meantime.
                process, self._process = self._process, None
                process.kill()
                process.wait()
                raise LostError("closed")
        return self._process


def _receive(stream: Any) -> bytes | None:
    header = stream.read(HEADER.size)
    if len(header) != HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    payload: bytes = stream.read(size)
    return payload if len(payload) == size else None


def _describe(process: subprocess.Popen[bytes]) -> str:
    code = process.wait()
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def serve() -> None:
    """Run the nodes that come on stdin until it ends; outcomes and progress go to stdout."""
    interrupts.raise_interrupted()
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    # Whatever prints must not disturb the replies, and nothing else reads the requests.
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    tasks: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
    threading.Thread(target=_read_tasks, args=(requests, tasks), daemon=True).start()
    code = 0
    folder: PrivateFolder | None = None
    try:
        with interrupts.hold(), contextlib.suppress(OSError):
            folder = PrivateFolder()
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder.path)
        while (request := tasks.get()) is not None:
            _serve_task(request, Path(tempfile.gettempdir()), replies)
    except (KeyboardInterrupt, BrokenPipeError):
        code = interrupts.exit_code()
    finally:
        with interrupts.hold():
            if folder is not None:
                folder.close()
            os._exit(code)


def _serve_task(task: Work, inputs_folder: Path, replies: BinaryIO) -> None:
    def warn(message: Warning | str, *_: object) -> None:
        send(replies, ("warning", str(message)))

    warnings.showwarning = warn  # type: ignore[assignment]
    # Every node may say what an earlier one said: its client counts.
    warnings.simplefilter("always", UserWarning)
    try:
        outcome = task.run(lambda line: send(replies, ("line", line)), inputs_folder)
    except (EdgepackError, OSError) as error:
        problem = error if isinstance(error, EdgepackError) else EdgepackError(f"the node failed: {error}")
        outcome = Outcome(task.node.id, problem)
    except Exception:
        import traceback

        send(replies, ("bug", traceback.format_exc()))
        return
    send(replies, ("outcome", outcome))


def _read_tasks(requests: BinaryIO, tasks: "queue.SimpleQueue[Work | None]") -> None:
    """Pass tasks on; at the end of the input, which is the end of the parent, end this process in any case."""
    while (payload := receive(requests)) is not None:
        tasks.put(pickle.loads(payload))
    tasks.put(None)
    time.sleep(_GRACE / 3)
    # Still here, so in the middle of a node.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.killpg(0, signal.SIGKILL)
