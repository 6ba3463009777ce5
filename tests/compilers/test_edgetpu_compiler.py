"""The Edge TPU wrapper verifies success and explains every recorded failure.

The compiler is a stand-in that follows records of the real one (edgetpu_standin.py); for Coral's originals it writes
the real compiler's files.
"""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import edgetpu_standin
import pytest
from edgetpu_standin import RECORDED

from edgepack.compat import check
from edgepack.compat.reasons import reason
from edgepack.compilers import (
    CompiledOp,
    CompileRequest,
    CompileResult,
    compare_placements,
    get_compiler,
)
from edgepack.compilers.edgetpu import ACCELERATOR_OP, EdgeTpuCompiler
from edgepack.compilers.edgetpu_log import (
    STATUS_CODES,
    failure_of,
    figures_in,
    placements_in,
    succeeded,
    version_in,
)
from edgepack.errors import CompilerError, ToolMissingError, UsageError
from edgepack.findings import OpFinding, Placement
from edgepack.graph import read_model
from edgepack.profiles import get_target

CORAL = (
    "deeplabv3_mnv2_dm05_pascal_quant.tflite",
    "keras_lstm_mnist_ptq.tflite",
    "mobilenet_edgetpu_0.75_224_post_training_quant.tflite",
    "mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet_v2_1.0_224_quant.tflite",
    "posenet_mobilenet_v1_075_353_481_quant_decoder.tflite",
    "split_concat.tflite",
)


def compile_(
    data: bytes,
    *,
    timeout: float = 60,
    name: str = "thing",
    options: dict[str, object] | None = None,
) -> CompileResult:
    return EdgeTpuCompiler().compile(CompileRequest(data, name, "int8", options or {}), timeout)


def test_recorded_output_is_read() -> None:
    """Figures of the recorded output become bytes and counts; times are omitted."""
    assert figures_in(RECORDED) == {
        "on_chip_used_bytes": round(6.02 * 2**20),
        "on_chip_remaining_bytes": round(1.02 * 2**20),
        "off_chip_bytes": 0,
        "subgraphs": 1,
        "total_ops": 84,
        "accelerator_ops": 82,
        "host_ops": 2,
    }
    assert version_in(RECORDED) == "16.0.384591198"


def test_success_needs_every_line_the_version_prints() -> None:
    """Version 16 reports success twice; older ones, without the timer, once."""
    assert succeeded(RECORDED)
    assert not succeeded(RECORDED.replace("Compilation succeeded!", ""))
    assert not succeeded(RECORDED.replace("Model compiled successfully", "Model"))
    assert succeeded("Edge TPU Compiler version 15.0.340273435\n\nModel compiled successfully in 12 ms.\n")
    assert not succeeded("Model successfully compiled but not all operations are supported by the Edge TPU.")


def test_codes_are_the_checks_own() -> None:
    """The check and the compiler use the same reason codes."""
    from edgepack.compat.reasons import REASONS

    codes = {code.replace("above-3", "above-N") for code in STATUS_CODES.values() if code}
    assert codes <= set(REASONS)
    assert {"unknown-status", "left-by-compiler"} <= set(REASONS)
    causes = {failure_of(edgetpu_standin.FAILURES[name], 1, "").cause for name in ("op-version", "op-code", "dynamic")}
    assert causes <= set(REASONS)


@pytest.mark.parametrize("status", STATUS_CODES)
def test_every_recorded_status_has_a_code(status: str) -> None:
    """A row's status becomes a stable code; only mapped ops are on the accelerator."""
    (row,) = placements_in(
        f"Operator                       Count      Status\n\nCONV_2D                        49         {status}\n"
    )
    mapped = status == "Mapped to Edge TPU"
    assert row == CompiledOp(
        "CONV_2D", 49, Placement.ACCELERATOR if mapped else Placement.HOST, status, "" if mapped else row.code
    )
    assert bool(row.code) is not mapped


def test_unknown_status_is_kept_as_host() -> None:
    """A status that is not on record does not count as mapped."""
    (row,) = placements_in("ADD                            1          Some new words\n")
    assert (row.placement, row.code, row.status) == (Placement.HOST, "unknown-status", "Some new words")


@pytest.mark.parametrize("name", CORAL)
def test_published_models_compile_to_the_published_files(shared_models: Path, standin: Path, name: str) -> None:
    """The real compiler's file and counts are returned unchanged, and the file agrees with the log."""
    coral = shared_models / "coral"
    expected = json.loads((coral / "expected.json").read_text())[name]
    result = compile_((coral / name).read_bytes(), name="mine")
    assert result.status == "compiled"
    assert result.version == edgetpu_standin.VERSION
    assert result.files == {"mine_edgetpu.tflite": (coral / expected["compiled"]).read_bytes()}
    assert result.figures["accelerator_ops"] == expected["ops_mapped"]
    assert result.figures["host_ops"] == expected["ops_total"] - expected["ops_mapped"]
    assert result.placements is not None
    host = Counter[str]()
    for row in result.placements:
        host[row.op] += row.count if row.placement is Placement.HOST else 0
    assert +host == Counter(op["op"].partition(":")[0] for op in expected["host_ops"])
    assert result.warnings == ()


@pytest.mark.parametrize("name", CORAL)
def test_check_and_compiler_agree(name: str, shared_models: Path, standin: Path) -> None:
    """On real pairs the check and the compiler's log agree on ops and codes."""
    data = (shared_models / "coral" / name).read_bytes()
    result = compile_(data)
    assert result.placements is not None
    assert compare_placements(check(read_model(data), get_target("edgetpu")).ops, result.placements) == ()


def test_a_different_placement_or_reason_is_listed(shared_models: Path, standin: Path) -> None:
    """An op that the check places elsewhere, or for another reason, is listed with both placements."""
    data = (shared_models / "coral" / "deeplabv3_mnv2_dm05_pascal_quant.tflite").read_bytes()
    result = compile_(data)
    assert result.placements is not None
    right = check(read_model(data), get_target("edgetpu")).ops
    wrong = [
        OpFinding(f.index, f.op, f.version, f.output, Placement.ACCELERATOR) if f.op == "ARG_MAX" else f for f in right
    ]
    (difference,) = compare_placements(wrong, result.placements)
    assert (difference.op, difference.ours, difference.theirs) == ("ARG_MAX", 1, 0)
    assert "1 x Operation not supported" in difference.message
    other = [replace(f, reasons=(reason("dtype", "x"),)) if f.op == "ARG_MAX" else f for f in right]
    (difference,) = compare_placements(other, result.placements)
    assert (difference.op, difference.ours, difference.theirs) == ("ARG_MAX", 0, 0)
    assert difference.message == ("ARG_MAX: the check's reason is dtype, the compiler 1 x Operation not supported")


def test_partial_mapping_of_another_model(small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partial mapping is a success whose placements list the host ops with their reasons."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", "partial")
    result = compile_(small)
    assert result.status == "compiled"
    assert result.placements is not None
    assert [(row.op, row.count, row.code) for row in result.placements if row.placement is Placement.HOST] == [
        ("SOFTMAX", 1, "op-not-supported")
    ]
    compiled = read_model(result.files["thing_edgetpu.tflite"])
    assert [op.label for op in compiled.main.ops] == [ACCELERATOR_OP, "SOFTMAX"]
    assert compiled.input_names() == read_model(small).input_names()


def test_no_op_mapped_is_a_warning(small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compilation that succeeds with no op on the Edge TPU has a warning."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", "zero-ops")
    result = compile_(small)
    assert result.status == "compiled"
    assert result.figures["accelerator_ops"] == 0
    assert any("mapped no op" in warning for warning in result.warnings)


def test_result_is_the_same_twice_and_names_no_folder(small: bytes, standin: Path, tmp_path: Path) -> None:
    """What goes into manifests contains no time and no path and does not change from run to run."""
    first, second = compile_(small), compile_(small)
    assert first == second
    text = json.dumps(first.to_json())
    assert "/" not in text
    assert str(tmp_path) not in first.log_text
    assert "1857" not in text


@pytest.mark.parametrize("exit_code", ["1", "0"])
@pytest.mark.parametrize(
    ("scenario", "cause", "words", "fix"),
    [
        ("not-quantized", "not-quantized", "float tensors", "--scheme int8"),
        ("not-parsed", "not-parsed", "cannot parse", "inspect"),
        ("op-version", "parser-version", "CONV_2D version 6", "grouped convolution"),
        ("op-code", "builtin-code", "GELU (code 150)", "replace"),
        ("dynamic", "dynamic-shape", "run time", "--input-shape"),
        ("large-activations", "large-activations", "too large", "smaller input"),
        ("internal-error", "internal-error", "internal error", "search_delegate"),
        ("out-of-range", "out-of-range", "out_of_range", "search_delegate"),
        ("unheard-of", "unknown", "", "log"),
    ],
)
def test_every_recorded_failure_is_translated(
    small: bytes,
    standin: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: str,
    cause: str,
    words: str,
    fix: str,
    exit_code: str,
) -> None:
    """Each recorded failure becomes a cause and a fix, with the end of the log, for any exit code."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", scenario)
    monkeypatch.setenv("EDGETPU_STANDIN_EXIT", exit_code)
    with pytest.raises(CompilerError) as caught:
        compile_(small)
    error = caught.value
    assert error.exit_code == 6
    assert error.details["cause"] == cause
    assert error.details["exit_code"] == int(exit_code)
    assert words in error.message
    assert fix in error.hint
    recorded = edgetpu_standin.FAILURES[scenario].splitlines()[-1].replace("%", "model.tflite")
    assert recorded in error.details["log_tail"]


def test_file_that_is_no_model_is_refused(standin: Path) -> None:
    """A file that is not a model is a parsing failure, not a traceback."""
    with pytest.raises(CompilerError) as caught:
        compile_(b"\0\0\0\0nope" + bytes(100))
    assert caught.value.details["cause"] == "not-parsed"


@pytest.mark.parametrize("scenario", ["internal-error-once", "segfault-once"])
def test_flaky_failures_are_tried_again(
    small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    """A failure that disappears on a second run does not reach the user."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", scenario)
    assert compile_(small).status == "compiled"
    assert len(standin.read_text().splitlines()) == 2


@pytest.mark.parametrize(("scenario", "runs"), [("internal-error", 3), ("segfault", 3), ("not-quantized", 1)])
def test_retries_end(small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch, scenario: str, runs: int) -> None:
    """A persistent flaky failure is reported after three runs, other failures after the first."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", scenario)
    with pytest.raises(CompilerError) as caught:
        compile_(small)
    assert len(standin.read_text().splitlines()) == runs
    assert caught.value.details["attempts"] == runs
    if scenario == "segfault":
        assert "SIGSEGV" in caught.value.message


@pytest.mark.parametrize(
    ("scenario", "cause"),
    [
        ("no-file", "no-file"),
        ("empty-file", "no-file"),
        ("no-success-line", "unknown"),
        ("half-success", "unknown"),
        ("nonzero-with-file", "unknown"),
    ],
)
def test_success_needs_all_signs(
    small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch, scenario: str, cause: str
) -> None:
    """Without exit code 0, the file or the success line, the compilation failed."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", scenario)
    with pytest.raises(CompilerError) as caught:
        compile_(small)
    assert caught.value.details["cause"] == cause
    assert caught.value.hint


def test_time_limit(small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that hangs is stopped at the time limit and not retried."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", "hang")
    started = time.monotonic()
    with pytest.raises(CompilerError, match="took longer than"):
        compile_(small, timeout=1.5)
    assert time.monotonic() - started < 10
    assert len(standin.read_text().splitlines()) == 1


def test_options_become_flags(small: bytes, standin: Path) -> None:
    """Options of the profile are on the command line; the user's name of the model is not."""
    options = {
        "runtime_version": 13,
        "search_delegate": True,
        "delegate_search_step": 2,
        "multiple_subgraphs": False,
    }
    result = compile_(small, name="-rf my model", options=options)
    assert list(result.files) == ["-rf my model_edgetpu.tflite"]
    assert standin.read_text().split() == ["-o", ".", "-t", "64", "-m", "13", "-d", "-k", "2", "model.tflite"]


def test_unknown_options_are_all_named(small: bytes, standin: Path) -> None:
    """A mistyped option is a usage error that lists the known ones, before anything runs."""
    with pytest.raises(UsageError) as caught:
        compile_(small, options={"min_runtime": 13, "search_delegate": "yes"})
    assert "min_runtime'" in caught.value.message
    assert "expected bool, got 'yes'" in caught.value.message
    assert "runtime_version" in caught.value.hint
    assert not standin.exists()


def test_missing_compiler_is_skipped(small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler the result is `skipped`, with the consequence and the installation; the caller decides."""
    monkeypatch.delenv("EDGEPACK_EDGETPU_COMPILER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = compile_(small)
    assert result.status == "skipped"
    assert "edgetpu_compiler is not installed" in result.reason
    assert "EDGEPACK_EDGETPU_COMPILER" in result.hint
    assert result.files == {}
    assert not get_compiler("edgetpu").find().found


def test_wrong_variable_is_an_error(small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value of the variable is an error, not a missing compiler."""
    monkeypatch.setenv("EDGEPACK_EDGETPU_COMPILER", str(tmp_path / "gone"))
    with pytest.raises(ToolMissingError, match="EDGEPACK_EDGETPU_COMPILER"):
        compile_(small)


def test_doctor_sees_the_version(standin: Path) -> None:
    """Doctor gets the version from the wrapper."""
    info = EdgeTpuCompiler().find()
    assert info.found
    assert info.version == edgetpu_standin.VERSION
    assert info.problem == ""
