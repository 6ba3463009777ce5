"""A check asks the vendor's compiler where it can, and says of every line whose word it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pytest
from qnn_support import complex_tensor, needs_compiler

from edgepack.cli.check import _BASIS
from edgepack.compilers import CompiledOp, CompileRequest, CompileResult
from edgepack.errors import CompilerError, ToolMissingError
from edgepack.findings import Basis, Placement, Report
from edgepack.graph import read_model
from edgepack.pipeline import compiler_placement
from edgepack.pipeline.check import check
from edgepack.pipeline.compiler_placement import ask, decide
from edgepack.pipeline.options import TargetOptions
from edgepack.pipeline.placement import check_placement
from edgepack.pipeline.reports.sarif import sarif
from edgepack.profiles.load import _SOURCE_LEVELS
from edgepack.profiles.registry import get_target
from edgepack.tools import ToolInfo

HEXAGON = get_target("hexagon")
SM8550 = TargetOptions(socs=("SM8550",))
DIGITS = Path(__file__).parent.parent / "data" / "digits_float.tflite"


class Answering:
    """A compiler that places ops as it was told to."""

    id = "qnn"
    supports_segments = False
    asks_up_to = 1000

    def __init__(self, rows: list[CompiledOp] | None = None, error: CompilerError | None = None, problem: str = ""):
        self.rows, self.error, self.problem = rows, error, problem

    def find(self) -> ToolInfo:
        return ToolInfo("Compiler", "", "1.2", not self.problem, self.problem, "pip install it")

    def compile(self, request: CompileRequest, timeout: float = 1.0) -> CompileResult:
        if self.error is not None:
            raise self.error
        placements = None if self.rows is None else tuple(self.rows)
        figures = {"SM8550": {"partitions": 2}}
        return CompileResult("compiled", "Compiler", "1.2", "no reason", placements=placements, figures=figures)


def model() -> tuple[bytes, Report]:
    """ABS, ELU and ABS in float, all on the accelerator according to the table."""
    net = builders.Net()
    tensors = [net.tensor(name, (1, 4, 4, 8)) for name in "xabc"]
    for name, source, result in zip(("ABS", "ELU", "ABS"), tensors, tensors[1:], strict=False):
        net.op(name, [source], [result])
    tflite = net.build(tensors[:1], tensors[-1:])
    report = check_placement(read_model(tflite), HEXAGON, SM8550)
    assert report.summary["accelerator"] == 3
    assert {finding.source for finding in report.ops} == {"measured"}
    return tflite, report


def rows(*placements: Placement) -> list[CompiledOp]:
    code = {Placement.HOST: "left-by-compiler"}
    return [
        CompiledOp(op, 1, placement, "QNN refuses it", code.get(placement, ""), name)
        for op, name, placement in zip(("ABS", "ELU", "ABS"), "abc", placements, strict=True)
    ]


def test_the_compilers_word_counts_and_the_difference_is_a_note() -> None:
    """An op that the compiler leaves is on the host with its words, and the table's disagreement is said."""
    tflite, report = model()
    answer = rows(Placement.ACCELERATOR, Placement.HOST, Placement.ACCELERATOR)
    asked = ask(Answering(answer), tflite, report, HEXAGON, SM8550, 1.0)
    assert [finding.placement for finding in asked.ops] == [row.placement for row in answer]
    assert [(r.code, r.message) for r in asked.ops[1].reasons] == [("compiler-leaves", "QNN refuses it")]
    assert {finding.source for finding in asked.ops} == {"compiler"}
    assert dict(asked.sources) == {"compiler": "Compiler 1.2, asked for SM8550"}
    assert asked.partitions == 2
    assert [note for note in asked.notes if "whose word counts: ELU 'b'" in note]
    assert any("1 of 3 ops runs on the host" in note for note in asked.notes)
    document = asked.to_json()
    assert {entry["source"] for entry in document["ops"]} == {"compiler"}
    (result,) = sarif([asked], "m.tflite")["runs"][0]["results"]
    assert result["properties"] == {"basis": "compiler", "source": "Compiler 1.2, asked for SM8550"}


def test_a_refused_file_has_nothing_on_the_accelerator() -> None:
    """The compiler's failure is a reason of the model with its fix, and that nobody predicted it is said."""
    tflite, report = model()
    details: dict[str, Any] = {"failures": {"SM8550": {"reason": "two tensors have one name"}}}
    error = CompilerError("it failed", hint="rename one", details=details)
    asked = ask(Answering(error=error), tflite, report, HEXAGON, SM8550, 1.0)
    assert asked.summary["accelerator"] == asked.partitions == 0
    assert asked.model_reasons[0].code == "compile-fails"
    assert "two tensors have one name" in asked.model_reasons[0].message
    assert asked.model_reasons[0].fix == "rename one"
    assert any("predicts no failure" in note for note in asked.notes)


def test_without_an_answer_the_table_stands() -> None:
    """A time limit, or a log that names no op, leaves the table's placement and says so."""
    tflite, report = model()
    counted = [CompiledOp("ABS", 2, Placement.ACCELERATOR), CompiledOp("ELU", 1, Placement.HOST)]
    for compiler, words in (
        (Answering(error=CompilerError("it took longer than 1 s")), "no answer: it took longer"),
        (Answering(counted), "places 2 of 3 ops"),
        (Answering(), "was not asked: no reason"),
    ):
        asked = ask(compiler, tflite, report, HEXAGON, SM8550, 1.0)
        assert (asked.ops, asked.sources) == (report.ops, report.sources)
        assert words in asked.notes[-1]


def test_when_the_compiler_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default: installed, a chip given, a small file. The user's word comes first."""
    compiler = Answering()
    monkeypatch.setattr(compiler_placement, "get_compiler", lambda _: compiler)
    assert decide(HEXAGON, "int8", 1000, SM8550, None).compiler is compiler
    assert decide(HEXAGON, "int8", 1000, SM8550, False).compiler is None
    assert decide(HEXAGON, "int8", 1000, TargetOptions(), None) == compiler_placement.Asking()
    large = decide(HEXAGON, "int8", 1001, SM8550, None)
    assert large.compiler is None
    assert "--ask-compiler" in large.note
    assert decide(HEXAGON, "int8", 1001, SM8550, True).compiler is compiler
    legacy = decide(HEXAGON, "int8", 1000, TargetOptions(socs=("SM8250",)), None)
    assert "dsp-legacy" in legacy.note
    compiler.problem = "libfoo.so is missing"
    assert "pip install it" in decide(HEXAGON, "int8", 1000, SM8550, None).note
    with pytest.raises(ToolMissingError, match="libfoo"):
        decide(HEXAGON, "int8", 1000, SM8550, True)
    assert decide(replace(HEXAGON, compiler=None), "int8", 1, SM8550, True) == compiler_placement.Asking()


def test_every_level_of_a_source_can_be_shown() -> None:
    """A profile's fact of any level has a `Basis` and a label, so that no report of a plugin's target fails."""
    assert set(_SOURCE_LEVELS) | {"compiler"} == set(Basis) == set(_BASIS)


@needs_compiler
@pytest.mark.slow
def test_qualcomms_compiler_is_asked_about_the_file_that_a_build_would_write() -> None:
    """A float model is quantized for the question; a .tflite with a complex tensor is refused as a whole."""
    (result,) = check(DIGITS, ["hexagon"], target_options=SM8550).results
    assert result.planned == "int8"
    assert result.report is not None
    assert {finding.source for finding in result.report.ops} == {"compiler"}
    assert result.report.summary["host"] == 0
    assert "SM8550" in result.report.sources["compiler"]


@needs_compiler
@pytest.mark.slow
def test_a_predicted_failure_is_the_compilers_as_well(tmp_path: Path) -> None:
    """The table and the compiler name the same cause, so there is no note about a difference."""
    (tmp_path / "complex.tflite").write_bytes(complex_tensor())
    options = replace(SM8550, repair="none")
    (result,) = check(tmp_path / "complex.tflite", ["hexagon"], target_options=options, scheme="float16").results
    assert result.report is not None
    assert result.report.model_reasons[0].code == "compile-fails"
    assert "COMPLEX64" in result.report.model_reasons[0].message
    assert not any("disagrees" in note for note in result.report.notes)
