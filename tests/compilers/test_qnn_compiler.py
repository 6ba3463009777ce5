"""LiteRT's compiler for Qualcomm succeeds only with a readable file, and a missing SDK is reported as such."""

import importlib.util
from pathlib import Path

import edgetpu_standin
import pytest

from edgepack.compilers import CompileRequest, compiler_ids
from edgepack.compilers.qnn import ACCELERATOR_OP, QnnAotCompiler, interpret, known_socs
from edgepack.errors import CompilerError, UsageError

no_sdk = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert_sdk_qualcomm") is not None, reason="the QAIRT SDK is installed here"
)


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


def test_known_chips_are_those_of_the_installed_litert() -> None:
    """The list of SoCs comes from the installed LiteRT."""
    assert "SM8550" in known_socs()
    assert "ALL" not in known_socs()
    assert "qnn" in compiler_ids()


@no_sdk
def test_without_the_sdk_it_is_skipped_and_leaves_nothing(
    model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real compiler fails without raising and leaves an empty file and a log, which do not reach the user."""
    work = tmp_path / "work"
    temporary = tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    result = QnnAotCompiler().compile(request(model, "SM8550", "SM8650"), timeout=120)
    assert result.status == "skipped"
    assert "SDK is not installed" in result.reason
    assert "libQnnHtp.so" in result.reason
    assert "ai-edge-litert-sdk-qualcomm" in result.hint
    assert result.files == {}
    assert list(work.iterdir()) == []
    assert list(temporary.iterdir()) == []
    assert str(tmp_path) not in result.reason


@no_sdk
def test_doctor_says_what_is_missing() -> None:
    """Doctor distinguishes the compiler, which is installed, from the SDK, which is not."""
    info = QnnAotCompiler().find()
    assert not info.found
    assert "SDK" in info.problem
    assert "pip install" in info.install


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
    """One file per SoC; counts come from the compiler's report, or else from the file."""
    stats = [{"offloaded": 12, "total": 13, "partitions": 1}]
    report = {"SM8550": {"data": dispatched, "stats": stats}, "SM8650": {"data": dispatched, "stats": []}}
    result = interpret(request(model, "SM8550", "SM8650"), report, version="2", sdk=True, log="")
    assert result.status == "compiled"
    assert result.files == {"kws_Qualcomm_SM8550.tflite": dispatched, "kws_Qualcomm_SM8650.tflite": dispatched}
    figures = {"bytes": len(dispatched), "ops_accelerated": 12, "ops_total": 13, "partitions": 1}
    assert result.figures == {"SM8550": figures, "SM8650": figures}
    assert result.placements is not None
    assert [(row.op, row.count) for row in result.placements if row.code] == [("SOFTMAX", 1)]
    assert ACCELERATOR_OP not in {row.op for row in result.placements}


def test_nothing_taken_is_a_warning(model: bytes) -> None:
    """An unchanged file is a success with a warning."""
    result = interpret(request(model, "SM8550"), {"SM8550": {"data": model}}, version="2", sdk=True, log="")
    assert result.status == "compiled"
    assert "SM8550: no op" in result.warnings[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"data": b""}, "0 bytes"),
        (
            {"error": "apply_plugin failed to apply plugin. See /somewhere/x.error for details."},
            "failed to apply plugin",
        ),
        (None, "does not mention"),
    ],
)
def test_failure_with_the_sdk_is_an_error(model: bytes, dispatched: bytes, entry: dict | None, words: str) -> None:
    """With the SDK, a requested SoC without a file is the compiler's failure, and the error names the SoC."""
    report = {"SM8550": {"data": dispatched}} | ({"SM8650": entry} if entry is not None else {})
    with pytest.raises(CompilerError) as caught:
        interpret(request(model, "SM8550", "SM8650"), report, version="2", sdk=True, log="line 1\nline 2")
    assert words in caught.value.message
    assert "SM8650" in caught.value.message
    assert "SM8550" not in caught.value.message
    assert "/somewhere" not in caught.value.message
    assert caught.value.details == {"socs": ["SM8650"], "log_tail": "line 1\nline 2"}


def test_crash_before_the_report_is_an_error(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that dies gives one error with the end of its log."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(CompilerError, match="exit code 1 before it reported"):
        QnnAotCompiler().compile(request(model, "SM8550"))
