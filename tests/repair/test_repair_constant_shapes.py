"""Parameters computed from fixed shapes become constants with the same values, and only where that is certain."""

from collections.abc import Callable

import numpy as np
import pytest
from builders import Net, run, samples
from qnn_support import needs_compiler

from edgepack.compilers import qnn_sdk
from edgepack.compilers.qnn_placement import host_ops
from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.repair import constant_shapes

SHAPE = (1, 8, 6, 4)


def _value(net: Net, name: str, inputs: list[int], shape: tuple[int, ...] = (4,), **options: object) -> int:
    out = net.tensor(f"{name}{len(inputs)}_{shape}", shape, dtype="INT32")
    net.op(name, inputs, [out], **options)
    return out


def _ints(net: Net, *values: int) -> int:
    return net.constant(f"ints{values}", list(values), "INT32")


def _element(net: Net, shape: int, position: int) -> int:
    """Return shape[position], as TensorFlow's converter writes it."""
    parts = [_ints(net, position), _ints(net, position + 1), _ints(net, 1)]
    return _value(net, "STRIDED_SLICE", [shape, *parts], (), shrinkAxisMask=1)


#: From the tensor with (1, 8, 6, 4), the begin of a slice.
BEGINS: dict[str, Callable[[Net, int], int]] = {
    "sub": lambda n, s: _value(n, "SUB", [s, _ints(n, 1, 6, 3, 3)]),
    "minimum": lambda n, s: _value(n, "MINIMUM", [s, _ints(n, 0, 1, 2, 1)]),
    "floor-div": lambda n, s: _value(n, "MUL", [_value(n, "FLOOR_DIV", [s, _ints(n, 3, 5, -7, 9)])] * 2),
    "floor-mod": lambda n, s: _value(n, "FLOOR_MOD", [s, _ints(n, 1, 5, 4, 3)]),
    "concatenation": lambda n, s: _value(
        n, "CONCATENATION", [_value(n, "SLICE", [_value(n, "SUB", [s, s]), _ints(n, 1), _ints(n, -1)], (3,)),
                             _ints(n, 1)], axis=0,
    ),
    "gather": lambda n, s: _value(n, "GATHER", [_value(n, "SUB", [s, _ints(n, 1, 6, 4, 3)]), _ints(n, 0, 1, 2, 3)]),
    "product": lambda n, s: _value(
        n, "SUB", [_value(n, "REDUCE_PROD", [s, _ints(n, 0)], ()), _ints(n, 192, 190, 191, 191)]
    ),
    "reshape": lambda n, s: _value(n, "RESHAPE", [_value(n, "SUB", [s, _ints(n, 1, 6, 4, 3)]), _ints(n, -1)]),
    "mul": lambda n, s: _value(n, "MUL", [s, _ints(n, 0, 0, 0, 0)]),
}  # fmt: skip


def sliced(begin: Callable[[Net, int], int], *, also: Callable[[Net, int, int], int] | None = None) -> bytes:
    """A SLICE of (1, 2, 3, 1) behind an ABS, and what `also` reads of its begin."""
    net = Net(3)
    x, h, y = net.tensor("x", SHAPE), net.tensor("h", SHAPE), net.tensor("y", (1, 2, 3, 1))
    net.op("ABS", [x], [h])
    start = begin(net, _value(net, "SHAPE", [h], outType=2))
    net.op("SLICE", [h, start, _ints(net, 1, 2, 3, 1)], [y])
    return net.build([x], [y] if also is None else [y, also(net, h, start)])


def names(tflite: bytes) -> list[str]:
    return [op.name for op in read_model(tflite).main.ops]


@pytest.mark.parametrize("name", BEGINS)
def test_a_computed_begin_becomes_what_the_runtime_computes(name: str) -> None:
    """The outputs are equal to the last bit, and the ops that computed it are gone."""
    before = sliced(BEGINS[name])
    after, rewrites = constant_shapes(before)
    assert names(after) == ["ABS", "SLICE"]
    assert [(rewrite.code, rewrite.op, rewrite.exact) for rewrite in rewrites] == [("constant-shape", "SLICE", True)]
    for sample in samples(before, 2):
        assert np.array_equal(run(before, sample)[0], run(after, sample)[0])
    assert constant_shapes(after) == (after, ())


def open_batch() -> bytes:
    """RESHAPE to (batch, 24, 8), as TensorFlow's converter writes it for an open batch size."""
    net = Net()
    x, y = net.tensor("x", SHAPE), net.tensor("y", (1, 24, 8))
    batch = _element(net, _value(net, "SHAPE", [x], outType=2), 0)
    sizes = [net.constant(f"size{size}", size, "INT32") for size in (24, 8)]
    net.op("RESHAPE", [x, _value(net, "PACK", [batch, *sizes], (3,), valuesCount=3)], [y])
    file = unpack(net.build([x], [y]))
    for index in (x, y):
        tensor = file.subgraphs[0].tensors[index]
        tensor.shapeSignature = np.int32([-1, *tensor.shape[1:]])
    return pack(file)


def test_an_open_batch_is_fixed_first() -> None:
    """It is a rewrite of its own, as for all others."""
    before = open_batch()
    after, rewrites = constant_shapes(before)
    assert [rewrite.code for rewrite in rewrites] == ["batch-1", "constant-shape"]
    assert names(after) == ["RESHAPE"]
    for sample in samples(before, 2):
        assert np.array_equal(run(before, sample)[0], run(after, sample)[0])


def _output(net: Net, h: int, start: int) -> int:
    return start


def _data(net: Net, h: int, start: int) -> int:
    y = net.tensor("float", (4,))
    net.op("CAST", [start], [y])
    return y


@pytest.mark.parametrize("also", [_output, _data], ids=["output", "data"])
def test_what_something_else_reads_stays_computed(also: Callable[[Net, int, int], int]) -> None:
    """An output of the model, or data: the op that is left would still compute it."""
    before = sliced(BEGINS["sub"], also=also)
    assert constant_shapes(before) == (before, ())


def test_a_dynamic_result_is_left_alone() -> None:
    """The shape in the file need not be the true one, so a compiler must not be led to take it."""
    file = unpack(sliced(BEGINS["sub"]))
    result = file.subgraphs[0].tensors[int(file.subgraphs[0].outputs[0])]
    result.shapeSignature = np.int32([1, -1, 3, 1])
    before = pack(file)
    assert constant_shapes(before) == (before, ())


def test_a_division_by_zero_is_left_to_the_runtime() -> None:
    """The runtime's error is the model's, and a build does not hide it."""
    before = sliced(lambda net, shape: _value(net, "FLOOR_DIV", [shape, _ints(net, 1, 0, 1, 1)]))
    assert constant_shapes(before) == (before, ())


def test_a_broken_slice_without_a_result_is_left_alone() -> None:
    """A file may claim anything: no traceback."""
    file = unpack(sliced(BEGINS["sub"], also=lambda net, h, start: h))
    file.subgraphs[0].operators[-1].outputs = np.zeros(0, np.int32)
    file.subgraphs[0].outputs = file.subgraphs[0].outputs[1:]
    before = pack(file)
    assert constant_shapes(before) == (before, ())


@needs_compiler
@pytest.mark.parametrize("soc", ["SM8350", "SM8550", "SM8850"])
def test_qualcomms_compiler_takes_the_slice_then(soc: str) -> None:
    """With a computed begin it leaves SHAPE and SLICE on the CPU, with the constant nothing."""
    before = sliced(BEGINS["sub"])
    left = []
    for tflite in (before, constant_shapes(before)[0]):
        compiled = qnn_sdk.run(qnn_sdk.find(), tflite, soc).data
        graph = read_model(tflite).main
        left.append([graph.ops[index].name for index in host_ops(graph, read_model(compiled).main) or ()])
    assert left == [["SHAPE", "SLICE"], []]
