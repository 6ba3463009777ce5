"""What Qualcomm's compiler accepts and then cannot create is foretold, or said to be uncertain, and so it is."""

from collections.abc import Callable

import numpy as np
import pytest
from builders import Net
from qnn_support import needs_compiler

from edgepack.compat import check
from edgepack.compilers import qnn_sdk
from edgepack.findings import Report
from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.read import schema
from edgepack.profiles import get_target

SHAPE = (1, 4, 4, 6)
FAILS, MAY_FAIL, FINE = "fails", "may fail", ""


def quantized(net: Net, inputs: list[int], outputs: list[int], dtype: str) -> bytes:
    """Return a graph whose floats, except those named `float...`, have a quantized data type."""
    file = unpack(net.build(inputs, outputs))
    for tensor in file.subgraphs[0].tensors:
        if tensor.type == schema().TensorType.FLOAT32 and not tensor.name.startswith(b"float"):
            tensor.type = getattr(schema().TensorType, dtype)
            tensor.quantization = schema().QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = np.float32([2.0**-10]), np.int64([0])
    return pack(file)


def product(transposed: bool = False, computed: bool = False, softmax: bool = False, matrices: int = 2) -> bytes:
    """Products in int16 of two inputs, or of one and what an ADD computes."""
    net = Net()
    x, y = net.tensor("x", (matrices, 16, 4)), net.tensor("y", (matrices, 8, 4) if transposed else (matrices, 4, 8))
    inputs, left, out = [x, y], x, net.tensor("out", (matrices, 16, 8))
    if computed:
        other, left = net.tensor("other", (matrices, 16, 4)), net.tensor("left", (matrices, 16, 4))
        inputs.append(other)
        net.op("ADD", [x, other], [left])
    net.op("BATCH_MATMUL", [left, y], [out], adjY=transposed)
    if softmax:
        shares = net.tensor("shares", (matrices, 16, 8))
        net.op("SOFTMAX", [out], [shares], beta=1.0)
        out = shares
    return quantized(net, inputs, [out], "INT16")


def masked(logic: tuple[str, ...] = (), both: bool = False, dtype: str = "INT8") -> bytes:
    """A selection in integers by a comparison of floats, through logic with an input, or with another comparison."""
    net = Net()
    a, b, p, q = (net.tensor(name, SHAPE) for name in ("float_a", "float_b", "p", "q"))
    mask, other, y = (
        net.tensor("mask", SHAPE, dtype="BOOL"),
        net.tensor("other", SHAPE, dtype="BOOL"),
        net.tensor("y", SHAPE),
    )
    inputs = [a, b, p, q]
    net.op("GREATER", [a, b], [mask])
    if both:
        net.op("LESS", [b, a], [other])
    elif any(op != "LOGICAL_NOT" for op in logic):
        inputs.append(other)
    for number, op in enumerate(logic):
        result = net.tensor(f"logic{number}", SHAPE, dtype="BOOL")
        net.op(op, [mask] if op == "LOGICAL_NOT" else [mask, other], [result])
        mask = result
    if dtype == "BOOL":
        return net.build(inputs[:2] + inputs[4:], [mask])
    net.op("SELECT_V2", [mask, p, q], [y])
    return quantized(net, inputs, [y], dtype)


def broadcast(dtype: str, *, host: bool = False) -> bytes:
    """A selection with a broadcast value that is an input, or that an op on the CPU computes."""
    net = Net()
    mask, p, q, y = (
        net.tensor("mask", SHAPE, dtype="BOOL"),
        net.tensor("p", (6,)),
        net.tensor("q", SHAPE),
        net.tensor("y", SHAPE),
    )
    value = p
    if host:
        # Six dimensions are too many for the accelerator.
        wide, back = net.tensor("wide", (1, 1, 1, 1, 1, 6)), net.tensor("back", (6,))
        net.op("RESHAPE", [p, net.constant("six", [1, 1, 1, 1, 1, 6], "INT32")], [wide])
        net.op("RESHAPE", [wide, net.constant("one", [6], "INT32")], [back])
        value = back
    net.op("SELECT_V2", [mask, value, q], [y])
    return quantized(net, [mask, p, q], [y], dtype)


CASES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "products of inputs": (product, "SM8550", FAILS),
    "one product": (lambda: product(matrices=1), "SM8550", FINE),
    "a transposed one": (lambda: product(transposed=True), "SM8550", FINE),
    "a computed one": (lambda: product(computed=True), "SM8550", FINE),
    "a softmax of products": (lambda: product(computed=True, softmax=True), "SM8550", MAY_FAIL),
    "float mask": (masked, "SM8350", FAILS),
    "float mask on v73": (masked, "SM8550", FINE),
    "negated float mask": (lambda: masked(("LOGICAL_NOT",)), "SM8350", FAILS),
    "float masks alone": (lambda: masked(("LOGICAL_AND",), both=True, dtype="BOOL"), "SM8350", FINE),
    "float mask and input": (lambda: masked(("LOGICAL_OR",), dtype="BOOL"), "SM8350", FAILS),
    "int16 broadcast": (lambda: broadcast("INT16"), "SM8550", FAILS),
    "int16 broadcast from the CPU": (lambda: broadcast("INT16", host=True), "SM8550", FAILS),
    "int8 broadcast": (lambda: broadcast("INT8"), "SM8350", MAY_FAIL),
}


def foretold(report: Report) -> str:
    if any(reason.code == "compile-fails" for op in report.ops for reason in op.reasons):
        return FAILS
    return MAY_FAIL if any("may fail on" in note for note in report.notes) else FINE


@pytest.mark.parametrize("name", CASES)
def test_what_a_check_says(name: str) -> None:
    """A failure names the fix; an uncertain outcome is a note with the fix, and the ops stay on the accelerator."""
    make, soc, expected = CASES[name]
    report = check(read_model(make()), get_target("hexagon"), soc=soc)
    assert foretold(report) == expected
    if expected == MAY_FAIL:
        [note] = [note for note in report.notes if "may fail on" in note]
        assert "--ask-compiler" in note
        assert report.partitions == 1


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_what_the_compiler_does(name: str) -> None:
    """It writes a file for all that is said to be fine, and none for what is said to fail."""
    make, soc, expected = CASES[name]
    run = qnn_sdk.run(qnn_sdk.find(), make(), soc)
    if expected != MAY_FAIL:
        assert bool(run.data) == (expected == FINE)
