"""Files with float16 weights become float32 models that compute the same, bit for bit."""

from collections.abc import Callable
from typing import Any

import builders
import numpy as np
import numpy.typing as npt
import pytest

from edgepack.errors import ModelFileError
from edgepack.graph import read_model
from edgepack.graph.edit import add_buffer, builtin_code, code_number, op_code, pack, unpack
from edgepack.graph.read import schema
from edgepack.graph.sparse import dense_values
from edgepack.graph.widen import widen
from edgepack.quantize.float16 import to_float16


def _half(values: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    return np.asarray(values, np.float16)


def _shared_constant() -> bytes:
    """One float16 constant that two DEQUANTIZE ops read, one of which feeds two ops."""
    net = builders.Net()
    x = net.tensor("x", (1, 4))
    half = net.constant("half", _half(net.random.normal(size=(1, 4))), "FLOAT16")
    first, second, total, scaled, y = (net.tensor(name, (1, 4)) for name in ("a", "b", "total", "scaled", "y"))
    net.op("DEQUANTIZE", [half], [first])
    net.op("DEQUANTIZE", [half], [second])
    net.op("ADD", [x, first], [total])
    net.op("MUL", [total, first], [scaled])
    net.op("ADD", [scaled, second], [y])
    return net.build([x], [y])


def _partly_half() -> bytes:
    """A classifier whose first weights are float16 and whose others stay float32."""
    return _with_one_half(builders.classifier())


def _with_one_half(tflite: bytes) -> bytes:
    half = to_float16(tflite)
    source, model = read_model(half), unpack(half)
    graph = model.subgraphs[0]
    kept = 0
    ops = []
    for op, plain in zip(graph.operators, source.main.ops, strict=True):
        tensor = source.main.tensors[plain.inputs[0]]
        if plain.name == "DEQUANTIZE" and tensor.dtype == "FLOAT16":
            kept += 1
            if kept > 1:
                values = np.asarray(tensor.data, np.float32)
                buffer = schema().BufferT()
                buffer.data = np.frombuffer(values.tobytes(), np.uint8)
                model.buffers.append(buffer)
                graph.tensors[plain.outputs[0]].buffer = len(model.buffers) - 1
                graph.tensors[tensor.index].type = schema().TensorType.FLOAT32
                graph.tensors[tensor.index].buffer = len(model.buffers) - 1
                continue
        ops.append(op)
    graph.operators = ops
    return pack(model)


def _moved_before_it_widens() -> bytes:
    """A float16 table that a RESHAPE reads before it becomes float32."""
    net = builders.Net()
    x = net.tensor("x", (2, 3))
    table = net.constant("table", _half(net.random.normal(size=6)), "FLOAT16")
    shape = net.constant("shape", np.array([2, 3]), "INT32")
    moved = net.tensor("moved", (2, 3), dtype="FLOAT16")
    wide, y = net.tensor("wide", (2, 3)), net.tensor("y", (2, 3))
    net.op("RESHAPE", [table, shape], [moved])
    net.op("DEQUANTIZE", [moved], [wide])
    net.op("ADD", [x, wide], [y])
    return net.build([x], [y])


@pytest.mark.parametrize(
    "make",
    [
        lambda: to_float16(builders.classifier()),
        lambda: to_float16(builders.two_in_two_out()),
        _shared_constant,
        _partly_half,
        _moved_before_it_widens,
    ],
)
def test_a_widened_file_is_float_and_computes_the_same(make: Callable[[], bytes]) -> None:
    """No float16, no conversion or operator code of one is left, names stay, and outputs are equal in every bit."""
    before = make()
    after, notes = widen(before)
    source, model = read_model(before), read_model(after)
    assert not source.is_float
    assert model.is_float
    assert {tensor.dtype for tensor in model.main.tensors} <= {"FLOAT32", "INT32"}
    codes = {code_number(code) for code in unpack(after).operatorCodes}
    assert codes == {builtin_code(op.name) for op in model.main.ops}
    assert builtin_code("DEQUANTIZE") not in codes
    assert (model.input_names(), model.output_names()) == (source.input_names(), source.output_names())
    assert "float16" in notes[0]
    for sample in builders.samples(before, 3):
        for expected, actual in zip(builders.run(before, sample), builders.run(after, sample), strict=True):
            np.testing.assert_array_equal(expected, actual)
    assert widen(after) == (after, ())


def test_a_constant_output_keeps_its_name_and_values() -> None:
    """An output that is a float16 constant stays an output; XNNPACK leaves it 0 behind a DEQUANTIZE."""
    net = builders.Net()
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1, 4))
    wide = net.tensor("anchors", (4,))
    net.op("DEQUANTIZE", [net.constant("half", _half(np.arange(4)), "FLOAT16")], [wide])
    net.op("ADD", [x, wide], [y])
    after, _ = widen(net.build([x], [y, wide]))
    model = read_model(after)
    assert model.is_float
    assert model.output_names() == ("y", "anchors")
    outputs = builders.run(after, {"x": np.ones((1, 4), np.float32)})
    np.testing.assert_array_equal(outputs[0], [[1, 2, 3, 4]])
    np.testing.assert_array_equal(outputs[1], [0, 1, 2, 3])


def test_a_file_that_stays_quantized_is_not_touched() -> None:
    """int8 weights beside float16 ones keep the file quantized: it ships as the author made it."""
    model = unpack(_partly_half())
    graph = model.subgraphs[0]
    tensor = next(t for t in graph.tensors if t.type == schema().TensorType.FLOAT32 and t.buffer and len(t.shape) == 4)
    values = np.frombuffer(np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes(), np.float32)
    tensor.type = schema().TensorType.INT8
    tensor.quantization = schema().QuantizationParametersT()
    tensor.quantization.scale = np.array([0.01], np.float32)
    tensor.quantization.zeroPoint = np.array([0], np.int64)
    tensor.buffer = add_buffer(model, np.clip(values / 0.01, -127, 127).astype(np.int8))
    mixed = pack(model)
    assert widen(mixed) == (mixed, ())


def test_arithmetic_in_float16_is_not_touched() -> None:
    """A float16 constant that an op computes with stays: float32 arithmetic would give other values."""
    net = builders.Net()
    x, y = net.tensor("x", (1, 4), dtype="FLOAT16"), net.tensor("y", (1, 4), dtype="FLOAT16")
    net.op("ADD", [x, net.constant("half", _half(np.ones(4)), "FLOAT16")], [y])
    tflite = net.build([x], [y])
    assert widen(tflite) == (tflite, ())


def _level(size: int = 0, segments: list[int] | None = None, indices: list[int] | None = None) -> Any:
    level = schema().DimensionMetadataT()
    level.denseSize = size
    level.format = schema().DimensionType.DENSE if segments is None else schema().DimensionType.SPARSE_CSR
    for name, values in (("arraySegments", segments), ("arrayIndices", indices)):
        if values is not None:
            holder = schema().Int32VectorT()
            holder.values = np.array(values, np.int32)
            setattr(level, name, holder)
            setattr(level, f"{name}Type", schema().SparseIndexVector.Int32Vector)
    return level


def _sparsity(order: list[int], levels: list[Any], blocks: list[int] | None = None) -> Any:
    sparsity = schema().SparsityParametersT()
    sparsity.traversalOrder, sparsity.blockMap, sparsity.dimMetadata = order, blocks, levels
    return sparsity


#: The matrix of schema.fbs: rows dense, columns compressed.
_MATRIX = np.array([[1, 0, 2], [0, 0, 0], [0, 3, 0]], np.float16)


def test_sparse_constants_become_dense() -> None:
    """CSR, and blocks of 2 by 2 in CSR, give the values that DENSIFY would give."""
    csr = _sparsity([0, 1], [_level(3), _level(0, [0, 2, 2, 3], [0, 2, 1])])
    np.testing.assert_array_equal(dense_values(np.array([1, 2, 3], np.float16), (3, 3), csr), _MATRIX)
    blocks = _sparsity([0, 1, 2, 3], [_level(2), _level(0, [0, 1, 2], [1, 0]), _level(2), _level(2)], [0, 1])
    expected = np.array([[0, 0, 1, 2], [0, 0, 3, 4], [5, 6, 0, 0], [7, 8, 0, 0]], np.float32)
    np.testing.assert_array_equal(dense_values(np.arange(1, 9, dtype=np.float32), (4, 4), blocks), expected)


@pytest.mark.parametrize(
    "sparsity",
    [
        _sparsity([0], [_level(3)]),
        _sparsity([0, 1], [_level(3), _level(0, [0, 2], [0, 2, 1])]),
        _sparsity([0, 1], [_level(3), _level(0, [0, 2, 2, 3], [0, 9, 1])]),
        _sparsity([0, 1], [_level(3), _level(0, [0, 2, 2, 3], [0])]),
        _sparsity([0, 1], [_level(1 << 30), _level(1 << 30)]),
        _sparsity([0, 1, 2], [_level(3), _level(3), _level(1)], [7]),
    ],
)
def test_a_sparse_constant_that_contradicts_its_shape_is_refused(sparsity: Any) -> None:
    """A damaged or hostile description is one clear error, without memory for what it claims."""
    with pytest.raises(ModelFileError, match="sparse constant"):
        dense_values(np.array([1, 2, 3], np.float16), (3, 3), sparsity)


def test_sparse_float16_weights_become_a_float_model() -> None:
    """DENSIFY and DEQUANTIZE of a sparse float16 constant, as MediaPipe's sparse files have them, disappear."""
    net = builders.Net()
    x, y = net.tensor("x", (1, 3)), net.tensor("y", (1, 3))
    stored = net.tensor("w", (3, 3), np.array([1, 2, 3, 0, 0, 0, 0, 0, 0], np.float16), "FLOAT16")
    dense, wide = net.tensor("dense", (3, 3), dtype="FLOAT16"), net.tensor("wide", (3, 3))
    net.op("FULLY_CONNECTED", [x, wide, net.constant("b", np.zeros(3))], [y])
    model = unpack(net.build([x], [y]))
    graph = model.subgraphs[0]
    graph.tensors[stored].sparsity = _sparsity([0, 1], [_level(3), _level(0, [0, 2, 2, 3], [0, 2, 1])])
    for name, source, result in (("DEQUANTIZE", dense, wide), ("DENSIFY", stored, dense)):
        op = schema().OperatorT()
        op.opcodeIndex = op_code(model, name, version=3 if name == "DEQUANTIZE" else 1)
        op.inputs, op.outputs = np.array([source], np.int32), np.array([result], np.int32)
        graph.operators.insert(0, op)
    before = pack(model)
    after, notes = widen(before)
    assert [op.name for op in read_model(after).main.ops] == ["FULLY_CONNECTED"]
    assert len(notes) == 2
    sample = {"x": np.array([[1.0, 10.0, 100.0]], np.float32)}
    np.testing.assert_array_equal(builders.run(after, sample)[0], builders.run(before, sample)[0])
    np.testing.assert_array_equal(builders.run(after, sample)[0], [[201, 0, 30]])
