"""The HTP simulator runs what Qualcomm's compiler wrote: partitions on the simulator, the ops between on the CPU."""

from pathlib import Path

import builders
import numpy as np
import pytest
import qnn_support

from edgepack.compilers import CompileRequest, CompileResult
from edgepack.compilers.qnn import ACCELERATOR_OP, QnnAotCompiler
from edgepack.compilers.qnn_simulator import QnnSimulator, context_binary, find_simulator
from edgepack.compilers.simulator import simulating_compiler
from edgepack.errors import ToolMissingError, UnfitModelError, UsageError
from edgepack.graph import read_model
from edgepack.graph.edit import unpack
from edgepack.runtime.runner import Runner

ARCHITECTURES = {"SM8350": "v68", "SM8550": "v73", "SM8850": "v81"}


def compiled(model: bytes, soc: str = "SM8550") -> CompileResult:
    result = QnnAotCompiler().compile(CompileRequest(model, "net", "int8", {}, (soc,)))
    assert result.chips == {f"net_Qualcomm_{soc}.tflite": soc}
    return result


def between() -> bytes:
    """A graph whose middle op, FLOOR_MOD, stays on the CPU: two partitions."""
    net = builders.Net()
    x, absolute, rest, y = (net.tensor(name, (1, 8)) for name in ("x", "absolute", "rest", "y"))
    net.op("ABS", [x], [absolute])
    net.op("FLOOR_MOD", [absolute, net.constant("divisor", [-3.0])], [rest])
    net.op("ABS", [rest], [y])
    return net.build([x], [y])


@qnn_support.needs_simulator
@pytest.mark.parametrize("soc", ARCHITECTURES)
def test_a_network_gives_the_cpus_results_up_to_rounding(soc: str, shared_models: Path) -> None:
    """A real int8 network of one partition: over five samples the class is the CPU's, and values are near."""
    model = (shared_models / "mlperf-tiny" / "kws_reference_int8.tflite").read_bytes()
    [data] = compiled(model, soc).files.values()
    simulator, cpu = QnnSimulator(data, ARCHITECTURES[soc]), Runner(model)
    with np.load(shared_models / "mlperf-tiny" / "kws_samples.npz") as file:
        samples = next(file[name] for name in file.files if file[name].ndim > 1)[:5]
    [info] = cpu.inputs
    for sample in samples:
        raw = np.rint(sample.reshape(info.shape) / info.scale + info.zero_point).clip(-128, 127).astype(info.dtype)
        [expected], [actual] = cpu.run([raw]), simulator.run([raw])
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        assert np.argmax(actual) == np.argmax(expected)
        assert np.abs(actual.astype(int) - expected).max() <= 46


@qnn_support.needs_simulator
def test_ops_between_partitions_run_on_the_cpu() -> None:
    """The order of the file is kept, and tensors pass from the simulator to the CPU and back."""
    [data] = compiled(between()).files.values()
    labels = [op.label for op in read_model(data).main.ops]
    assert labels == [ACCELERATOR_OP, "FLOOR_MOD", ACCELERATOR_OP]
    # Halves, because a multiple of 3 is a jump of the result, and half precision does not hit it.
    values = np.array([[0.5, 1.5, -2.5, 3.5, -4.5, 100.5, -200.5, 7.5]], np.float32)
    [result] = QnnSimulator(data, "v73").run([values])
    assert np.allclose(result, np.abs(np.mod(np.abs(values), -3)), atol=1e-3)


@qnn_support.needs_simulator
def test_what_does_not_fit_is_refused() -> None:
    """An input of another shape, and a partition whose bytes are not in the file, are errors of edgepack's."""
    [data] = compiled(between()).files.values()
    with pytest.raises(UnfitModelError, match=r"input 0 of shape \[1, 8\], and a sample has \[1, 9\]"):
        QnnSimulator(data).run([np.zeros((1, 9), np.float32)])
    file, graph = unpack(data), read_model(data).main
    binary, name = context_binary(data, file, graph.ops[0])
    assert (len(binary) > 1000, name) == (True, "qnn_partition_0")
    with pytest.raises(UnfitModelError, match="expected a context binary"):
        context_binary(data[:5000], file, graph.ops[0])
    file.subgraphs[0].operators[0].customOptions = [1, 2, 3]
    with pytest.raises(UnfitModelError, match="options cannot be read"):
        context_binary(data, file, graph.ops[0])
    with pytest.raises(UnfitModelError, match="does not load the partition"):
        QnnSimulator(data.replace(binary[:64], bytes(64)))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each package that the simulator lacks is named, with the command that installs it."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    qnn_support.hide(monkeypatch, "onnx", "onnxruntime_qnn")
    with pytest.raises(ToolMissingError, match="needs onnxruntime-qnn and onnx, which are not installed") as caught:
        find_simulator()
    assert "edgepack[qualcomm]" in caught.value.hint


def test_on_another_machine_the_reason_is_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qualcomm's libraries for the host are for x86-64 Linux only."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ToolMissingError, match="x86-64 Linux"):
        find_simulator()


def test_a_compiler_without_a_simulator_says_so() -> None:
    """Wrappers declare a simulator; the others are refused by name."""
    assert simulating_compiler("qnn").supports_simulation
    with pytest.raises(UsageError, match="'edgetpu' offers no simulator"):
        simulating_compiler("edgetpu")
