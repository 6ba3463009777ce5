"""A project on this machine and on a local Dask cluster: time, work done twice, memory, and the plan of a large one.

    scripts/bench matrix [--models N] [--keras N] [--json FILE] [--only local-1,local-2,dask-2,plan,scheduler]

Small networks (two convolutions and a dense layer; weights are random) are built for four targets, with 50 random
samples. Each way starts with an empty cache. CPU seconds count the run and all its processes; on a busy machine they
say more than wall time. Memory is the most that all processes of a run hold together, looked at ten times a second.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import numpy as np  # noqa: E402
from builders import Net, schema  # noqa: E402

from edgepack.limits import memory_of  # noqa: E402
from edgepack.pipeline.options import BuildOptions  # noqa: E402
from edgepack.project.cells import Cell, Project  # noqa: E402
from edgepack.project.parts import Machine  # noqa: E402
from edgepack.project.plan import Facts, make_plan  # noqa: E402

DIGITS = REPOSITORY / "examples" / "digits"
TARGETS = ("cpu", "edgetpu", "hexagon", "android-gpu")

_RUN = """
import json, pickle, resource, sys, time
from edgepack.project.matrix import build_matrix
if __name__ == "__main__":
    project, way, jobs = pickle.loads(open(sys.argv[1], "rb").read()), sys.argv[2], int(sys.argv[3])
    start = time.perf_counter()
    executor = None
    if way == "dask":
        from edgepack.project.cluster import DaskExecutor
        executor = DaskExecutor("local", jobs)
    result = build_matrix(project, jobs=jobs, executor=executor)
    if executor is not None:
        executor.close()
    states = [entry.state for entry in result.results]
    print(json.dumps({
        "seconds": time.perf_counter() - start, "executed": result.executed, "nodes": len(result.plan.nodes),
        "states": {state: states.count(state) for state in set(states)},
        "errors": [entry.error.message for entry in result.results if entry.error is not None],
    }))
"""


def network(seed: int) -> bytes:
    """Return a float network of (1, 16, 16, 3) to (1, 10)."""
    net, width = Net(seed), 8 + 4 * (seed % 4)
    x = net.tensor("x", (1, 16, 16, 3))
    a = net.conv(x, "conv", (1, 16, 16, 3), width)
    b = net.conv(a, "conv2", (1, 16, 16, width), width)
    c = net.tensor("pool", (1, 1, 1, width))
    net.op("AVERAGE_POOL_2D", [b], [c], strideW=16, strideH=16, filterWidth=16, filterHeight=16)
    d = net.tensor("dense", (1, 10))
    net.op("FULLY_CONNECTED", [c, net.weights("fc/kernel", 10, width), net.weights("fc/bias", 10)], [d])
    e = net.tensor("probabilities", (1, 10))
    net.op("SOFTMAX", [d], [e], beta=1.0)
    assert schema() is not None
    return net.build([x], [e], (["image"], ["classes"]))


def make_project(work: Path, models: int, keras: int) -> Project:
    np.savez(work / "samples.npz", x=np.random.default_rng(0).random((50, 16, 16, 3), np.float32))
    cells = []
    for number in range(models):
        path = work / f"net-{number}.tflite"
        path.write_bytes(network(number))
        options = BuildOptions(out=work / "out", samples=str(work / "samples.npz"))
        cells += [Cell(f"net-{number}", path, target, "", options) for target in TARGETS]
    for number in range(keras):
        # The comment of the archive makes it another file, which is converted on its own.
        path = work / f"keras-{number}.keras"
        path.write_bytes((DIGITS / "digits.keras").read_bytes())
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = str(number).encode()
        options = BuildOptions(out=work / "out", samples=str(DIGITS / "samples.npz"))
        cells += [Cell(path.stem, path, target, "", options) for target in TARGETS]
    return Project(work / "edgepack.toml", "zoo", work / "out", "", tuple(cells))


class Memory:
    """The most that the processes with a variable in their environment hold together."""

    def __init__(self, variable: str) -> None:
        self._variable = variable.encode()
        self._stop = threading.Event()
        self.most = 0
        self._known: dict[int, bool] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.most = max(self.most, sum(memory_of(process) for process in self._processes()))

    def _processes(self) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            process = int(folder.name)
            if process not in self._known:
                try:
                    self._known[process] = self._variable in (folder / "environ").read_bytes()
                except OSError:
                    continue
            if self._known[process]:
                found.append(process)
        return found

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.most


def run(work: Path, way: str, jobs: int) -> dict[str, Any]:
    """Build the project once in a process of its own."""
    name = f"{way}-{jobs}-{time.monotonic_ns()}"
    environment = {
        **os.environ, "EDGEPACK_CACHE_DIR": str(work / "cache"), "EDGEPACK_NODE_JOURNAL": str(work / "journal"),
        "EDGEPACK_BENCH": name, "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    (work / "run.py").write_text(_RUN)
    memory = Memory(f"EDGEPACK_BENCH={name}")
    before, load, start = os.times(), os.getloadavg()[0], time.perf_counter()
    command = [sys.executable, str(work / "run.py"), str(work / "project.pickle"), way, str(jobs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        **figures, "way": way, "jobs": jobs, "process_seconds": time.perf_counter() - start, "cpu_seconds": cpu,
        "memory_mb": memory.stop() / 1e6, "load": load,
    }  # fmt: skip


def bench_way(work: Path, way: str, jobs: int) -> list[dict[str, Any]]:
    """Build with an empty cache, and once more with everything in it."""
    for name in ("cache", "out"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "journal").unlink(missing_ok=True)
    first = run(work, way, jobs)
    keys = [line.split()[0] for line in (work / "journal").read_text().splitlines()]
    first["twice"] = len(keys) - len(set(keys))
    steps = [path.name for path in (work / "cache").iterdir() if not path.name.startswith(".")]
    first["entries"] = len(steps)
    return [first, run(work, way, jobs)]


_PLAN = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
from bench_matrix import large_project
from edgepack.project.plan import make_plan
before = resource.getrusage(resource.RUSAGE_SELF)
project, facts = large_project(1000, 8)
start, cpu = time.perf_counter(), time.process_time()
plan = make_plan(project, facts)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps({"cells": len(plan.cells), "nodes": len(plan.nodes), "seconds": seconds, "cpu_seconds": cpu,
                  "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}))
"""


def large_project(models: int, cells: int) -> tuple[Project, Facts]:
    """Return a project of names only: no file exists."""
    socs = ("", "", "", "SM8550", "SM8650", "SM8450", "SM8750", "SM8350")[:cells]
    targets = ("cpu", "edgetpu", "android-gpu", *["hexagon"] * 5)[:cells]
    described = []
    for number in range(models):
        path = Path(f"models/net-{number}.keras")
        for target, soc in zip(targets, socs, strict=True):
            options = BuildOptions(out=Path("out") / soc, samples="samples.npz")
            described.append(Cell(f"net-{number}", path, target, soc, options))
    project = Project(Path("edgepack.toml"), "zoo", Path("out"), "", tuple(described))
    paths = {cell.path for cell in described}
    machine = Machine("1", {f"package-{number}": "1.0" for number in range(16)}, dict.fromkeys(targets, "p"), {})
    facts = Facts(
        digests={path: f"{hash(path):064x}" for path in paths},
        sizes=dict.fromkeys(paths, 10**6),
        conversions={cell.id: f"convert-{cell.model}" for cell in described},
        profiles={cell.id: cell.target for cell in described},
        machine=machine,
    )
    assert make_plan is not None
    return project, facts


def bench_plan() -> dict[str, Any]:
    command = [sys.executable, "-c", _PLAN, str(REPOSITORY / "scripts")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return {"way": "plan", "load": os.getloadavg()[0], **json.loads(done.stdout)}


_SCHEDULER = """
import json, time
from distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        with Client(cluster) as client:
            client.gather(client.map(lambda number: number, range(10)))
            start = time.perf_counter()
            client.gather(client.map(lambda number: number + 1, range(3000)))
            seconds = time.perf_counter() - start
    print(json.dumps({"tasks": 3000, "seconds": seconds, "tasks_per_second": 3000 / seconds}))
"""


def bench_scheduler(work: Path) -> dict[str, Any]:
    """Return how many empty tasks a local scheduler and two workers end in a second."""
    (work / "scheduler.py").write_text(_SCHEDULER)
    done = subprocess.run([sys.executable, str(work / "scheduler.py")], capture_output=True, text=True, check=True)
    return {"way": "scheduler", "load": os.getloadavg()[0], **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--keras", type=int, default=0, help="models beside them that TensorFlow converts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="plan,scheduler,local-1,local-2,dask-2")
    options = parser.parse_args()
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        import pickle

        (work / "project.pickle").write_bytes(pickle.dumps(make_project(work, options.models, options.keras)))
        for part in options.only.split(","):
            way, _, jobs = part.partition("-")
            if way == "plan":
                found = [bench_plan()]
            elif way == "scheduler":
                found = [bench_scheduler(work)]
            else:
                found = bench_way(work, way, int(jobs))
            for entry in found:
                figures.append(entry)
                print(json.dumps(entry), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
