"""LiteRT's compiler for Qualcomm succeeds only with a readable file; failures and missing parts are named."""

import shutil
import sys
from pathlib import Path

import builders
import edgetpu_standin
import pytest
import qnn_support
import state_models

from edgepack.compilers import CompileRequest, compiler_ids, qnn_sdk
from edgepack.compilers.qnn import ACCELERATOR_OP, QnnAotCompiler, interpret, known_socs
from edgepack.compilers.qnn_log import parse
from edgepack.compilers.qnn_sdk import QnnRun
from edgepack.errors import CompilerError, ToolMissingError, UsageError
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.tools import Completed

#: Log of a run in which 12 of 13 ops were selected, shortened.
TAKEN = """INFO: [compiler_plugin.cc:948] Applying plugin with SDK version: v2.51.0.260929181845
INFO: [compiler_plugin.cc:742] Partitioned subgraph<0>, selected 12 ops, from a total of 13 ops. resulted in 1 partitions.
"""  # noqa: E501


@pytest.fixture
def model(shared_models: Path) -> bytes:
    return (shared_models / "mlperf-tiny" / "kws_reference_int8.tflite").read_bytes()


@pytest.fixture
def dispatched(model: bytes) -> bytes:
    """The model as the compiler would write it: all but the last op in one dispatch op."""
    cut = edgetpu_standin.cut(model, 12)
    return cut.replace(b"\x11\0\0\0edgetpu-custom-op\0", b"\x0b\0\0\0DISPATCH_OP\0".ljust(22, b"\0"))


def request(model: bytes, *socs: str) -> CompileRequest:
    return CompileRequest(model, "kws", "int8", {}, socs)


def run(data: bytes, stderr: str = TAKEN, stdout: str = "", exit_code: int = 0) -> QnnRun:
    return QnnRun(data, parse(stdout, stderr, exit_code), Completed(exit_code, stdout, stderr))


def test_known_chips_are_those_of_the_installed_litert() -> None:
    """The list of SoCs comes from the installed LiteRT."""
    assert "SM8550" in known_socs()
    assert "ALL" not in known_socs()
    assert "qnn" in compiler_ids()


def test_without_the_libraries_it_is_skipped_and_leaves_nothing(
    model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing packages are named, and no file is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    qnn_support.hide(monkeypatch, "onnxruntime_qnn", "ai_edge_litert_sdk_qualcomm")
    result = QnnAotCompiler().compile(request(model, "SM8550", "SM8650"), timeout=120)
    assert result.status == "skipped"
    assert "onnxruntime-qnn is not installed" in result.reason
    assert "ai-edge-litert-sdk-qualcomm is not installed" in result.reason
    assert "edgepack[qualcomm]" in result.hint
    assert result.files == {}
    assert list(tmp_path.iterdir()) == []
    info = QnnAotCompiler().find()
    assert not info.found
    assert "onnxruntime-qnn is not installed" in info.problem


def test_no_chip_is_skipped_with_the_choices(model: bytes) -> None:
    """Without a SoC nothing is compiled ahead of time, and the reason says what happens instead."""
    result = QnnAotCompiler().compile(request(model))
    assert result.status == "skipped"
    assert "no SoC" in result.reason
    assert "SM8550" in result.hint


def test_a_chip_without_ahead_of_time_compilation_is_skipped(model: bytes) -> None:
    """A SoC that LiteRT does not compile for is skipped with the supported ones, and nothing is written."""
    result = QnnAotCompiler().compile(CompileRequest(model=model, name="m", scheme="int8", socs=("SM7150",)))
    assert result.status == "skipped"
    assert "SM7150" in result.reason
    assert "SM8550" in result.hint
    assert result.files == {}


def test_unknown_option_is_a_usage_error(model: bytes) -> None:
    """An unknown option is not ignored."""
    with pytest.raises(UsageError, match="unknown option 'fast'"):
        QnnAotCompiler().compile(CompileRequest(model, "kws", "int8", {"fast": True}, ("SM8550",)))


def test_compiled_files_are_named_by_chip(model: bytes, dispatched: bytes) -> None:
    """One file per SoC; counts come from the log, or else from the file; the version is the one in the log."""
    runs = {"SM8550": run(dispatched), "SM8650": run(dispatched, "")}
    result = interpret(request(model, "SM8550", "SM8650"), runs, "2.3.0")
    assert result.status == "compiled"
    assert result.version == "2.3.0+qairt-2.51.0.260929181845"
    assert result.files == {"kws_Qualcomm_SM8550.tflite": dispatched, "kws_Qualcomm_SM8650.tflite": dispatched}
    figures = {"bytes": len(dispatched), "ops_accelerated": 12, "ops_total": 13, "partitions": 1}
    assert result.figures == {"SM8550": figures, "SM8650": figures}
    assert result.placements is not None
    assert [(row.op, row.count, row.output) for row in result.placements if row.code] == [("SOFTMAX", 1, "Identity")]
    assert ACCELERATOR_OP not in {row.op for row in result.placements}


def test_a_chip_that_places_ops_differently_is_named(model: bytes, dispatched: bytes) -> None:
    """The placements are those of the first SoC, so a SoC with other placements is a warning."""
    runs = {"SM8550": run(dispatched), "SM8350": run(model, "")}
    warnings = interpret(request(model, "SM8550", "SM8350"), runs, "2.3.0").warnings
    assert any("SM8350: the compiler places ops differently than for SM8550" in text for text in warnings)


def test_nothing_taken_is_a_warning(model: bytes) -> None:
    """A chip for which no op is selected has no file; when that is true of all of them, nothing is compiled."""
    nothing = TAKEN.replace("selected 12", "selected 0")
    result = interpret(request(model, "SM8550"), {"SM8550": run(b"", nothing, exit_code=1)}, "2.3.0")
    assert result.status == "skipped"
    assert "no op" in result.reason
    assert "SM8550: no op" in result.warnings[0]
    assert result.placements is not None
    assert {row.placement for row in result.placements} == {Placement.HOST}


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        (run(b""), "0 bytes"),
        (run(b"", "ERROR: [a.cc:1] Something new", exit_code=6), "exit code 6: [a.cc:1] Something new"),
        (run(b"", "", exit_code=-11), "SIGSEGV"),
    ],
)
def test_failure_is_an_error(model: bytes, dispatched: bytes, failed: QnnRun, words: str) -> None:
    """A requested SoC without a file is the compiler's failure, and the error names the SoC and the cause."""
    with pytest.raises(CompilerError) as caught:
        interpret(request(model, "SM8550", "SM8650"), {"SM8550": run(dispatched), "SM8650": failed}, "2.3.0")
    assert words in caught.value.message
    assert "SM8650" in caught.value.message
    assert "SM8550" not in caught.value.message
    assert caught.value.details["socs"] == ["SM8650"]


@qnn_support.needs_compiler
def test_a_model_is_compiled_for_real(model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed compiler takes keyword spotting whole, is confined to a folder of its own and leaves nothing."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = QnnAotCompiler().compile(request(model, "SM8550"), timeout=120)
    assert result.status == "compiled"
    assert "+qairt-2." in result.version
    compiled = read_model(result.files["kws_Qualcomm_SM8550.tflite"])
    assert [op.label for op in compiled.main.ops] == [ACCELERATOR_OP]
    assert result.figures["SM8550"]["ops_accelerated"] == result.figures["SM8550"]["ops_total"] == 13
    assert result.placements is not None
    assert {row.placement for row in result.placements} == {Placement.ACCELERATOR}
    assert str(tmp_path) not in result.log_text
    assert list(tmp_path.iterdir()) == []
    assert QnnAotCompiler().find().found


@qnn_support.needs_compiler
def test_an_op_left_to_the_cpu_has_the_compilers_reason() -> None:
    """Ops are placed one by one, those on the CPU with QNN's reason for this op."""
    net = builders.Net()
    shape = (1, 2, 2, 2, 2, 2)
    x, y, z = (net.tensor(name, shape) for name in "xyz")
    w = net.tensor("w", (4, 8))
    net.op("ABS", [x], [y])
    net.op("RESHAPE", [y, net.constant("shape", [4, 8], "INT32")], [w])
    v = net.tensor("v", (4, 8))
    net.op("ABS", [w], [v])
    result = QnnAotCompiler().compile(request(net.build([x], [v]), "SM8550"), timeout=120)
    assert result.placements is not None
    rows = {row.output: row for row in result.placements}
    assert rows["y"].placement is Placement.HOST
    assert rows["y"].status == "QNN refuses ElementWiseUnary (Abs) of rank 6"
    assert rows["v"].placement is Placement.ACCELERATOR
    del z


@qnn_support.needs_compiler
@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (state_models.fused_lstm, "variable-tensor", "keeps a state"),
        (state_models.memory, "variable-tensor", "keeps a state"),
        (qnn_support.clashing_names, "name-clash", "'a_b'"),
        (qnn_support.complex_tensor, "tensor-type", "COMPLEX64"),
    ],
)
def test_a_failure_of_the_whole_compilation_has_cause_and_fix(make, kind: str, words: str) -> None:
    """What ends a compilation is translated, and the compiler's own words follow whole."""
    with pytest.raises(CompilerError) as caught:
        QnnAotCompiler().compile(request(make(), "SM8550"), timeout=120)
    assert caught.value.details["failures"]["SM8550"]["kind"] == kind
    assert words in caught.value.message
    assert caught.value.hint
    assert caught.value.details["failures"]["SM8550"]["message"] in caught.value.details["log_tail"]


@qnn_support.needs_compiler
def test_a_wrong_patchelf_is_an_error(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who names a program does not get another one."""
    monkeypatch.setenv("EDGEPACK_PATCHELF", "/no/such/program")
    with pytest.raises(ToolMissingError, match="EDGEPACK_PATCHELF"):
        QnnAotCompiler().compile(request(model, "SM8550"))


@qnn_support.needs_compiler
def test_googles_package_comes_first_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's package is used where it has every listed library; an incomplete one gives way to Qualcomm's wheel."""
    wheel = qnn_sdk.find()
    assert wheel.source.startswith("onnxruntime-qnn")
    folder = tmp_path / "ai_edge_litert_sdk_qualcomm"
    libraries = folder / "data" / "lib" / "x86_64-linux-clang"
    libraries.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert qnn_sdk.find().source.startswith("onnxruntime-qnn")
    for path in wheel.libraries.glob("lib*.so"):
        (libraries / path.name).symlink_to(path)
    assert qnn_sdk.find().source.startswith("onnxruntime-qnn")
    shutil.copyfile(wheel.libraries / "libQnnIr.so", libraries / "libQnnLpai.so")
    sdk = qnn_sdk.find()
    assert sdk.source.startswith("ai-edge-litert-sdk-qualcomm")
    assert sdk.absent == ()
    assert qnn_sdk.prepare(sdk, tmp_path) == sdk.plugin.parent


def test_another_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine for which there are no libraries, the reason says which machine is needed."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ToolMissingError, match="x86-64 Linux"):
        qnn_sdk.find()
