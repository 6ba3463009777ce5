"""The Edge TPU wrapper believes success only when all signs agree, and explains every failure on record.

The compiler is a stand-in made from the recorded contract (edgetpu_standin.py); the files it gives for Coral's
originals are the ones that the real compiler made.
"""

import json
import time
from collections import Counter
from pathlib import Path

import edgetpu_standin
import pytest

from edgepack.compilers import (
    Companion,
    CompiledOp,
    CompileRequest,
    CompileResult,
    compare_placements,
    get_compiler,
)
from edgepack.compilers.edgetpu import ACCELERATOR_OP, EdgeTpuCompiler, pipeline_fault
from edgepack.compilers.edgetpu_log import (
    STATUS_CODES,
    failure_of,
    figures_in,
    figures_of_each,
    placements_in,
    succeeded,
    version_in,
)
from edgepack.errors import CompilerError, ToolMissingError, UnfitModelError, UsageError
from edgepack.findings import OpFinding, Placement
from edgepack.graph import read_model

CORAL = (
    "deeplabv3_mnv2_dm05_pascal_quant.tflite",
    "keras_lstm_mnist_ptq.tflite",
    "mobilenet_edgetpu_0.75_224_post_training_quant.tflite",
    "mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet_v2_1.0_224_quant.tflite",
    "posenet_mobilenet_v1_075_353_481_quant_decoder.tflite",
    "split_concat.tflite",
)

#: As recorded, figures and all.
RECORDED = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1857 ms.

Input model: m.tflite
Input size: 5.20MiB
Output model: m_edgetpu.tflite
Output size: 6.51MiB
On-chip memory used for caching model parameters: 6.02MiB
On-chip memory remaining for caching model parameters: 1.02MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 84
Operation log: m_edgetpu.log
Model successfully compiled but not all operations are supported by the Edge TPU. (...)
Number of operations that will run on Edge TPU: 82
Number of operations that will run on CPU: 2
See the operation log file for individual operation details.
Compilation child process completed within timeout period.
Compilation succeeded!
"""


def compile_(
    data: bytes,
    *,
    timeout: float = 60,
    name: str = "thing",
    options: dict[str, object] | None = None,
    segments: int = 0,
    companions: tuple[Companion, ...] = (),
) -> CompileResult:
    request = CompileRequest(data, name, "int8", options or {}, companions=companions, segments=segments)
    return EdgeTpuCompiler().compile(request, timeout)


@pytest.fixture
def small(shared_models: Path) -> bytes:
    """A model that Coral did not publish: the keyword spotter, 13 ops."""
    return (shared_models / "mlperf-tiny" / "kws_reference_int8.tflite").read_bytes()


def test_recorded_output_is_read() -> None:
    """Figures of the recorded output become bytes and counts; times are left out."""
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
    """Version 16 confirms twice; older ones, without the timer, once."""
    assert succeeded(RECORDED)
    assert not succeeded(RECORDED.replace("Compilation succeeded!", ""))
    assert not succeeded(RECORDED.replace("Model compiled successfully", "Model"))
    assert succeeded("Edge TPU Compiler version 15.0.340273435\n\nModel compiled successfully in 12 ms.\n")
    assert not succeeded("Model successfully compiled but not all operations are supported by the Edge TPU.")


def test_codes_are_the_checks_own() -> None:
    """A script that reads reason codes finds the same ones from the check and from the compiler."""
    from edgepack.compat.reasons import REASONS

    codes = {code.replace("above-3", "above-N") for code in STATUS_CODES.values() if code}
    assert codes - set(REASONS) == {"unspecified-limitation"}
    causes = {failure_of(edgetpu_standin.FAILURES[name], 1, "").cause for name in ("op-version", "op-code", "dynamic")}
    assert causes <= set(REASONS)


@pytest.mark.parametrize("status", STATUS_CODES)
def test_every_recorded_status_has_a_code(status: str) -> None:
    """A row's words become a stable code; only mapped ops are on the accelerator."""
    (row,) = placements_in(
        f"Operator                       Count      Status\n\nCONV_2D                        49         {status}\n"
    )
    mapped = status == "Mapped to Edge TPU"
    assert row == CompiledOp(
        "CONV_2D", 49, Placement.ACCELERATOR if mapped else Placement.HOST, status, "" if mapped else row.code
    )
    assert bool(row.code) is not mapped


def test_unknown_status_is_kept_as_host() -> None:
    """A status that nobody has recorded does not count as mapped."""
    (row,) = placements_in("ADD                            1          Some new words\n")
    assert (row.placement, row.code, row.status) == (Placement.HOST, "unknown-status", "Some new words")


@pytest.mark.parametrize("name", CORAL)
def test_published_models_compile_to_the_published_files(shared_models: Path, standin: Path, name: str) -> None:
    """File, counts and log of what the real compiler made come back whole, and the file agrees with the log."""
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


def test_published_placement_equals_a_check_that_is_right(shared_models: Path, standin: Path) -> None:
    """No difference is reported when the check says what the real compiler did, and the op when it does not."""
    coral = shared_models / "coral"
    name = "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    expected = json.loads((coral / "expected.json").read_text())[name]
    model = read_model(coral / name)
    result = compile_((coral / name).read_bytes())
    assert result.placements is not None
    right = [
        OpFinding(
            op.index,
            op.label,
            op.version,
            model.main.output_name(op),
            Placement.ACCELERATOR if op.index in expected["mapped_indices"] else Placement.HOST,
        )
        for op in model.main.ops
    ]
    assert compare_placements(right, result.placements) == ()
    wrong = [
        OpFinding(f.index, f.op, f.version, f.output, Placement.ACCELERATOR) if f.op == "ARG_MAX" else f for f in right
    ]
    (difference,) = compare_placements(wrong, result.placements)
    assert (difference.op, difference.ours, difference.theirs) == ("ARG_MAX", 1, 0)
    assert "1 x Operation not supported" in difference.message


def test_partial_mapping_of_another_model(small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partial mapping is a success whose placements name the host's ops and why."""
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
    """A compilation that succeeds with nothing on the Edge TPU says so."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", "zero-ops")
    result = compile_(small)
    assert result.status == "compiled"
    assert result.figures["accelerator_ops"] == 0
    assert any("mapped no op" in warning for warning in result.warnings)


def test_result_is_the_same_twice_and_names_no_folder(small: bytes, standin: Path, tmp_path: Path) -> None:
    """What goes into manifests holds no time and no path, and does not change from run to run."""
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
    """Each failure on record becomes a cause and a fix, whatever the exit code, with the log's tail kept."""
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
    """A file that is not a model is a failure of parsing, not a traceback."""
    with pytest.raises(CompilerError) as caught:
        compile_(b"\0\0\0\0nope" + bytes(100))
    assert caught.value.details["cause"] == "not-parsed"


@pytest.mark.parametrize("scenario", ["internal-error-once", "segfault-once"])
def test_flaky_failures_are_tried_again(
    small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    """A failure that is known to pass on a second run does not reach the user."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", scenario)
    assert compile_(small).status == "compiled"
    assert len(standin.read_text().splitlines()) == 2


@pytest.mark.parametrize(("scenario", "runs"), [("internal-error", 3), ("segfault", 3), ("not-quantized", 1)])
def test_retries_end(small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch, scenario: str, runs: int) -> None:
    """A lasting failure ends after three runs, one that cannot pass after the first."""
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
    """Exit code, file and success line: with one of them missing nothing was compiled."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", scenario)
    with pytest.raises(CompilerError) as caught:
        compile_(small)
    assert caught.value.details["cause"] == cause
    assert caught.value.hint


def test_time_limit(small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that hangs is stopped in time and not tried again."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", "hang")
    started = time.monotonic()
    with pytest.raises(CompilerError, match="took longer than"):
        compile_(small, timeout=1.5)
    assert time.monotonic() - started < 10
    assert len(standin.read_text().splitlines()) == 1


def test_options_become_flags(small: bytes, standin: Path) -> None:
    """Options of the profile reach the command line; what the user called the model does not."""
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
    """A mistyped option is a usage error that lists what there is, before anything runs."""
    with pytest.raises(UsageError) as caught:
        compile_(small, options={"min_runtime": 13, "search_delegate": "yes"})
    assert "min_runtime'" in caught.value.message
    assert "expected bool, got 'yes'" in caught.value.message
    assert "runtime_version" in caught.value.hint
    assert not standin.exists()


def test_missing_compiler_is_skipped(small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler the result says what that means and what to do; the caller decides."""
    monkeypatch.delenv("EDGEPACK_EDGETPU_COMPILER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = compile_(small)
    assert result.status == "skipped"
    assert "edgetpu_compiler is not installed" in result.reason
    assert "EDGEPACK_EDGETPU_COMPILER" in result.hint
    assert result.files == {}
    assert not get_compiler("edgetpu").find().found


def test_wrong_variable_is_an_error(small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that points nowhere is not taken for a missing compiler."""
    monkeypatch.setenv("EDGEPACK_EDGETPU_COMPILER", str(tmp_path / "gone"))
    with pytest.raises(ToolMissingError, match="EDGEPACK_EDGETPU_COMPILER"):
        compile_(small)


def test_doctor_sees_the_version(standin: Path) -> None:
    """The wrapper tells doctor which version it found."""
    info = EdgeTpuCompiler().find()
    assert info.found
    assert info.version == edgetpu_standin.VERSION
    assert info.problem == ""


# -- segments and co-compiled models -----------------------------------------------------------------------------------

MOBILENET = "coral/mobilenet_v1_0.25_128_quant.tflite"
SPLIT = "coral/split_concat.tflite"


def test_recorded_output_of_segments_and_of_several_models() -> None:
    """Segments say that they succeeded one by one, co-compiled models once; figures are told apart by input file."""
    segment = RECORDED.partition("\n")[2].replace("m.tflite", "m_segment_{}_of_2.tflite")
    both = f"Edge TPU Compiler version 16.0.384591198\n{segment.format(0)}{segment.format(1).replace('6.02', '3.50')}"
    assert succeeded(both, 2) and not succeeded(both, 3)
    assert not succeeded(RECORDED, 2)
    # The second one was given up: its timer started, and nobody said that it succeeded.
    assert not succeeded(both.rpartition("Compilation succeeded!")[0], 2)
    found = figures_of_each(both)
    assert list(found) == ["m_segment_0_of_2.tflite", "m_segment_1_of_2.tflite"]
    assert [one["on_chip_used_bytes"] for one in found.values()] == [round(6.02 * 2**20), round(3.5 * 2**20)]
    together = RECORDED.replace("Model compiled", "Models compiled")
    assert succeeded(together)
    assert list(figures_of_each(together.replace("Input model: m.tflite", "Input model: some/where/m.tflite"))) == [
        "m.tflite"
    ]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_segments_make_up_the_model(shared_models: Path, standin: Path, count: int) -> None:
    """N files in order, each whole and with an op on the Edge TPU; placements and figures are those of all together."""
    data = (shared_models / MOBILENET).read_bytes()
    result = compile_(data, name="net", segments=count)
    assert result.segments == tuple(f"net_segment_{i}_of_{count}_edgetpu.tflite" for i in range(count))
    assert tuple(result.files) == result.segments and result.companions == ()
    assert f" -n {count} model.tflite" in standin.read_text()
    assert pipeline_fault(read_model(data), [read_model(result.files[name]) for name in result.segments]) == ""
    ops = Counter(op.label for op in read_model(data).main.ops)
    placed = Counter[str]()
    assert result.placements is not None
    for row in result.placements:
        placed[row.op] += row.count
    assert placed == ops
    figures = result.figures
    assert len(figures["segments"]) == count
    assert figures["accelerator_ops"] == sum(one["accelerator_ops"] for one in figures["segments"]) == ops.total()
    assert figures["output_bytes"] == sum(map(len, result.files.values()))
    assert result.to_json()["segments"] == list(result.segments)
    assert result == compile_(data, name="net", segments=count)


@pytest.mark.parametrize(
    ("segments", "message"),
    [(1, "expected 2 or more, got 1"), (-3, "expected 2 or more"), (40, "cannot be cut into 40 segments")],
)
def test_segments_that_cannot_be(shared_models: Path, standin: Path, segments: int, message: str) -> None:
    """Fewer than two, or more than there are ops, is wrong use; the compiler is not started."""
    with pytest.raises(UsageError, match=message):
        compile_((shared_models / MOBILENET).read_bytes(), segments=segments)
    with pytest.raises(UsageError, match="do not go together"):
        compile_((shared_models / MOBILENET).read_bytes(), segments=2, companions=(_companion(shared_models),))
    assert not standin.exists()


@pytest.mark.parametrize(
    ("scenario", "cause", "words"),
    [
        ("second-segment-fails", "large-activations", "too large"),
        ("version-only", "unknown", "did not say that the model was compiled"),
        ("torn-pipeline", "broken-pipeline", "segment 1 reads 'nowhere', which no input and no earlier segment gives"),
        ("no-file", "no-file", "wrote no thing_segment_0_of_2_edgetpu.tflite"),
    ],
)
def test_segments_succeed_together_or_not_at_all(
    shared_models: Path, standin: Path, monkeypatch: pytest.MonkeyPatch, scenario: str, cause: str, words: str
) -> None:
    """One segment that fails, is missing or does not fit is a failure of the whole, whatever the exit code."""
    monkeypatch.setenv("EDGETPU_STANDIN_SCENARIO", scenario)
    monkeypatch.setenv("EDGETPU_STANDIN_EXIT", "0")
    with pytest.raises(CompilerError) as caught:
        compile_((shared_models / MOBILENET).read_bytes(), segments=2)
    assert caught.value.details["cause"] == cause
    assert words in caught.value.message


def _companion(models: Path, name: str = "other", file: str = SPLIT) -> Companion:
    return Companion(name, (models / file).read_bytes())


def test_co_compiled_models_come_back_together(shared_models: Path, standin: Path) -> None:
    """One call with all models, the main one first; every file comes back, figures of the others stand apart."""
    data = (shared_models / MOBILENET).read_bytes()
    others = (_companion(shared_models), _companion(shared_models, "third", "coral/keras_lstm_mnist_ptq.tflite"))
    result = compile_(data, name="net", companions=others)
    assert standin.read_text().split()[-3:] == ["model.tflite", "with_0.tflite", "with_1.tflite"]
    assert list(result.files) == ["net_edgetpu.tflite", "other_edgetpu.tflite", "third_edgetpu.tflite"]
    assert result.companions == ("other_edgetpu.tflite", "third_edgetpu.tflite")
    for name in result.files:
        assert any(op.label == ACCELERATOR_OP for op in read_model(result.files[name]).main.ops)
    alone = compile_(data, name="net")
    assert result.placements == alone.placements
    assert {key: result.figures[key] for key in alone.figures} == alone.figures
    assert set(result.figures["co_compiled"]) == {"other", "third"}
    assert result.figures["co_compiled"]["other"]["output_bytes"] == len(result.files["other_edgetpu.tflite"])


def test_companions_that_cannot_be(shared_models: Path, small: bytes, standin: Path) -> None:
    """A float model, a compiled one and two of one name are refused with what to give instead, before anything runs."""
    floats = (Path(__file__).resolve().parents[1] / "data" / "digits_float.tflite").read_bytes()
    with pytest.raises(UnfitModelError, match="'digits' is not quantized") as caught:
        compile_(small, companions=(Companion("digits", floats),))
    assert "build it with -t edgetpu" in caught.value.hint
    compiled = (shared_models / SPLIT.replace(".tflite", "_edgetpu.tflite")).read_bytes()
    with pytest.raises(UnfitModelError, match="'done' was compiled already"):
        compile_(small, companions=(Companion("done", compiled),))
    with pytest.raises(UsageError, match="two models are called 'thing'"):
        compile_(small, companions=(_companion(shared_models, "thing"),))
    with pytest.raises(UnfitModelError):
        compile_(small, companions=(Companion("text", b"no model"),))
    assert not standin.exists()


def test_a_companion_that_the_compiler_refuses_is_named(
    shared_models: Path, small: bytes, standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the compiler names one of several models, the message has the user's name for it."""
    program = Path(edgetpu_standin.install(standin.parent))
    program.write_text(
        "#!/bin/sh\necho 'Edge TPU Compiler version 16.0.384591198'\n"
        "echo 'ERROR: Invalid model: ./with_0.tflite'\necho 'Model could not be parsed'\nexit 1\n"
    )
    with pytest.raises(CompilerError, match=r"\(the model 'other' of --co-compile\)"):
        compile_(small, companions=(_companion(shared_models),))
