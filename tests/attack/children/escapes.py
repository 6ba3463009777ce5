"""What hostile code in a child tries: each function returns what it achieved, by the name of the attempt."""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: System calls without a function in Python, as (number on x86_64, number on aarch64, arguments). The arguments would
#: do no harm if the call was made.
_CALLS: dict[str, tuple[int, int, tuple[Any, ...]]] = {
    "io_uring": (425, 425, (1, 0)),
    "shared memory": (29, 194, (0, 4096, 0o600)),
    "semaphores": (64, 190, (0, 1, 0o600)),
    "message queue": (68, 186, (0, 0o600)),
    "posix message queue": (240, 180, (b"edgepack-test", 0o102, 0o600, None)),
    "keyring": (248, 217, (b"user", b"edgepack-test", b"x", 1, -2)),
    "bpf": (321, 280, (0, None, 0)),
    "userfaultfd": (323, 282, (1,)),
    "user namespace": (272, 97, (0x10000000,)),
    "mount": (165, 40, (b"none", b"/proc/self/none", b"tmpfs", 0, None)),
}


def attempt_all(parent: int, victim: int, outside: Path) -> dict[str, str]:
    """Try to reach other processes, files outside, the network and the system; return what was not refused."""
    files: dict[str, Callable[[], object]] = {
        **{
            str(folder): lambda f=folder: (f / "edgepack-probe").write_text("")
            for folder in (Path.home(), Path("/tmp"), Path("/dev/shm"))
        },
        "unlink": (outside / "own").unlink,
        "truncate": lambda: os.truncate(outside / "own", 0),
        "rename": lambda: (outside / "own").rename(outside / "b"),
        "link": lambda: os.link(outside / "own", outside / "b"),
        "symlink": lambda: (outside / "b").symlink_to("own"),
        "mkdir": (outside / "b").mkdir,
        "mkfifo": lambda: os.mkfifo(outside / "b"),
        "append": lambda: (outside / "own").open("a").close(),
        "memory of the parent": lambda: Path(f"/proc/{parent}/mem").open("r+b").close(),
        "oom of the parent": lambda: Path(f"/proc/{parent}/oom_score_adj").write_text("1000"),
        "pipes of the parent": lambda: [fd.open("wb").close() for fd in Path(f"/proc/{parent}/fd").iterdir()],
    }
    processes: dict[str, Callable[[], object]] = {
        "kill": lambda: os.kill(victim, signal.SIGTERM),
        "kill the parent": lambda: os.kill(parent, signal.SIGCONT),
        "kill the group": lambda: os.killpg(0, signal.SIGCONT),
        "kill all": lambda: os.kill(-1, signal.SIGCONT),
        "pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(victim), signal.SIGTERM),
        "limits of the parent": lambda: resource.prlimit(parent, resource.RLIMIT_CORE),
        "ptrace": lambda: _call((101, 117), 0x4206, victim, 0, 0),
        "memory of another": lambda: _call((311, 271), victim, None, 0, None, 0, 0),
        "fork": lambda: os.fork() or os._exit(0),
        "spawn": lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
        "subprocess": lambda: subprocess.run([sys.executable, "-c", ""]),
    }
    network = {
        f"socket family {family}": lambda f=family: socket.socket(f).close() for family in (1, 2, 10, 16, 17, 40)
    }
    system: dict[str, Callable[[], object]] = {
        "host name": lambda: socket.sethostname(socket.gethostname()),
        "chroot": lambda: os.chroot("/"),
        **{name: lambda c=call: _call(c[:2], *c[2]) for name, call in _CALLS.items()},
    }
    done = {}
    for name, function in {**files, **processes, **network, **system}.items():
        try:
            done[name] = repr(function())
        except PermissionError:
            continue
        except OSError as error:
            done[name] = str(error)
    return done


def _call(numbers: tuple[int, ...], *arguments: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = libc.syscall(ctypes.c_long(numbers[platform.machine() == "aarch64"]), *values)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def change_quietly(own: Path, victim: int) -> None:
    """Change the mode and times of a file and the priority of a process; the calls report success."""
    own.chmod(0)
    os.utime(own, (1, 1))
    os.setpriority(os.PRIO_PROCESS, victim, 15)
    os.sched_setaffinity(victim, {0})
    os.sched_setscheduler(victim, os.SCHED_IDLE, os.sched_param(0))


def compute() -> list[float]:
    """Use what computing needs: threads, own limits, own files, own signals, randomness."""
    import tempfile
    import threading

    results: list[float] = []
    threads = [threading.Thread(target=lambda: results.append(len(os.urandom(4)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").write_bytes(b"1234")
        (Path(folder) / "a").rename(Path(folder) / "b")
        results.append((Path(folder) / "b").stat().st_size)
    resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
    signal.signal(signal.SIGUSR1, lambda *_: results.append(4))
    signal.raise_signal(signal.SIGUSR1)
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    return results


def spin() -> None:
    """Use CPU time without end."""
    while True:
        pass


def reply_that_calls(module: str, name: str, path: Path) -> None:
    """Reply with a pickle that calls a function with a path: `module` is imported, and `name` may have dots."""
    text = [b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name, str(path))]
    raw_reply(b"\x80\x04" + text[0] + text[1] + b"\x93" + text[2] + b"\x85R.")


def raw_reply(data: bytes) -> None:
    """Write bytes to the pipe to the parent in place of a reply."""
    import struct

    for descriptor in range(3, 16):
        with contextlib.suppress(OSError):
            os.write(descriptor, struct.pack("<Q", len(data)) + data)
    os._exit(0)


def endless_reply() -> None:
    """Claim a reply of 2^62 bytes."""
    import struct

    for descriptor in range(3, 16):
        with contextlib.suppress(OSError):
            os.write(descriptor, struct.pack("<Q", 1 << 62))
    signal.pause()
