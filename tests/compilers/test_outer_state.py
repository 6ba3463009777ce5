"""Qualcomm's compiler gets a model without its variables, and the compiled file has them: its state is the model's."""

from dataclasses import replace

import numpy as np
import pytest
import state_models
from qnn_support import needs_compiler, needs_simulator

from edgepack.compat import check
from edgepack.compilers import CompileRequest, CompileResult, compare_placements, compile_model
from edgepack.compilers.qnn import ACCELERATOR_OP, QnnAotCompiler
from edgepack.compilers.qnn_simulator import QnnSimulator
from edgepack.errors import CompilerError
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.graph.appended import bytecode
from edgepack.graph.edit import pack, unpack
from edgepack.profiles import get_target
from edgepack.repair import explicit_states
from edgepack.runtime.runner import Runner

HEXAGON = get_target("hexagon")
#: A memory, and fused ops with their state in variables.
MODELS = {
    "memory": state_models.memory(),
    "svdf": explicit_states(state_models.svdf())[0],
    "lstm": explicit_states(state_models.fused_lstm(units=8, steps=1))[0],
}


def request(model: bytes, soc: str = "SM8550") -> CompileRequest:
    return CompileRequest(model, "net", "float16", {}, (soc,), external_state=HEXAGON.external_state)


def compiled(name: str) -> CompileResult:
    return compile_model(QnnAotCompiler(), request(MODELS[name]), 120)


@needs_compiler
@pytest.mark.parametrize("name", MODELS)
def test_all_but_the_state_is_one_compiled_op(name: str) -> None:
    """Inputs, outputs and signature are the model's, the file is reproducible, and the check placed every op so."""
    source, result = read_model(MODELS[name]), compiled(name)
    assert result.files == compiled(name).files
    [data] = result.files.values()
    model = read_model(data)
    assert model.state == "resource-variables"
    assert (model.input_names(), model.output_names()) == (source.input_names(), source.output_names())
    labels = [op.label for op in model.main.ops]
    assert labels.count(ACCELERATOR_OP) == 1
    assert {*labels} == {ACCELERATOR_OP, "ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE"}
    report = check(source, HEXAGON, soc="SM8550")
    assert result.placements is not None
    assert compare_placements(report.ops, result.placements) == ()
    hosted = {op.op for op in report.ops if op.placement is Placement.HOST}
    assert hosted == {"ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE"}
    assert {r.code for op in report.ops for r in op.reasons} == {"state-on-host"}
    figures = result.figures["SM8550"]
    assert (figures["bytes"], figures["ops_total"]) == (len(data), len(source.main.ops))


@needs_compiler
def test_the_context_binary_moves_with_the_flatbuffer() -> None:
    """Offset and size in the compiled op's options name the same bytes as before the variables were put back."""
    [data] = compiled("svdf").files.values()
    [op] = [op for op in unpack(data).subgraphs[0].operators if op.customOptions is not None]
    offset, size, name = bytecode(op.customOptions)
    assert (offset % 64, offset + size, name) == (0, len(data), "qnn_partition_0")


@needs_simulator
@pytest.mark.parametrize("name", MODELS)
def test_a_stream_on_the_simulator_is_the_cpus(name: str) -> None:
    """Over 12 runs with a reset in between, up to half precision, which errors of the state add to."""
    [data] = compiled(name).files.values()
    cpu, simulator = Runner(MODELS[name]), QnnSimulator(data, "v73")
    random = np.random.default_rng(0)
    [info] = cpu.inputs
    for number in range(12):
        value = random.normal(size=info.shape).astype(np.float32)
        keep = number not in {0, 7}
        [expected], [got] = cpu.run([value], keep_state=keep), simulator.run([value], keep_state=keep)
        np.testing.assert_allclose(got, expected, rtol=0, atol=0.02 * np.abs(expected).max())


class Losing:
    """A compiler that returns the model with other names of its tensors."""

    id = "losing"
    supports_segments = supports_simulation = False

    def compile(self, request: CompileRequest, timeout: float = 1.0) -> CompileResult:
        file = unpack(request.model)
        for tensor in file.subgraphs[0].tensors:
            tensor.name = b"renamed"
        return CompileResult("compiled", "Losing", files={"net.tflite": pack(file)})


def test_a_file_without_the_state_is_an_error() -> None:
    """Nothing is shipped whose state would not change."""
    with pytest.raises(CompilerError, match="could not be put back"):
        compile_model(Losing(), request(MODELS["memory"]), 1)  # type: ignore[arg-type]
    # A compiler that takes variables gets them.
    taken = compile_model(Losing(), replace(request(MODELS["memory"]), external_state=False), 1)  # type: ignore[arg-type]
    assert any(op.name == "READ_VARIABLE" for op in read_model(taken.files["net.tflite"]).main.ops)


def test_a_state_that_must_stay_is_foretold() -> None:
    """A variable that is an output of the model: the check names it, and what to do."""
    file = unpack(MODELS["memory"])
    main = file.subgraphs[0]
    main.outputs = np.array([*main.outputs, main.operators[1].outputs[0]], np.int32)
    report = check(read_model(pack(file)), HEXAGON, soc="SM8550")
    reasons = [reason for op in report.ops for reason in op.reasons if reason.code == "compile-fails"]
    assert "a variable is an input or an output of the model" in reasons[0].message
    assert "make the state an input and an output" in reasons[0].fix
    assert report.partitions == 0


def test_variable_tensors_are_foretold() -> None:
    """A fused LSTM of several steps, without the rewrites of a build."""
    report = check(read_model(state_models.fused_lstm()), HEXAGON, soc="SM8550")
    assert any(reason.code == "compile-fails" for op in report.ops for reason in op.reasons)
