"""A broadcast value of SELECT_V2 that is an input is broadcast before: the same values, and a file that compiles."""

import numpy as np
import pytest
from builders import Net, run, samples
from qnn_support import needs_compiler

from edgepack.compilers import qnn_sdk
from edgepack.compilers.qnn_placement import host_ops
from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.read import schema
from edgepack.pipeline.options import TargetOptions
from edgepack.pipeline.rewrite import rewrite_unproven
from edgepack.profiles.model import SchemeRule
from edgepack.profiles.registry import get_target
from edgepack.repair import explicit_broadcasts

SHAPE = (1, 4, 4, 6)


def select(*shapes: tuple[int, ...], computed: bool = False) -> bytes:
    """SELECT_V2 in int16 of two inputs of the model, or of what LOGISTIC makes of them."""
    net = Net()
    x = net.tensor("x", SHAPE, dtype="INT8")
    mask, y = net.tensor("mask", SHAPE, dtype="BOOL"), net.tensor("y", SHAPE)
    net.op("GREATER", [x, net.constant("zero", 0, "INT8")], [mask])
    given = [net.tensor(name, shape) for name, shape in zip("ab", shapes, strict=True)]
    values = [net.tensor(f"{name}2", shape) for name, shape in zip("ab", shapes, strict=True)] if computed else given
    for source, value in zip(given, values, strict=True):
        if computed:
            net.op("LOGISTIC", [source], [value])
    net.op("SELECT_V2", [mask, *values], [y])
    file = unpack(net.build([x, *given], [y]))
    for tensor in file.subgraphs[0].tensors:
        if tensor.name != b"mask":
            narrow = tensor.type == schema().TensorType.INT8
            tensor.type = tensor.type if narrow else schema().TensorType.INT16
            tensor.quantization = schema().QuantizationParametersT()
            scale = 2.0**-5 if narrow else 2.0**-15
            tensor.quantization.scale, tensor.quantization.zeroPoint = np.float32([scale]), np.int64([0])
    return pack(file)


@pytest.mark.parametrize("shapes", [(SHAPE, (6,)), ((1, 4, 4, 1), SHAPE), ((6,), (1, 4, 1, 6))], ids=str)
def test_the_values_are_the_same_to_the_last_bit(shapes: tuple[tuple[int, ...], ...]) -> None:
    """One BROADCAST_TO for each value that is not in the shape of the result."""
    before = select(*shapes)
    after, rewrites = explicit_broadcasts(before)
    graph = read_model(after).main
    count = sum(shape != SHAPE for shape in shapes)
    assert [op.name for op in graph.ops] == ["GREATER", *["BROADCAST_TO"] * count, "SELECT_V2"]
    assert {graph.tensors[i].shape for i in graph.ops[-1].inputs} == {SHAPE}
    assert [rewrite.code for rewrite in rewrites] == ["explicit-broadcast"]
    for sample in samples(before, 3):
        assert np.array_equal(run(before, sample)[0], run(after, sample)[0])
    assert explicit_broadcasts(after) == (after, ())


def test_what_an_op_computes_is_left_alone() -> None:
    """The compiler creates these as they are."""
    before = select(SHAPE, (6,), computed=True)
    assert explicit_broadcasts(before) == (before, ())
    # Unless an op on the host may compute it.
    after, [_] = explicit_broadcasts(before, computed=True)
    assert [op.name for op in read_model(after).main.ops if "BROADCAST" in op.name] == ["BROADCAST_TO"]
    for sample in samples(before, 3):
        assert np.array_equal(run(before, sample)[0], run(after, sample)[0])


def test_only_where_the_compiler_refuses_the_file() -> None:
    """For Hexagon the file is rewritten, with the ops that then run on it; for the CPU it is as it was."""
    before = select(SHAPE, (6,))
    rule, hexagon = SchemeRule("int16x8", io="INT16"), get_target("hexagon")
    done = rewrite_unproven(before, hexagon, rule, TargetOptions(socs=("SM8550",)))
    assert [(rewrite.code, rewrite.moved_ops) for rewrite in done.rewrites] == [("explicit-broadcast", 2)]
    assert rewrite_unproven(before, hexagon, rule, TargetOptions(socs=("SM8550",)), mode="none").tflite == before
    assert rewrite_unproven(before, get_target("cpu"), rule, TargetOptions()).tflite == before


@needs_compiler
@pytest.mark.parametrize("soc", ["SM8350", "SM8550", "SM8850"])
def test_qualcomms_compiler_writes_the_file_then(soc: str) -> None:
    """Without the rewrite it cannot create the op; with it, and behind another op, all runs on the accelerator."""
    before = select(SHAPE, (6,))
    assert not qnn_sdk.run(qnn_sdk.find(), before, soc).data
    for tflite in (explicit_broadcasts(before)[0], select(SHAPE, (6,), computed=True)):
        compiled = qnn_sdk.run(qnn_sdk.find(), tflite, soc).data
        assert not host_ops(read_model(tflite).main, read_model(compiled).main)
