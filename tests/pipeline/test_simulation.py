"""`--simulate`: figures of the simulated accelerator beside the CPU's, its outputs in bundles, the op that differs."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qnn_support

from edgepack.bundle.verify import verify
from edgepack.cli.main import run
from edgepack.compilers.simulator import Simulator
from edgepack.graph import read_model
from edgepack.graph.edit import unpack
from edgepack.graph.extract import expose_tensors, extract_ops
from edgepack.pipeline.simulation import measure
from edgepack.pipeline.simulation.figures import DistanceMeter
from edgepack.pipeline.simulation.measure import Array, compare_ops, run_simulation
from edgepack.pipeline.simulation.stage import beyond_rounding
from edgepack.runtime.runner import Runner, model_inputs
from edgepack.samples import load_samples
from edgepack.samples.specs import input_specs

REPOSITORY = Path(__file__).resolve().parents[2]
FLOAT = REPOSITORY / "tests" / "data" / "digits_float.tflite"
EXAMPLES = REPOSITORY / "examples" / "digits"
KWS = "mlperf-tiny/kws_reference_int8.tflite"


class StandIn:
    """A simulator that runs the file on the CPU op by op, and moves one op's result.

    Args:
        tflite: The file.
        wrong: Index of the op whose result is moved by `steps`; -1 for none.
    """

    def __init__(self, tflite: bytes, wrong: int = -1, steps: int = 5) -> None:
        self._graph = read_model(tflite).main
        file = unpack(tflite)
        self._parts = [extract_ops(file, self._graph, [op.index]) for op in self._graph.ops]
        self._runners = [Runner(part.tflite, plain=True) for part in self._parts]
        self._wrong, self._steps = wrong, steps

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        values = dict(zip(self._graph.inputs, arrays, strict=True))
        for number, (part, runner) in enumerate(zip(self._parts, self._runners, strict=True)):
            results = runner.run([values[index] for index in part.inputs])
            if number == self._wrong:
                results[0] = np.clip(results[0].astype(int) + self._steps, -128, 127).astype(results[0].dtype)
            values.update(zip(part.outputs, results, strict=True))
        return [values[index] for index in self._graph.outputs]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a compiler wrapper return the stand-in of the test's choice as its simulator."""

    def install(simulator: Simulator) -> None:
        class Wrapper:
            def load_simulator(self, compiled: bytes, architecture: str) -> Simulator:
                return simulator

        monkeypatch.setattr(measure, "simulating_compiler", lambda name: Wrapper())

    return install


def inputs_of(tflite: bytes, count: int = 2) -> list[list[Array]]:
    generator, infos = np.random.default_rng(1), model_inputs(read_model(tflite))
    return [[generator.integers(-128, 127, i.shape, i.dtype, endpoint=True) for i in infos] for _ in range(count)]


@pytest.mark.parametrize("wrong", [0, 3, 11])
def test_the_op_that_differs_is_named_alone(wrong: int, stand_in: Any, shared_models: Path) -> None:
    """One op that is off by five steps is the only one named, although every tensor behind it is another as well."""
    model = (shared_models / KWS).read_bytes()
    graph = read_model(model).main
    exposed = expose_tensors(model, [tensor for op in graph.ops for tensor in op.outputs])
    stand_in(StandIn(exposed, wrong))
    results, found = compare_ops("", b"", "", exposed, inputs_of(model))
    assert [(op.index, op.op, op.distance.steps) for op in found] == [(wrong, graph.ops[wrong].label, 5)]
    assert beyond_rounding(found[0].distance, graph.ops[wrong].outputs, read_model(model))
    assert len(results) == 2
    stand_in(StandIn(exposed))
    assert compare_ops("", b"", "", exposed, inputs_of(model))[1] == ()


def test_both_are_measured_on_the_same_samples(stand_in: Any, shared_models: Path) -> None:
    """The CPU's figures are those of the samples that the simulator ran; with no time left one sample is run."""
    model = (shared_models / KWS).read_bytes()
    source = str(shared_models / "mlperf-tiny" / "kws_samples.npz")
    samples = load_samples(source, input_specs(model)).limited(20)
    golden = inputs_of(model)
    stand_in(StandIn(model))
    same = run_simulation("", b"", "", model, model, samples, golden)
    assert (same.samples, same.planned, len(same.golden)) == (20, 20, 2)
    assert same.quality is not None and same.cpu is not None
    # The stand-in has the built-in kernels, the CPU XNNPACK: they differ by steps, and agree in the class.
    assert same.cpu.snr_db is None
    assert same.distance.steps > 0
    stand_in(StandIn(model, wrong=11, steps=60))
    moved = run_simulation("", b"", "", model, model, samples, golden)
    assert moved.cpu == same.cpu
    assert same.same_class == 100.0
    assert moved.quality is not None
    assert moved.distance.steps > 20 > same.distance.steps
    hurried = run_simulation("", b"", "", model, model, samples, golden, seconds=0.0)
    assert (hurried.samples, hurried.planned) == (1, 20)
    alone = run_simulation("", b"", "", model, model, None, golden)
    assert (alone.samples, alone.quality, len(alone.golden)) == (0, None, 2)


def test_distances_count_in_steps_or_fractions() -> None:
    """Integers with a scale count in steps, floats as a fraction of the largest value, equal values as equal."""
    outputs = Runner(FLOAT.read_bytes()).outputs
    meter = DistanceMeter(outputs)
    values = np.arange(10, dtype=np.float32).reshape(1, 10)
    meter.add([values], [values])
    assert str(meter.result()) == "equal to the CPU's"
    changed = values.copy()
    changed[0, 3] += 0.09
    meter.add([values], [changed])
    result = meter.result()
    assert (result.relative, result.differing, result.steps) == (pytest.approx(0.01, rel=1e-4), 5.0, 0)
    both = np.full((1, 10), np.nan, np.float32)
    meter.add([both], [both])
    assert meter.result().relative == result.relative
    meter.add([values], [np.where(values > 8, np.inf, values).astype(np.float32)])
    assert json.dumps(meter.result().to_json(), allow_nan=False)
    assert meter.result().relative == 1e6


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("build", ["-t", "edgetpu"], "applies to targets whose compiler has a simulator of the accelerator only"),
        ("compare", ["-t", "edgetpu"], "applies to targets whose compiler has a simulator of the accelerator only"),
        ("build", ["-t", "cpu", "-t", "android-gpu"], "applies to targets whose compiler has a simulator"),
        ("build", ["-t", "hexagon"], "no chip is named"),
        ("compare", ["-t", "hexagon"], "no chip is named"),
        ("build", ["-t", "hexagon", "--soc", "SM8550", "--compile", "never"], "--compile never turns it off"),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_any_work(
    command: str, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The targets decide whether there is a simulator, and a file has to be compiled for a chip."""
    out = ["-o", str(tmp_path)] if command == "build" else []
    assert run([command, str(FLOAT), *words, "--simulate", *out]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["build", "compare"])
def test_a_missing_simulator_has_its_exit_code(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the packages the command ends before any work, and names them."""
    qnn_support.hide(monkeypatch, "onnxruntime_qnn")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    code = run([command, str(FLOAT), "-t", "hexagon", "--soc", "SM8550", "--simulate", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (code, document["error"]["kind"]) == (5, "tool-missing")
    assert "onnxruntime-qnn" in document["error"]["message"]


@pytest.mark.slow
@qnn_support.needs_simulator
def test_a_build_carries_the_simulators_outputs(
    warm_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures beside the CPU's in JSON, manifest and README, vectors that `verify` compares, equal bytes twice."""
    words = ["--samples", str(EXAMPLES / "samples.npz"), "--eval", str(EXAMPLES / "eval.npz"), "--labels"]
    command = ["build", str(FLOAT), "-t", "hexagon", "-t", "cpu", "--soc", "SM8550", "--simulate", *words]
    command += [str(EXAMPLES / "labels.txt"), "--simulate-seconds", "2"]
    assert run([*command, "-o", str(tmp_path / "a"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert any("--simulate applies to" in note and "cpu" in note for note in document["notes"])
    hexagon, cpu = document["results"]
    assert cpu["simulation"] == []
    [entry] = hexagon["simulation"]
    assert (entry["chip"], entry["architecture"]) == ("SM8550", "v73")
    assert "QAIRT" in entry["version"]
    assert "simulation" in entry["caveat"]
    assert 10 <= entry["samples"] < hexagon["quality"]["samples"]
    for figures in (entry["quality"], entry["cpu"]):
        assert figures["top1"] >= figures["top1_float"] - 10
    assert entry["quality"]["snr_db"] == pytest.approx(entry["cpu"]["snr_db"], abs=2.0)
    bundle = Path(hexagon["bundle"])
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["simulation"] == [entry]
    readme = (bundle / "README.md").read_text()
    assert "| simulated |" in readme
    assert entry["caveat"] in readme
    index = json.loads((bundle / "golden" / "index.json").read_text())
    [simulated] = index["simulated"]
    assert len(simulated["cases"]) == len(index["cases"])
    assert index["tolerance"]["accelerator"]["steps"] >= entry["difference"]["steps"]
    result = verify(bundle)
    assert result.problems == ()
    assert any("not simulated again" in note for note in result.notes)
    _tampered(bundle, simulated["cases"][0]["outputs"][0]["file"])
    assert run([*command, "-o", str(tmp_path / "b"), "--json"]) == 0
    capsys.readouterr()
    for name in ("manifest.json", "golden/index.json"):
        assert (tmp_path / "b" / bundle.name / name).read_bytes() == (bundle / name).read_bytes()


def _tampered(bundle: Path, name: str) -> None:
    """Outputs that are far from the CPU's are found, also where the manifest has their hash."""
    path = bundle / "golden" / name
    before, manifest = path.read_bytes(), (bundle / "manifest.json").read_bytes()
    path.write_bytes(bytes(byte ^ 0x40 for byte in before))
    assert any(name in problem.path for problem in verify(bundle).problems)
    document = json.loads(manifest)
    document["files"][f"golden/{name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(document))
    assert any("differs from the CPU's by" in problem.what for problem in verify(bundle).problems)
    path.write_bytes(before)
    (bundle / "manifest.json").write_bytes(manifest)


@pytest.mark.slow
@qnn_support.needs_simulator
def test_compare_simulates_each_scheme(warm_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each scheme that a build compiles has figures, in JSON and as text."""
    words = ["--samples", str(EXAMPLES / "samples.npz"), "--eval", str(EXAMPLES / "eval.npz")]
    command = ["compare", str(FLOAT), "-t", "hexagon", "--soc", "SM8550", "--simulate", "--simulate-seconds", "1"]
    assert run([*command, *words, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    simulated = {entry["scheme"]: entry["simulation"] for entry in results if entry["simulation"]}
    assert set(simulated) == {"int8"}
    [entry] = simulated["int8"]
    assert entry["samples"] >= 10
    assert entry["quality"]["agreement"] >= 90
    assert run([*command, *words]) == 0
    assert "Qualcomm's HTP simulator, QAIRT" in " ".join(capsys.readouterr().out.split())
