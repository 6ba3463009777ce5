"""The text output of `edgepack check`: short, at most 80 columns wide, every op with `--all`."""

from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgepack.cli.main import run
from edgepack.compat import check
from edgepack.graph import read_model
from edgepack.pipeline.reports.sarif import sarif
from edgepack.profiles import get_target

OPS = 300
KINDS = (("TANH", 2), ("ARG_MAX", 2), ("LEAKY_RELU", 2))


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of 300 ops, every tenth of which the Edge TPU does not support."""
    file = schema.ModelT()
    file.version, file.buffers, file.operatorCodes = 3, [schema.BufferT()], []
    for name, version in KINDS:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = version
        file.operatorCodes.append(code)
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [0], [OPS]
    for i in range(OPS + 1):
        tensor = schema.TensorT()
        tensor.name = f"a/rather/long/name/as/keras/gives/them/to/the/tensors/of/nested/blocks/tensor_{i}"
        tensor.shape, tensor.type, tensor.buffer = [1, 8, 8, 4], schema.TensorType.INT8, 0
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [1 / 128], [0]
        graph.tensors.append(tensor)
    for i in range(OPS):
        op = schema.OperatorT()
        op.opcodeIndex = 0 if i % 10 else (i // 10) % 3
        op.inputs, op.outputs = [i], [i + 1]
        graph.operators.append(op)
    file.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    path = tmp_path_factory.mktemp("long") / "long.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def check_lines(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines of `edgepack check` in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["check", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("target", ["edgetpu", "cpu", "android-gpu", "hexagon"])
def test_a_long_model_is_told_briefly(
    long_model: Path, target: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """300 ops are summarized on one screen, no line wider than the terminal, with every refused kind of op."""
    lines = check_lines(["-t", target, str(long_model)], monkeypatch, capsys)
    assert len(lines) < 40
    assert max(map(len, lines)) <= 80
    report = check(read_model(long_model), get_target(target))
    text = "\n".join(lines)
    assert {finding.op for finding in report.ops if finding.reasons} <= {op for op, _ in KINDS if op in text}
    assert {reason.code for finding in report.ops for reason in finding.reasons} <= {
        line.rpartition("[")[2].rstrip("]") for line in lines if line.endswith("]")
    }


def test_ops_that_were_cut_off_are_one_entry(
    long_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ops of one kind that cut others off share one entry."""
    text = " ".join(" ".join(check_lines(["-t", "edgetpu", str(long_model)], monkeypatch, capsys)).split())
    assert text.count("[outside-partition]") == 2
    assert "host (documentation): ARG_MAX (ops 10, 40, 70, 100 and 6 more)" in text
    assert (
        "cut off from the accelerator's partition by ops 10, 40, 70, 100 and 6 more (ARG_MAX), which run elsewhere"
        in text
    )


def test_all_lists_every_op(
    long_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --all each op has an entry, in order, with its own reason; only a name may exceed the width."""
    lines = check_lines(["-t", "edgetpu", "--all", str(long_model)], monkeypatch, capsys)
    assert [line for line in lines if len(line) > 80 and len(line.split()) > 1] == []
    numbers = [line.split() for line in lines]
    entries = [words for words in numbers if len(words) > 3 and words[0].isdigit() and words[3].startswith("v")]
    assert [int(words[0]) for words in entries] == list(range(OPS))
    assert {words[1] for words in entries} == {"accelerator", "host"}
    assert sum("by op 290 (" in line for line in lines) >= 1


def test_sarif_names_every_op_that_is_refused(long_model: Path) -> None:
    """SARIF has one result for each op's own reason and none for a consequence of another op."""
    report = check(read_model(long_model), get_target("edgetpu"))
    results = sarif([report], "long.tflite")["runs"][0]["results"]
    own = [reason.code for finding in report.ops for reason in finding.reasons if reason.code != "outside-partition"]
    assert sorted(result["ruleId"] for result in results) == sorted(own)
