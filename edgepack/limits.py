"""Limits of child processes: memory, CPU time and wall time.

Memory is what a process holds for itself (anonymous and shared memory, swapped memory included), because that is what
a machine runs out of: mapped files do not count, and neither does address space. Converting vww_96.h5 (3 MB) holds
0.3 GB, reserves 0.5 GB of private memory, and 2.4 GB of address space, the figure that RLIMIT_AS would limit. Linux
has no limit on memory held, so the parent measures it every `POLL_SECONDS` and ends the child; RLIMIT_DATA, further
out, holds when one allocation is larger than that or the parent is stopped.
"""

import os
import re
import sys
from pathlib import Path

from edgepack.confinement import lower_limits
from edgepack.errors import UsageError

#: Default of the time limit (`--timeout`), in seconds.
TARGET_SECONDS = 3600.0
#: Default of the time limit of a training, in seconds; it resumes after the last epoch.
TRAINING_SECONDS = 86400.0
#: How often the memory of a child is measured. Memory is filled at 2 to 4 GB/s, so that a child exceeds its limit by
#: at most 0.2 GB.
POLL_SECONDS = 0.05
#: Environment variable with the default of `--memory-limit`.
VARIABLE = "EDGEPACK_MEMORY_LIMIT"
#: Chosen, not measured on a model of that size: a .tflite has at most 2 GiB, and converting holds the weights in up to
#: eight forms (file, Keras variables, frozen graph, flatbuffer, and a copy of each while it is written).
_MOST = 16 << 30
_LEAST = 64 << 20
_CGROUP_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def parse_memory(text: str, name: str = "--memory-limit") -> int:
    """Return a size such as `8GB`, `512MiB` or `2000000000` in bytes.

    Raises:
        UsageError: The text is no size, or less than 64 MiB.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{name}: expected a size such as 8GB or 512MiB, got '{text}'",
            hint="KB and MB are powers of 1000, KiB and MiB of 1024",
        )
    number, prefix, binary = match.groups()
    size = int(float(number) * (1024 if binary else 1000) ** ("kmgt".index(prefix.lower()) + 1 if prefix else 0))
    if size < _LEAST:
        raise UsageError(f"{name}: expected at least {format_size(_LEAST)}, got '{text}'")
    return size


def default_memory() -> int:
    """Return the memory that a child may hold: `EDGEPACK_MEMORY_LIMIT`, else 3/4 of the machine's, at most 16 GiB.

    Raises:
        UsageError: EDGEPACK_MEMORY_LIMIT is no size.
    """
    if text := os.environ.get(VARIABLE, ""):
        return parse_memory(text, VARIABLE)
    return max(_LEAST, min(_MOST, machine_memory() * 3 // 4))


def machine_memory() -> int:
    """Return the memory of the machine, or of the container when that has less."""
    try:
        sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (OSError, ValueError):
        sizes = [_MOST]
    for file in _CGROUP_FILES:
        try:
            sizes.append(int(Path(file).read_text()))
        except (OSError, ValueError):
            continue
    return min(sizes)


def can_measure_memory() -> bool:
    """Return whether the memory that a child holds can be measured on this system."""
    return memory_of(os.getpid()) > 0


def memory_of(process: int) -> int:
    """Return the bytes that a process holds for itself; 0 when it has ended or the system does not tell."""
    try:
        # Not pathlib: this runs twenty times a second.
        with open(f"/proc/{process}/status", "rb") as stream:  # noqa: PTH123
            text = stream.read()
    except OSError:
        return 0
    fields = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(fields)) * 1024


def restrict(memory: int) -> None:
    """Set the limits of this process that hold whatever the parent does: memory, and no core files."""
    if sys.platform == "win32":
        return
    # Reserved memory that is not held, 0.2 GB on two processors, grows with the stacks of threads: 8 MiB each.
    reserve = (2 << 30) + (os.cpu_count() or 1) * (64 << 20)
    lower_limits(memory * 2 + reserve)


def restrict_cpu(seconds: float) -> None:
    """Let this process use `seconds` more of CPU time; at the limit, SIGXCPU ends it."""
    if sys.platform == "win32":
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def cpu_seconds(seconds: float) -> float:
    """Return the CPU time that a call with a time limit may use: that time on every processor."""
    return seconds * (os.cpu_count() or 1)


def format_size(size: int) -> str:
    """Return `16 GiB`, `512 MiB`."""
    value, unit = (size / (1 << 30), "GiB") if size >= 1 << 30 else (size / (1 << 20), "MiB")
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"
