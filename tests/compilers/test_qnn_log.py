"""The log of Qualcomm's compiler gives the reason of each refused op and the cause of a failed compilation."""

import pytest

from edgepack.compilers.qnn_log import Partitioning, TypeSet, parse

#: Excerpts of logs of ai-edge-litert 2.3.0 with QAIRT 2.51, in the streams that they were written to.
LITERT = """INFO: [compiler_plugin.cc:948] Applying plugin with SDK version: v2.51.0.260929181845
WARNING: [Qnn] Convert bias tensor in conv2d op from int64 to int32.
ERROR: [qnn_manager.cc:480]
QNN op validation failed: 'Tile_2' (type=Tile)
  Inputs:
    [0] name="0_litert_4" dtype=QNN_DATATYPE_SFIXED_POINT_16 dims=[1,8,8,8] per-tensor-quant
  Outputs:
    [0] name="2_litert_5" dtype=QNN_DATATYPE_SFIXED_POINT_16 dims=[1,16,8,8] (no quantization)
  QNN error=3110. See the QNN validator log lines above for the specific reason.
ERROR: [qnn_compiler_plugin.cc:538]
LiteRT Op #2 'Tile' (code=69) is not supported in Qualcomm Compiler.
  Inputs:
    [0] name="Conv2D2"  tensor_idx=4
    [1] name="Tile/multiples"  tensor_idx=1
  Outputs:
    [0] name="Identity_int16"  tensor_idx=5
ERROR: [Qnn] The batch dimension of Gather OP is not equal to 0.
ERROR: [qnn_compose_graph.cc:1722]
LiteRT Op #7 'Where' (code=109) is not supported in Qualcomm Compiler.
  Inputs:
    [0] name="Greater"  tensor_idx=8
  Outputs:
    [0] name="Where"  tensor_idx=9
INFO: [compiler_plugin.cc:742] Partitioned subgraph<0>, selected 5 ops, from a total of 8 ops. resulted in 2 partitions.
ERROR: [Qnn] The begin tensor and size tensor of Slice OP is not static.
INFO: [compiler_plugin.cc:742] Partitioned subgraph<1>, selected 0 ops, from a total of 1 ops. resulted in 0 partitions.
INFO: [qnn_compiler_plugin.cc:703] Entry point name: qnn_partition_1
"""
QNN = """     0.0ms [ ERROR ]   <E> Requested I/O datatype set:

   in[0]:QNN_DATATYPE_SFIXED_POINT_16
   out[0]:QNN_DATATYPE_SFIXED_POINT_16

     0.0ms [ ERROR ]   <E> Supported I/O datatype sets for the configuration: INT8
   1:
   in[0]:QNN_DATATYPE_UFIXED_POINT_8
   out[0]:QNN_DATATYPE_UFIXED_POINT_8
   2:
   in[0]:QNN_DATATYPE_SFIXED_POINT_8
   out[0]:QNN_DATATYPE_SFIXED_POINT_8

     0.0ms [ ERROR ]   <E> Unsupported input/output datatypes requested for the HTP Op 'Tile' in the node 'Tile_2'.
     0.0ms [ ERROR ]   <E> QnnBackend_validateOpConfig failed 3110
     0.0ms [ ERROR ]   <E> Failed to validate op Tile_2 with error 0xc26
     0.0ms [ ERROR ]   <E> unexpected GraphHtpSettings option 66
"""


def test_refusals_name_op_subgraph_and_data_types() -> None:
    """Each refusal belongs to the subgraph whose line follows it; QNN's sets are those of the node that it refused."""
    log = parse(QNN, LITERT, 0)
    assert log.sdk_version == "2.51.0.260929181845"
    assert log.partitionings == (Partitioning(0, 5, 8, 2), Partitioning(1, 0, 1, 0))
    assert not log.nothing_selected
    assert log.failure is None
    tile, where, gather, slice_ = sorted(log.refusals, key=lambda r: (r.subgraph or 0, r.op_index or 99))
    assert (tile.kind, tile.op_index, tile.op_code, tile.inputs, tile.outputs) == ("validation", 2, 69, (4, 1), (5,))
    assert tile.requested == TypeSet("", ("SFIXED_POINT_16",), ("SFIXED_POINT_16",))
    assert [entry.inputs for entry in tile.supported] == [("UFIXED_POINT_8",), ("SFIXED_POINT_8",)]
    assert (tile.node_inputs[0].quantization, tile.node_outputs[0].quantization) == ("per-tensor-quant", "")
    assert tile.node_outputs[0].shape == (1, 16, 8, 8)
    assert tile.reason.endswith("for the data types int16 -> int16; its first input may be int8 or uint8")
    assert (where.kind, where.op_index) == ("no-builder", 7)
    assert (gather.kind, gather.op_index, gather.subgraph) == ("builder", None, 0)
    assert "batch dimension of Gather" in gather.reason
    assert slice_.subgraph == 1
    assert "Slice OP" in slice_.reason


FAILED = "ERROR: [apply_plugin.cc:455] ERROR: [litert/compiler/plugin/compiler_plugin.cc:504]\n"


@pytest.mark.parametrize(
    ("stdout", "stderr", "code", "kind", "words"),
    [
        ("", "ERROR: [model_load.cc:316] Variable tensors not yet supported.", 5, "variable-tensor", "state"),
        ("", "ERROR: [a.cc:220] QNN Unsupported data type, litert type: 5", 5, "tensor-type", "STRING"),
        ("", "ERROR: [a.cc:220] QNN Unsupported data type, litert type: 99", 5, "tensor-type", "number 99"),
        ("", "ERROR: [a.cc:1908] Failed to add node into graph, error: 1000", 3, "node-refused", "error 1000"),
        ("", "ERROR: [Qnn] Failed to get pad const value data.", 6, "pad-value", "PADV2"),
        ("", "ERROR: [a.cc:101] Unexpected SoC model: SM9999", 1, "soc", "SM9999"),
        (
            'x.     0.0ms [ ERROR ]   <E> "a/Elu_7_LiteRt_OpId_3" generated: could not create op\n0.0ms [E] <E> b',
            FAILED,
            6,
            "cannot-create",
            "a/Elu_7_LiteRt_OpId_3",
        ),
        (
            "",
            "└ Could not load shared library P.so: libatomic.so.1: cannot open shared object file: No such file",
            6,
            "library",
            "libatomic.so.1",
        ),
        ("", "", -11, "signal", "SIGSEGV"),
        ("", "ERROR: [b.cc:1] Something that nobody has seen", 9, "unknown", "Something that nobody has seen"),
        ("\0\xff garbage <E>", "also [ garbage", 2, "unknown", "exit code 2"),
    ],
)
def test_failures_have_cause_and_fix(stdout: str, stderr: str, code: int, kind: str, words: str) -> None:
    """Known messages are translated; unknown ones are passed on, and text that is no log does no harm."""
    failure = parse(stdout, stderr, code).failure
    assert failure is not None
    assert failure.kind == kind
    assert words in failure.reason
    assert failure.hint
    assert failure.op_index == (3 if kind == "cannot-create" else None)


def test_no_selected_op_is_no_failure() -> None:
    """The tool ends with 1 when it selects no op, which leaves the model on the CPU."""
    text = "Partitioned subgraph<0>, selected 0 ops, from a total of 4 ops. resulted in 0 partitions."
    log = parse("", f"INFO: [c.cc:1] {text}\n{FAILED}", 1)
    assert log.nothing_selected
    assert log.failure is None
