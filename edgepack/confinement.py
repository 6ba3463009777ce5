"""Confine a process to reading files: no writing outside given folders, no network. Linux, without root.

Files are protected by Landlock (Linux 5.13), the network by a seccomp filter. Both are called through ctypes, with the
numbers of the kernel's headers: the packages on PyPI for Landlock are at alpha or version 0.x, and the one for seccomp
(pyseccomp, last released in 2021) needs a system library that pip does not install. A confined process cannot undo it,
and its own children inherit it.

This module imports the standard library only, and is also a program that confines itself and becomes another one:
`python -I -S confinement.py FD MEMORY SECONDS [FOLDER ...] -- PROGRAM [ARGUMENT ...]`. When that fails, it writes the
error number to FD.
"""

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Set to `off` to start children without confinement, for a system on which it prevents something that is needed.
VARIABLE = "EDGEPACK_CONFINEMENT"
#: Further folders in which children may write, separated as in PATH: a vendor tool may keep files in one of its own.
WRITABLE_VARIABLE = "EDGEPACK_WRITABLE"

# include/uapi/linux/landlock.h. The numbers of the system calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_WRITE_FILE, _TRUNCATE, _IOCTL_DEV = 1 << 1, 1 << 14, 1 << 15
#: REMOVE_DIR to MAKE_SYM.
_CHANGE_DIR = sum(1 << bit for bit in range(4, 13))
_REFER = 1 << 13
#: What each version of Landlock added to the rights that write.
_WRITING = {1: _WRITE_FILE | _CHANGE_DIR, 2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
_BIND_AND_CONNECT_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_GET_SECCOMP = 38, 22, 21
_SECCOMP_FILTER = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

#: Devices that computing needs: the usual ones, and those of GPUs.
_DEVICES = ("null", "zero", "full", "random", "urandom", "nvidia*", "nvidia-caps/*", "kfd", "dri/*", "dxg")


@dataclass(frozen=True)
class _Machine:
    """Numbers of one processor architecture.

    Attributes:
        audit: AUDIT_ARCH_... of include/uapi/linux/audit.h.
        refused: socket, io_uring_setup (its rings open sockets without the system call).
        ignored: chmod, chown, setxattr and their kin, which Landlock does not cover. They change nothing and
            report success: copying a file with its mode works, and no file outside is changed.
        highest: Numbers from here on belong to another ABI (x32).
    """

    audit: int
    refused: tuple[int, ...]
    ignored: tuple[int, ...]
    highest: int = 0x40000000


# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        (41, 425),
        (90, 91, 92, 93, 94, 188, 189, 190, 197, 198, 199, 260, 268, 452, 463, 466),
    ),
    "aarch64": _Machine(0xC00000B7, (198, 425), (5, 6, 7, 14, 15, 16, 52, 53, 54, 55, 452, 463, 466)),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def enabled() -> bool:
    """Return whether children are to be confined; `EDGEPACK_CONFINEMENT=off` says no."""
    return os.environ.get(VARIABLE, "").lower() not in {"off", "0", "no"}


def landlock_version() -> int:
    """Return the version of Landlock's interface, 0 when the system does not offer it."""
    if sys.platform != "linux":
        return 0
    version = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    return max(0, int(version))


def has_seccomp() -> bool:
    """Return whether the system and this module offer a seccomp filter for this processor."""
    return (
        sys.platform == "linux" and os.uname().machine in _MACHINES and _libc().prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0
    )


def confine(writable: Iterable[str | Path]) -> None:
    """Confine this process, as far as the system offers it; call it before a second thread starts.

    Args:
        writable: Folders in which it may still write. Those that do not exist are left out.

    Raises:
        OSError: The system offers a protection and refused to apply it.
    """
    if sys.platform != "linux" or not enabled():
        return
    version = landlock_version()
    if not version and not has_seccomp():
        return
    _check(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if version:
        _restrict_files(version, writable)
    if has_seccomp():
        _filter_calls(_MACHINES[os.uname().machine])


def probe(outside: str) -> dict[str, bool]:
    """Return what this process is prevented from, by trying it: `files` (writing outside) and `network`.

    Args:
        outside: A folder that it should not be able to write to.
    """
    import socket

    results = {"files": False, "network": False}
    try:
        (Path(outside) / "probe").write_bytes(b"")
    except OSError:
        results["files"] = True
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError:
        results["network"] = True
    return results


def command(
    program: Sequence[str], writable: Iterable[str | Path], status: int, memory: int, cpu_seconds: float
) -> list[str]:
    """Return the command line that runs a program confined.

    Args:
        program: Program and arguments.
        writable: Folders in which it may write.
        status: Inherited file descriptor; receives the error number when the program cannot be started.
        memory: Bytes of private memory that it may reserve.
        cpu_seconds: CPU time that it may use.
    """
    # -I -S: neither the environment nor the current folder can add code, and it starts in 10 ms.
    numbers = (str(status), str(memory), str(int(cpu_seconds) + 1))
    return [sys.executable, "-I", "-S", __file__, *numbers, *map(str, writable), "--", *program]


def lower_limits(memory: int, cpu_seconds: int | None = None) -> None:
    """Limit this process and what it starts: private memory, core files and, where given, CPU time."""
    import resource

    wanted = [(resource.RLIMIT_DATA, memory), (resource.RLIMIT_CORE, 0)]
    if cpu_seconds is not None:
        wanted.append((resource.RLIMIT_CPU, cpu_seconds))
    for kind, value in wanted:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _restrict_files(version: int, writable: Iterable[str | Path]) -> None:
    libc = _libc()
    files = sum(rights for since, rights in _WRITING.items() if since <= version)
    fields = [files]
    if version >= 4:
        fields.append(_BIND_AND_CONNECT_TCP)
    if version >= 6:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _check(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)))
    try:
        for path in (*writable, *filter(None, os.environ.get(WRITABLE_VARIABLE, "").split(os.pathsep))):
            _allow(libc, ruleset, Path(path), files)
        for pattern in _DEVICES:
            for device in Path("/dev").glob(pattern):
                _allow(libc, ruleset, device, files & (_WRITE_FILE | _TRUNCATE | _IOCTL_DEV))
        _check(libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not path.is_dir():
        rights &= _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
    try:
        rule = struct.pack("=Qi", rights, descriptor)
        _check(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, ctypes.c_uint32(0)))
    finally:
        os.close(descriptor)


def _filter_calls(machine: _Machine) -> None:
    load, equal, at_least, reply = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K

    def code(operation: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("=HBBI", operation, then, otherwise, value)

    refuse, ignore = code(reply, _ERRNO | errno.EACCES), code(reply, _ERRNO)
    # struct seccomp_data: the number of the call is at 0, the architecture at 4.
    program = [code(load, 4), code(equal, machine.audit, then=1), refuse]
    program += [code(load, 0), code(at_least, machine.highest, otherwise=1), refuse]
    for number in machine.refused:
        program += [code(equal, number, otherwise=1), refuse]
    for number in machine.ignored:
        program += [code(equal, number, otherwise=1), ignore]
    program.append(code(reply, _ALLOW))
    filled = _Program(len(program), b"".join(program))
    _check(_libc().prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, ctypes.byref(filled), 0, 0))


def _main(arguments: list[str]) -> int:
    end = arguments.index("--")
    status, memory, cpu_seconds = map(int, arguments[:3])
    os.set_inheritable(status, False)
    try:
        lower_limits(memory, cpu_seconds)
        confine(arguments[3:end])
        os.execv(arguments[end + 1], arguments[end + 1 :])
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(status, str(error.errno or errno.EIO).encode())
    return 127


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
