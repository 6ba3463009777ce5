"""Kills workers, node processes, the scheduler and the client of a run again and again, and checks what is left.

    scripts/kill_matrix.py [--kills 100] [--seed 0] [--work DIR]

A project of small .tflite models is built on a Dask scheduler and two workers of this machine, which are started
again whenever they are gone, as a service manager does. Every few seconds one process gets SIGKILL. Whenever a client
ends with every bundle in place, the bundles must be byte for byte those of single builds, and no node may have finished
twice; then everything is removed and the next round starts. At the end, no process may be left.
"""

import argparse
import collections
import json
import os
import pickle
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from builders import classifier, one_op, standing_alone, two_in_two_out  # noqa: E402

from edgepack.pipeline.build import build  # noqa: E402
from edgepack.pipeline.options import BuildOptions  # noqa: E402
from edgepack.project.cells import Cell, Project  # noqa: E402

CLIENT = """
import pickle, sys
from edgepack import interrupts
from edgepack.project.cluster import DaskExecutor
from edgepack.project.matrix import build_matrix
interrupts.raise_interrupted()
executor = DaskExecutor(sys.argv[2])
result = build_matrix(pickle.loads(open(sys.argv[1], "rb").read()), executor=executor)
for entry in result.results:
    if entry.error is not None:
        print(entry.cell.id, entry.error.message, file=sys.stderr)
executor.close()
sys.exit(0 if result.error is None else 9)
"""


class Crew:
    """The processes of a cluster, each started again when it is gone."""

    def __init__(self, work: Path, project: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        address = f"tcp://127.0.0.1:{port}"
        dask = [sys.executable, "-m", "distributed.cli"]
        worker = [*dask[:2], "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        self.commands = {
            "scheduler": [
                *dask[:2], "distributed.cli.dask_scheduler",
                "--host", "127.0.0.1", "--port", str(port), "--no-dashboard",
            ],
            "worker-1": [*worker, "--resources", "MEMORY=8e9 TENSORFLOW=1"],
            "worker-2": [*worker, "--resources", "MEMORY=8e9 TENSORFLOW=1"],
            "client": [sys.executable, "-c", CLIENT, str(project), address],
        }  # fmt: skip
        self.work = work
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def ensure(self) -> int | None:
        """Start what is not running; return the exit code of a client that ended by itself, None otherwise."""
        ended = None
        for name, command in self.commands.items():
            process = self.running.get(name)
            if process is not None and process.poll() is None:
                continue
            if process is not None and name == "client" and process.returncode >= 0:
                ended = process.returncode
                del self.running[name]
                return ended
            with (self.work / f"{name}.log").open("ab") as log:
                self.running[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        return ended

    def kill(self, name: str) -> bool:
        """Kill a process, or the process of a node under a worker; return whether there was one."""
        if name == "node":
            found = node_processes(self.running[worker].pid for worker in ("worker-1", "worker-2"))
            if not found:
                return False
            os.kill(random.choice(found), signal.SIGKILL)
            return True
        process = self.running.get(name)
        if process is None or process.poll() is not None:
            return False
        process.kill()
        process.wait()
        return True

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


def node_processes(parents: "collections.abc.Iterable[int]") -> list[int]:
    """Return the processes that were started by others."""
    found = []
    for parent in parents:
        for thread in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(word) for word in thread.read_text().split()]
            except OSError:
                continue
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_project(work: Path) -> Project:
    """Return a project of five models for two targets, with the reference of single builds in `work/reference`."""
    models = {
        "classifier": classifier(), "two": two_in_two_out(), "relu": one_op("RELU"), "tanh": one_op("TANH"),
        "alone": standing_alone(),
    }  # fmt: skip
    cells = []
    for name, data in models.items():
        path = work / f"{name}.tflite"
        path.write_bytes(data)
        result = build(path, ["cpu", "android-gpu"], BuildOptions(out=work / "reference"))
        for entry in result.results:
            if entry.error is None:
                cells.append(Cell(name, path, entry.target, "", BuildOptions(out=work / "out")))
    return Project(work / "edgepack.toml", "zoo", work / "out", "", tuple(cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=4.0, help="mean time between two kills")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    options = parser.parse_args()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    random.seed(options.seed)
    marker = f"EDGEPACK_KILL_RUN={os.getpid()}"
    os.environ.update(
        EDGEPACK_CACHE_DIR=str(work / "cache"), EDGEPACK_KILL_RUN=str(os.getpid()), PYTHONPATH=str(REPOSITORY)
    )
    project = make_project(work)
    shutil.rmtree(work / "cache", ignore_errors=True)
    (work / "project.pickle").write_bytes(pickle.dumps(project))
    journal = work / "journal"
    os.environ["EDGEPACK_NODE_JOURNAL"] = str(journal)
    crew = Crew(work, work / "project.pickle")
    kills: collections.Counter[str] = collections.Counter()
    figures = {"rounds": 0, "wrong": 0, "twice": 0, "failed_runs": 0, "nodes": 0}
    start = time.monotonic()
    try:
        while kills.total() < options.kills or figures["rounds"] == 0:
            ended = crew.ensure()
            if ended is not None:
                if ended != 0:
                    figures["failed_runs"] += 1
                    continue
                check_round(work, project, figures)
                continue
            if kills.total() >= options.kills:
                time.sleep(0.2)
                continue
            time.sleep(random.uniform(0.0, 2 * options.seconds))
            victim = random.choice(("worker-1", "worker-2", "node", "node", "scheduler", "client"))
            if crew.kill(victim):
                kills[victim.partition("-")[0]] += 1
                print(f"{time.monotonic() - start:7.1f} s  {kills.total():3}  killed {victim}", flush=True)
        # What was started last ends undisturbed.
        while (ended := crew.ensure()) is None:
            time.sleep(0.2)
        if ended == 0:
            check_round(work, project, figures)
    finally:
        crew.stop()
    time.sleep(6)
    left = processes_with(marker) - {os.getpid()}
    document = {
        "kills": dict(kills),
        **figures,
        "processes_left": len(left),
        "seconds": round(time.monotonic() - start),
    }
    print(json.dumps(document, indent=2))
    return 1 if figures["wrong"] or figures["twice"] or left else 0


def check_round(work: Path, project: Project, figures: dict[str, int]) -> None:
    """Compare the bundles with single builds, count nodes that finished twice, and remove everything."""
    figures["rounds"] += 1
    for cell in project.cells:
        name = f"{cell.model}-{cell.target}"
        figures["wrong"] += contents(work / "out" / name) != contents(work / "reference" / name)
    keys = [line.split()[0] for line in (work / "journal").read_text().splitlines()]
    figures["nodes"] += len(keys)
    figures["twice"] += len(keys) - len(set(keys))
    print(f"round {figures['rounds']}: {figures}", flush=True)
    (work / "journal").unlink()
    for folder in ("out", "cache"):
        shutil.rmtree(work / folder, ignore_errors=True)


def processes_with(variable: str) -> set[int]:
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
