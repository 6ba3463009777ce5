"""Files that a compiler refuses as a whole: what lets them compile computes the same, and nothing more is changed."""

from collections.abc import Callable

import numpy as np
import pytest
from builders import Net, samples
from repair_nets import net, refusing

from edgepack.graph import Model, read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.read import schema
from edgepack.repair import TOLERANCE, dense_constants, distinct_names, prove, repair

SHAPE = (1, 4, 4, 6)


def on_host(name: str) -> bytes:
    """A convolution, an op in float, and an ABS behind it."""

    def write(n: Net, x: int) -> list[int]:
        y, z = n.tensor("y", SHAPE), n.tensor("z", SHAPE)
        if name == "CUMSUM":
            n.op(name, [x, n.constant("axis", 3, "INT32")], [y], exclusive=True)
        elif name == "GATHER":
            n.op(name, [x, n.constant("indices", [5, 4, 3, 2, 1, 0], "INT32")], [y], axis=-1)
        elif name == "SELECT":
            larger = n.tensor("larger", SHAPE, dtype="BOOL")
            n.op("GREATER", [x, n.constant("zero", 0.0)], [larger])
            n.op(name, [larger, x, n.constant("other", np.full(SHAPE, 2.0))], [y])
        else:
            n.op(name, [x], [y])
        n.op("ABS", [y], [z])
        return [z]

    return net(write, SHAPE)


def lstm(steps: int, *, time_major: bool = False, projection: bool = False) -> bytes:
    n, units = Net(), 4
    shape = (steps, 1) if time_major else (1, steps)
    x = n.tensor("x", (*shape, 5))
    inputs = [
        x,
        *(n.weights(f"w{i}", units, 5) for i in range(4)),
        *(n.weights(f"r{i}", units, units) for i in range(4)),
    ]
    inputs += [-1, -1, -1, *(n.weights(f"b{i}", units) for i in range(4))]
    inputs += [n.weights("projection", units, units) if projection else -1, -1]
    inputs += [n.tensor("hidden", (1, units)), n.tensor("cell", (1, units)), -1, -1, -1, -1]
    y = n.tensor("y", (*shape, units))
    n.op("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], fusedActivationFunction=4, timeMajor=time_major)
    file = unpack(n.build([x], [y]))
    for index in inputs[18:20]:
        file.subgraphs[0].tensors[index].isVariable = True
    return pack(file)


def spectrum(*parts: str, fft: int = 16) -> bytes:
    n = Net()
    x = n.tensor("x", (3, 1, 16))
    c = n.tensor("c", (3, 1, 9), dtype="COMPLEX64")
    n.op("RFFT2D", [x, n.constant("length", [1, fft], "INT32")], [c])
    outputs = [n.tensor(part, (3, 1, 9)) for part in parts]
    for part, y in zip(parts, outputs, strict=True):
        n.op(part, [c], [y])
    return n.build([x], outputs)


def refusing_file(*names: str, rank: int = 99) -> tuple[Callable[[Model], frozenset[int]], Callable[[Model], bool]]:
    """A target whose compiler writes no file because of some ops, below a rank; at that rank they stay on the host."""
    refused = refusing(*names)

    def at(model: Model, low: bool) -> frozenset[int]:
        found = refused(model)
        return frozenset(i for i in found if (model.main.tensors[i].rank < rank) is low)

    def refuses(model: Model) -> bool:
        return bool(at(model, low=True))

    def score(model: Model) -> frozenset[int]:
        every = frozenset(op.outputs[0] for op in model.main.ops)
        return every if refuses(model) else at(model, low=False)

    return score, refuses


@pytest.mark.parametrize("name", ["ELU", "ROUND", "SELECT", "CUMSUM", "GATHER", "GELU"])
@pytest.mark.parametrize("rank", [5, 6])
def test_an_op_that_cannot_be_created_stays_on_the_host(name: str, rank: int) -> None:
    """It is written at the first rank that the compiler leaves alone, with the same result, and all else runs."""
    before = on_host(name)
    score, refuses = refusing_file(name, rank=rank)
    repaired = repair(before, score, refuses=refuses)
    assert [rewrite.code for rewrite in repaired.rewrites] == ["kept-on-host"]
    graph = read_model(repaired.tflite).main
    assert {op.label for op in graph.ops if graph.tensors[op.outputs[0]].rank == rank} == {"RESHAPE", name}
    assert prove(before, repaired.tflite, samples(before, 3)) <= TOLERANCE


def test_an_op_that_is_only_refused_is_left_alone() -> None:
    """Without a refusal of the whole file no op is written at another rank, and no repair is looked for."""
    before = on_host("ELU")
    assert repair(before, refusing("ELU")).tflite == before
    score, _ = refusing_file("ELU", rank=5)
    assert repair(before, score).tflite == before


@pytest.mark.parametrize("constant", ["", "left", "right"])
def test_a_subtraction_becomes_a_sum(constant: str) -> None:
    """The negative is a constant or a product, and the result the same to the last bit."""

    def write(n: Net, x: int) -> list[int]:
        one, y, z = n.constant("one", 1.25), n.tensor("y", SHAPE), n.tensor("z", SHAPE)
        other = n.tensor("other", SHAPE)
        n.op("ABS", [x], [other])
        n.op("SUB", {"": [x, other], "left": [one, x], "right": [x, one]}[constant], [y], fusedActivationFunction=1)
        n.op("MUL", [y, other], [z])
        return [z]

    before = net(write, SHAPE)
    score, refuses = refusing_file("SUB")
    repaired = repair(before, score, refuses=refuses)
    assert [rewrite.code for rewrite in repaired.rewrites] == ["negative-sum"]
    assert prove(before, repaired.tflite, samples(before, 3)) == 0


@pytest.mark.parametrize(("steps", "time_major"), [(2, False), (7, False), (7, True)])
def test_an_lstm_becomes_its_steps(steps: int, time_major: bool) -> None:
    """The steps compute what the fused op computes from its initial state, and no variable is left."""
    before = lstm(steps, time_major=time_major)
    score, refuses = refusing_file("UNIDIRECTIONAL_SEQUENCE_LSTM")
    repaired = repair(before, score, refuses=refuses)
    assert [rewrite.code for rewrite in repaired.rewrites] == ["unrolled-lstm"]
    assert not any(tensor.is_variable for tensor in read_model(repaired.tflite).main.tensors)
    assert prove(before, repaired.tflite, samples(before, 3)) <= TOLERANCE


@pytest.mark.parametrize("before", [lstm(65), lstm(3, projection=True)], ids=["long", "projection"])
def test_other_lstms_are_left_alone(before: bytes) -> None:
    """Too many steps, or parts that the steps do not have."""
    score, refuses = refusing_file("UNIDIRECTIONAL_SEQUENCE_LSTM")
    assert repair(before, score, refuses=refuses).tflite == before


@pytest.mark.parametrize("parts", [("COMPLEX_ABS",), ("REAL", "IMAG"), ("COMPLEX_ABS", "IMAG")])
def test_a_spectrum_becomes_products(parts: tuple[str, ...]) -> None:
    """Magnitudes, real and imaginary parts are the runtime's, and no complex tensor is left."""
    before = spectrum(*parts)
    score, refuses = refusing_file("RFFT2D")
    repaired = repair(before, score, refuses=refuses)
    assert [rewrite.code for rewrite in repaired.rewrites] == ["real-spectrum"]
    assert {tensor.dtype for tensor in read_model(repaired.tflite).main.tensors} == {"FLOAT32", "INT32"}
    assert prove(before, repaired.tflite, samples(before, 3)) <= TOLERANCE


def test_a_spectrum_of_padded_rows_is_left_alone() -> None:
    """A transform longer than its rows is another one."""
    before = spectrum("COMPLEX_ABS", fft=32)
    score, refuses = refusing_file("RFFT2D")
    assert repair(before, score, refuses=refuses).tflite == before


def test_names_differ_and_an_app_sees_the_old_ones() -> None:
    """Of two inputs of one written name the second is renamed; the signature that is added has both names."""
    n = Net()
    x, y, z = (n.tensor(name, (1, 4)) for name in ("a/b", "a:b", "sum"))
    n.op("ADD", [x, y], [z])
    before = n.build([x, y], [z])
    after, rewrites = distinct_names(before)
    model = read_model(after)
    assert [tensor.name for tensor in model.main.tensors] == ["a/b", "a:b_2", "sum"]
    assert dict(model.signatures[0].inputs) == {"a/b": 0, "a:b": 1}
    assert [rewrite.code for rewrite in rewrites] == ["distinct-names"]
    assert prove(before, after, samples(before, 2)) == 0
    assert distinct_names(after) == (after, ())


def test_sparse_constants_of_a_quantized_file_become_dense() -> None:
    """DENSIFY disappears, and the values are those that it computes."""
    n = Net()
    x, y = n.tensor("x", (2, 3), dtype="INT8"), n.tensor("y", (2, 3), dtype="INT8")
    stored = n.constant("w", [[5, 7], [0, 0]], "INT8")
    dense = n.tensor("dense", (2, 3), dtype="INT8")
    n.op("DENSIFY", [stored], [dense])
    n.op("CONCATENATION", [x, dense], [n.tensor("z", (4, 3), dtype="INT8")], axis=0)
    file = unpack(n.build([x], [4]))
    del y
    graph = file.subgraphs[0]
    for tensor in graph.tensors:
        tensor.quantization = schema().QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = np.float32([0.5]), np.int64([0])
    sparsity, rows, columns = (
        getattr(schema(), name)() for name in ("SparsityParametersT", *["DimensionMetadataT"] * 2)
    )
    rows.denseSize, columns.format = 2, schema().DimensionType.SPARSE_CSR
    for field, values in (("arraySegments", [0, 1, 2]), ("arrayIndices", [2, 0])):
        vector = schema().Int32VectorT()
        vector.values = np.int32(values)
        setattr(columns, field, vector)
        setattr(columns, f"{field}Type", schema().SparseIndexVector.Int32Vector)
    sparsity.traversalOrder, sparsity.dimMetadata = np.int32([0, 1]), [rows, columns]
    weights = graph.tensors[stored]
    weights.sparsity, weights.shape = sparsity, np.int32([2, 3])
    file.buffers[weights.buffer].data = np.int8([5, 7]).view(np.uint8)
    before = pack(file)
    after, rewrites = dense_constants(before)
    assert [rewrite.code for rewrite in rewrites] == ["dense-constant"]
    graph_after = read_model(after).main
    assert [op.label for op in graph_after.ops] == ["CONCATENATION"]
    assert graph_after.tensors[graph_after.ops[0].inputs[1]].data.tolist() == [[0, 0, 5], [7, 0, 0]]
    assert dense_constants(after) == (after, ())
