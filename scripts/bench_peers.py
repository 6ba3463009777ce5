"""Compare int8 files with those of ONNX Runtime, NNCF and AIMET: same float models, same calibration samples.

The models are those of `scripts/bench quality --work DIR`: DIR/NAME has float.tflite, int8.tflite (TFLiteConverter),
cal.npz and eval.npz. tf2onnx converts the float model, and the conversion is compared with it before anything else.
Every tool quantizes weights to int8 per channel and activations to int8 per tensor, in a process of its own, whose
processor time and peak memory include its imports. SNR is that of the logits about each element's mean, of the worst
output, on the evaluation samples. ONNX files are computed in float between their Q and DQ nodes, so that no kernel of
ONNX Runtime adds an error of its own; accumulators and biases, which TFLite rounds, are float there as well.

The tools are those of scripts/requirements-peers.txt (several GB with PyTorch and its CUDA packages, Linux on x86-64),
in an environment of their own:

    python3.11 -m venv peers && peers/bin/pip install -r scripts/requirements-peers.txt
    scripts/bench peers --work DIR --peers-python peers/bin/python

A tool that is not installed there is named and left out.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import REPOSITORY, work_folder, write_figures
from peer_quantizers import CONFIGURATIONS, PACKAGES

sys.path.insert(0, str(REPOSITORY))

from edgepack.graph import read_model
from edgepack.graph.edit import unique_names
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.steps import EFFORTS, improve
from edgepack.quantize.quantizer import quantize

Row = dict[str, Any]

#: SNR (dB) below which an ONNX file is another model than the .tflite: float32 in another order leaves 100 dB and more,
#: a lost bias 34 dB (keyword spotting by tf2onnx 1.17).
SAME_MODEL = 80.0


class Failed(Exception):
    """A process failed; the message has the end of what it said."""


class Case:
    """One model, its samples and its float logits.

    Args:
        source: Folder with float.tflite, int8.tflite, cal.npz and eval.npz.
        work: Folder for the ONNX files and the samples by position of the input.
    """

    def __init__(self, source: Path, work: Path) -> None:
        self.source, self.work = source, work
        self.tflite = (source / "float.tflite").read_bytes()
        self._names = read_model(self.tflite).input_names()
        self.calibration, self._evaluation = (self._read(name) for name in ("cal", "eval"))
        self._reference = logits(self.tflite, self._evaluation)

    def _read(self, name: str) -> list[dict[str, np.ndarray]]:
        """Return the samples of an .npz, and write them by position of the input into the work folder."""
        with np.load(self.source / f"{name}.npz") as data:
            arrays = {key: data[key] for key in self._names}
        np.savez(self.work / f"{name}.npz", **{str(i): array for i, array in enumerate(arrays.values())})
        count = len(arrays[self._names[0]])
        return [{key: array[i : i + 1] for key, array in arrays.items()} for i in range(count)]

    def measure(self, tflite: bytes) -> Row:
        """Return SNR and size of a .tflite."""
        names = read_model(tflite).input_names()
        renamed = [dict(zip(names, sample.values(), strict=True)) for sample in self._evaluation]
        return {"snr_db": snr_db(self._reference, logits(tflite, renamed)), "bytes": len(tflite)}

    def measure_onnx(self, path: Path, python: str) -> Row:
        """Return SNR and size of an ONNX file.

        Raises:
            Failed: ONNX Runtime does not run it, or its outputs have other shapes.
        """
        out = self.work / "outputs.npz"
        run_peer(python, "run", path, self.work / "eval.npz", out)
        with np.load(out) as data:
            arrays = [data[str(i)].astype(np.float64) for i in range(len(data.files))]
        try:
            outputs = [
                [array[i].reshape(one.shape) for array, one in zip(arrays, expected, strict=True)]
                for i, expected in enumerate(self._reference)
            ]
        except ValueError as error:
            raise Failed(f"the outputs differ in shape or number: {error}") from error
        return {"snr_db": snr_db(self._reference, outputs), "bytes": path.stat().st_size}


def run_peer(python: str, *words: str | Path) -> dict[str, Any]:
    """Run peer_quantizers.py and return what it prints.

    Raises:
        Failed: Its exit code is not 0.
    """
    command = [python, str(REPOSITORY / "scripts" / "peer_quantizers.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise Failed((lines or [f"exit code {done.returncode}"])[-1][:300])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_effort(source: Path, effort: str, out: Path) -> None:
    """Write the int8 file of one effort, and its cost beside it."""
    rule = SchemeRule("int8", "INT8")
    tflite = unique_names((source / "float.tflite").read_bytes())
    with np.load(source / "cal.npz") as data:
        arrays = {name: data[name] for name in read_model(tflite).input_names()}
    count = len(next(iter(arrays.values())))
    samples = [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(count)]
    improved = improve(tflite, rule, samples, effort)
    out.write_bytes(quantize(improved.tflite, rule, improved.ranges).tflite)
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    peak = max(own.ru_maxrss, children.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
    out.with_suffix(".json").write_text(json.dumps({"cpu_seconds": cpu, "peak_bytes": peak}))


def measure_effort(case: Case, effort: str) -> Row:
    """Measure one effort in a process of its own; `error` says why it failed."""
    out = case.work / f"{effort}.tflite"
    command = [sys.executable, __file__, "--run-effort", str(case.source), effort, str(out)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"error": ([*done.stderr.splitlines()] or [f"exit code {done.returncode}"])[-1][:300]}
    cost = json.loads(out.with_suffix(".json").read_text())
    return {"seconds": time.perf_counter() - start, **cost, **case.measure(out.read_bytes())}


def measure_peer(case: Case, python: str, configuration: str, iterations: int) -> Row:
    """Measure one configuration of a tool; `error` says why it failed."""
    out = case.work / f"{configuration.replace(' ', '_').replace(',', '')}.onnx"
    words = [configuration, case.work / "float.onnx", case.work / "cal.npz", out]
    if "adaround" in configuration:
        words.append(str(iterations))
    start = time.perf_counter()
    try:
        cost = run_peer(python, "quantize", *words)
        return {"seconds": time.perf_counter() - start, **cost, **case.measure_onnx(out, python)}
    except Failed as error:
        return {"error": str(error)}


def bench(case: Case, python: str, configurations: Sequence[str], efforts: Sequence[str], iterations: int) -> Any:
    """Yield (name, row) of TFLiteConverter's file, of each effort and of each configuration of the tools."""
    yield "TFLiteConverter", case.measure((case.source / "int8.tflite").read_bytes())
    for effort in efforts:
        yield f"edgepack {effort}", measure_effort(case, effort)
    if not configurations:
        return
    try:
        run_peer(python, "convert", case.source / "float.tflite", case.work / "float.onnx")
        ratio = case.measure_onnx(case.work / "float.onnx", python)["snr_db"]
    except Failed as error:
        yield "tf2onnx", {"error": str(error)}
        return
    if ratio < SAME_MODEL:
        yield "tf2onnx", {"error": f"the ONNX file computes something else: {ratio:.1f} dB to the float .tflite"}
        return
    for configuration in configurations:
        yield configuration, measure_peer(case, python, configuration, iterations)


def show(rows: Iterator[tuple[str, Row]]) -> dict[str, Row]:
    """Print one model's rows as they come and return them."""
    shown: dict[str, Row] = {}
    for name, row in rows:
        shown[name] = row
        if "error" in row:
            print(f"  {name:<48}failed: {row['error']}", flush=True)
            continue
        gain = row["snr_db"] - shown["TFLiteConverter"]["snr_db"]
        cost = f"{row['cpu_seconds']:>8.0f}{row['peak_bytes'] / 2**20:>8.0f}" if "cpu_seconds" in row else ""
        print(f"  {name:<48}{row['snr_db']:>8.2f}{gain:>+8.2f}{row['bytes']:>10}{cost}", flush=True)
    return shown


def chosen(python: str, wanted: Sequence[str] | None) -> list[str]:
    """Return the configurations whose tool is installed, and print the tools with versions and those left out."""
    versions = run_peer(python, "installed")
    print("tools: " + (", ".join(f"{name} {number}" for name, number in versions.items()) or "none"))
    missing = [name for name in ("tf2onnx", "tensorflow", "onnx") if name not in versions]
    tools = {tool for tool, package in PACKAGES.items() if package in versions and not missing}
    for tool in sorted(PACKAGES.keys() - tools):
        reason = f"{', '.join(missing)} missing" if missing else f"{PACKAGES[tool]} is not installed"
        print(f"skipped: {tool} ({reason} in {python}; see the head of scripts/bench_peers.py)")
    return [name for name in wanted or CONFIGURATIONS if name.split()[0] in tools]


def main() -> None:
    """Run the benchmark."""
    if sys.argv[1:2] == ["--run-effort"]:
        run_effort(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
        return
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", action="append", metavar="NAME", help="model to measure; default: all of DIR")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    options.add_argument("--work", type=Path, metavar="DIR", required=True, help="work folder of scripts/bench quality")
    options.add_argument("--peers-python", default=sys.executable, metavar="PYTHON", help="interpreter with the tools")
    options.add_argument("--effort", choices=EFFORTS, action="append", help="effort of edgepack; default: all")
    options.add_argument("--configuration", choices=CONFIGURATIONS, action="append", help="of a tool; default: all")
    options.add_argument(
        "--iterations", type=int, default=10_000, metavar="N", help="of AdaRound per layer; default: AIMET's 10,000"
    )
    arguments = options.parse_args()
    models = arguments.model or sorted(path.parent.name for path in arguments.work.glob("*/int8.tflite"))
    if not models:
        sys.exit(f"{arguments.work} has no models: run scripts/bench quality --work {arguments.work} first")
    try:
        configurations = chosen(arguments.peers_python, arguments.configuration)
    except (Failed, OSError) as error:
        sys.exit(f"{arguments.peers_python} does not run scripts/peer_quantizers.py: {error}")
    figures = {}
    for name in models:
        print(f"\n{name:<50}{'SNR dB':>8}{'gain':>8}{'bytes':>10}{'CPU s':>8}{'MiB':>8}")
        with work_folder(None) as work:
            case = Case(arguments.work / name, work)
            efforts = arguments.effort or EFFORTS
            figures[name] = show(bench(case, arguments.peers_python, configurations, efforts, arguments.iterations))
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
