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


#: Processor architectures: AUDIT_ARCH_... of include/uapi/linux/audit.h, and the column of the tables below.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
#: Numbers from here on belong to another ABI (x32).
_OTHER_ABI = 0x40000000

# Numbers on x86_64 and aarch64 (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h); -1 where an
# architecture has no such call.
_Calls = dict[str, tuple[int, int]]
#: What reaches beyond the process: the network (the rings of io_uring open sockets without `socket`), other processes,
#: objects of the kernel that outlive the process or count as nobody's memory, and, for root, the system.
_REFUSED: _Calls = {
    "socket": (41, 198), "io_uring_setup": (425, 425),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "perf_event_open": (298, 241),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "userfaultfd": (323, 282),
    "bpf": (321, 280), "fanotify_init": (300, 262),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "setns": (308, 268),
    "unshare": (272, 97), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467), "open_by_handle_at": (304, 265), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116), "vhangup": (153, 58),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "reboot": (169, 142), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "iopl": (172, -1), "ioperm": (173, -1),
}  # fmt: skip
#: Modes, owners, attributes and times of files, which Landlock does not cover, and priorities. These calls change
#: nothing and report success: copying a file with its mode works, and no file outside is changed.
_IGNORED: _Calls = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}  # fmt: skip
#: Calls whose first argument is a process; 0 and the own number pass.
_OWN_LIMITS: _Calls = {"prlimit64": (302, 261)}
_OWN_PROCESSORS: _Calls = {"sched_setaffinity": (203, 122)}
#: A process that must stay alone starts threads and no processes, and sends signals to itself only.
_STARTS: _Calls = {"fork": (57, -1), "vfork": (58, -1), "tkill": (200, 130), "pidfd_send_signal": (424, 424)}
_OWN_SIGNALS: _Calls = {
    "kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
}  # fmt: skip
_CLONE: _Calls = {"clone": (56, 220)}
_CLONE3: _Calls = {"clone3": (435, 435)}
_CLONE_THREAD = 0x10000


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


def confine(writable: Iterable[str | Path], *, alone: bool = False) -> None:
    """Confine this process, as far as the system offers it; call it before a second thread starts.

    Args:
        writable: Folders in which it may still write. Those that do not exist are left out.
        alone: It may not start other processes: limits on memory and CPU time hold for each process by itself, and a
            process that it started could outlive it.

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
        _filter_calls(*_MACHINES[os.uname().machine], alone=alone)


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
    """Limit this process and what it starts: private memory, core files and, where given, CPU time.

    A file can be as large as the memory: in a file system of memory, or without a name, it is memory.
    """
    import resource

    wanted = [(resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, memory), (resource.RLIMIT_CORE, 0)]
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


def _filter_calls(audit: int, column: int, *, alone: bool) -> None:
    load, equal, at_least, any_bit, reply = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, JGE, JSET, RET

    def code(operation: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("=HBBI", operation, then, otherwise, value)

    refuse, ignore = code(reply, _ERRNO | errno.EACCES), code(reply, _ERRNO)
    allow, unknown = code(reply, _ALLOW), code(reply, _ERRNO | errno.ENOSYS)
    # struct seccomp_data: the number of the call is at 0, the architecture at 4, the first argument's low half at 16.
    number, first_argument = code(load, 0), code(load, 16)
    program = [code(load, 4), code(equal, audit, then=1), refuse]
    program += [number, code(at_least, _OTHER_ABI, otherwise=1), refuse]

    def add(calls: _Calls, *steps: bytes) -> None:
        for call in calls.values():
            if call[column] >= 0:
                program.extend((code(equal, call[column], otherwise=len(steps)), *steps))

    own = code(equal, os.getpid(), then=1)
    own_or_0 = (first_argument, code(equal, 0, then=2), own)
    add(_REFUSED, refuse)
    add(_IGNORED, ignore)
    add(_OWN_LIMITS, *own_or_0, refuse, allow)
    add(_OWN_PROCESSORS, *own_or_0, ignore, allow)
    if alone:
        add(_STARTS, refuse)
        add(_OWN_SIGNALS, first_argument, own, refuse, allow)
        add(_CLONE, first_argument, code(any_bit, _CLONE_THREAD, then=1), refuse, allow)
        # Its flags are in memory, which a filter does not see; the C library then uses clone.
        add(_CLONE3, unknown)
    program.append(allow)
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
