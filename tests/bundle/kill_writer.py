"""Writes a bundle over another one and is killed before its N-th step, for every N. Run as a program by a test.

The steps are Python's audit events: every open, mkdir, rename, remove and call into the C library raises one before it
happens. Prints one line per N: how many steps were allowed, and how the writer ended.
"""

import os
import pickle
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from edgepack.bundle import write as writer

_STEPS = ("open", "os.", "shutil.", "tempfile.", "ctypes.call_function", "ctypes.dlsym", "fcntl.")


def without_exchange(module: ModuleType) -> None:
    """Simulate a file system that does not support the exchange of two folders."""
    module._exchange = lambda one, other: False  # type: ignore[attr-defined]


def killed_at(step: int, files: dict[str, bytes], dest: Path) -> str:
    """Write in a forked process that is killed before step `step`; return `killed` or `done`."""
    child = os.fork()
    if child == 0:
        left = step

        def hook(event: str, _: Any) -> None:
            nonlocal left
            # os.kill raises an event too.
            if event.startswith(_STEPS) and event != "os.kill":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        writer.write(files, dest, force=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return "done" if os.WEXITSTATUS(status) == 0 else "failed"


def state(folder: Path, versions: dict[str, dict[str, bytes]]) -> str:
    """Return which version is there, `absent` or `mixture`."""
    if not folder.exists():
        return "absent"
    actual = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return next((name for name, files in versions.items() if files == actual), "mixture")


def main() -> None:
    """Kill at each step in turn, until a run completes; report the state of the destination after each.

    With `tidy` each run starts without left-overs, so that step N is the same step every time; without, each run begins
    with removing what the last one left and is killed in that too.
    """
    one, other, dest, mode, tidy = sys.argv[1:]
    if mode == "fallback":
        without_exchange(writer)
    versions = {name: pickle.loads(Path(path).read_bytes()) for name, path in (("one", one), ("other", other))}
    folder = Path(dest)
    writer.write(versions["one"], folder)
    standing, step = "one", 0
    while True:
        wanted = "other" if standing == "one" else "one"
        end = killed_at(step, versions[wanted], folder)
        found = state(folder, versions)
        print(step, end, "old" if found == standing else "new" if found == wanted else found, flush=True)
        if end != "killed":
            return
        if tidy == "tidy" or found == "absent":
            # What the next write does first: it has to put an absent bundle back by itself.
            writer._recover(folder)
            again = state(folder, versions)
            print(step, "recovered", "same" if again == found else "old" if again == standing else again, flush=True)
            found = again
        standing = found
        step += 1


if __name__ == "__main__":
    main()
