"""Segments for several Edge TPUs, and models compiled to share one: all of it or nothing, and each file told apart.

The compiler is the stand-in; what it prints follows logs of the real one.
"""

from collections import Counter
from pathlib import Path

import edgetpu_standin
import pytest
from edgetpu_standin import RECORDED

from edgepack.compilers import Companion, CompileRequest, CompileResult
from edgepack.compilers.edgetpu import ACCELERATOR_OP, EdgeTpuCompiler
from edgepack.compilers.edgetpu_log import figures_of_each, succeeded
from edgepack.errors import CompilerError, UnfitModelError, UsageError
from edgepack.graph import read_model
from edgepack.graph.segments import segments_fault


def compile_(
    data: bytes, *, name: str = "thing", segments: int = 0, companions: tuple[Companion, ...] = ()
) -> CompileResult:
    request = CompileRequest(data, name, "int8", companions=companions, segments=segments)
    return EdgeTpuCompiler().compile(request, 60)


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
    assert segments_fault(read_model(data), [read_model(result.files[name]) for name in result.segments]) == ""
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
        (
            "torn-pipeline",
            "broken-pipeline",
            "segment 1 reads 'nowhere', which is no input and no output of an earlier segment",
        ),
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
