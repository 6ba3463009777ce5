"""What `bench_quality.py` measures: a file's error at the logits, and a process's time and memory."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from quality_run import read_samples

from edgepack.child import THREADS
from edgepack.graph import read_model
from edgepack.runtime.logits import expose_logits
from edgepack.runtime.runner import Runner

Doubles = npt.NDArray[np.float64]

#: Seconds between two looks at the memory of a process and its children.
_INTERVAL = 0.1


@dataclass(frozen=True)
class Cost:
    """What a process has used.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time of it and its children, in user and system mode.
        peak_mb: Largest memory of it and its children together, MiB; shared pages count once.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float


class Failed(Exception):
    """A process failed; the message has its last line."""


def run(command: Sequence[str]) -> Cost:
    """Run a command and measure it.

    Raises:
        Failed: Its exit code is not 0.
    """
    start, before = time.perf_counter(), os.times()
    # As in the child processes of a build.
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**THREADS, **os.environ}
    )
    peak = _Peak(process.pid)
    _, stderr = process.communicate()
    seconds, after = time.perf_counter() - start, os.times()
    peak.stop()
    if process.returncode:
        lines = [line for line in stderr.splitlines() if line.strip()] or [f"exit code {process.returncode}"]
        raise Failed(lines[-1].strip()[:300])
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(seconds, used, peak.bytes / 2**20)


class _Peak:
    """Watches the memory of a process and its descendants from a thread: proportional set size, Linux only.

    The sum matters, because layers are worked on in parallel processes; a process that starts and ends between two
    looks is missed.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_INTERVAL):
            self.bytes = max(self.bytes, sum(map(_memory, _family(self._pid))))


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(child))]


def _memory(pid: int) -> int:
    """Return the proportional set size of a process in bytes, 0 once it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Case:
    """One model, its evaluation samples and its float logits.

    Args:
        folder: The model's folder.
        classes: Its output is a class, so that there is a top-1.
    """

    def __init__(self, folder: Path, classes: bool) -> None:
        self.folder, self._classes = folder, classes
        self.tflite = (folder / "float.tflite").read_bytes()
        self._names = read_model(self.tflite).input_names()
        self._samples = read_samples(folder / "eval.npz")
        with np.load(folder / "eval.npz") as data:
            self._labels = data.get("labels")
        self._reference = self._logits(self.tflite)

    def measure(self, tflite: bytes) -> dict[str, Any]:
        """Return `snr_db` (worst output), `mean_snr_db` (of all outputs), `top1`, `labels` and `bytes` of a file.

        `top1`, in percent, is that against the labels, against the float model where there are none, and None for a
        model whose output is no class; `labels` says whether there are any.
        """
        outputs = self._logits(tflite)
        ratios = [snr_db(expected, actual) for expected, actual in zip(self._reference, outputs, strict=True)]
        return {"snr_db": min(ratios), "mean_snr_db": float(np.mean(ratios)), **self._row(tflite, outputs)}

    def float_row(self) -> dict[str, Any]:
        """Return what `measure` returns of the float model, without an SNR."""
        return self._row(self.tflite, self._reference)

    def _row(self, tflite: bytes, outputs: list[Doubles]) -> dict[str, Any]:
        top1 = None
        if self._classes:
            right = self._reference[0].argmax(-1) if self._labels is None else self._labels
            top1 = 100 * float(np.mean(outputs[0].argmax(-1) == right))
        return {"top1": top1, "labels": self._labels is not None, "bytes": len(tflite)}

    def _logits(self, tflite: bytes) -> list[Doubles]:
        """Return each output before the last SOFTMAX or LOGISTIC: (samples, ...)."""
        runner = Runner(expose_logits(tflite), threads=os.cpu_count() or 1)
        runs = [runner.run_real([sample[name] for name in self._names]) for sample in self._samples]
        return [np.concatenate(output) for output in zip(*runs, strict=True)]


def snr_db(expected: Doubles, actual: Doubles) -> float:
    """Return the SNR of one output in dB, about each element's mean over the samples; inf when equal.

    What is the same for every sample carries nothing: its energy would hide an error that makes all samples alike. Of
    an output that never changes the energy itself is compared.
    """
    energy = float(np.square(expected).sum())
    signal = float(np.square(expected - expected.mean(axis=0)).sum())
    # Rounding of the mean leaves a trace of a constant output.
    signal = signal if signal > 1e-12 * energy else energy
    noise = float(np.square(expected - actual).sum())
    if noise == 0.0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0.0 and np.isfinite(noise) else -100.0


def run_effort(folder: Path, effort: str, out: Path, *words: str) -> Cost:
    """Run quality_run.py.

    Raises:
        Failed: It fails.
    """
    script = Path(__file__).with_name("quality_run.py")
    return run([sys.executable, str(script), str(folder), effort, str(out), *words])
