import builders
import numpy as np
import pytest

from edgepack.graph import Graph, read_model
from edgepack.graph.op_layout import float_ops
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.io_types import quantize_ends
from edgepack.quantize.op_support import FINISHED_INT8
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges
from edgepack.quantize.scale_constraints import same_scale_tensors

#: Further inputs of an op, its output's shape and options, for an input of shape (1, 4, 4, 4).
_ARGUMENTS: dict[str, tuple[list, tuple[int, ...], dict]] = {
    "ARG_MAX": ([("INT32", [-1])], (1, 4, 4), {"outputType": 2}),
    "ARG_MIN": ([("INT32", [-1])], (1, 4, 4), {"outputType": 2}),
    "BATCH_TO_SPACE_ND": ([("INT32", [1, 1]), ("INT32", [[0, 0], [0, 0]])], (1, 4, 4, 4), {}),
    "DEPTH_TO_SPACE": ([], (1, 8, 8, 1), {"blockSize": 2}),
    "EXPAND_DIMS": ([("INT32", [1])], (1, 1, 4, 4, 4), {}),
    "GREATER": ([("FLOAT32", 0.1)], (1, 4, 4, 4), {}),
    "GREATER_EQUAL": ([("FLOAT32", 0.1)], (1, 4, 4, 4), {}),
    "LEAKY_RELU": ([], (1, 4, 4, 4), {"alpha": 0.2}),
    "LESS": ([("FLOAT32", 0.1)], (1, 4, 4, 4), {}),
    "LESS_EQUAL": ([("FLOAT32", 0.1)], (1, 4, 4, 4), {}),
    "MINIMUM": ([("FLOAT32", 0.25)], (1, 4, 4, 4), {}),
    "PRELU": ([("FLOAT32", [[[0.1, 0.2, -0.3, 0.4]]])], (1, 4, 4, 4), {}),
    "REDUCE_MAX": ([("INT32", [1, 2])], (1, 4), {}),
    "REVERSE_V2": ([("INT32", [3])], (1, 4, 4, 4), {}),
    "SPACE_TO_BATCH_ND": ([("INT32", [2, 2]), ("INT32", [[0, 0], [0, 0]])], (4, 2, 2, 4), {}),
    "SPLIT_V": ([("INT32", [1, 3]), ("INT32", 3)], (1, 4, 4, 1), {"numSplits": 2}),
    "SQUEEZE": ([], (4, 4, 4), {}),
    "TILE": ([("INT32", [1, 1, 2, 1])], (1, 4, 8, 4), {}),
    "TOPK_V2": ([("INT32", 2)], (1, 4, 4, 2), {}),
}


def _between(name: str) -> bytes:
    """A convolution, the op, and where its result is real a RELU: the op has int8 on both sides."""
    extra, shape, options = _ARGUMENTS.get(name, ([], (1, 4, 4, 4), {}))
    net = builders.Net(5)
    x = net.tensor("x", (1, 4, 4, 4))
    source = net.conv(x, "conv", (1, 4, 4, 4), 4, "RELU" if name == "LOG" else "NONE")
    if name == "LOG":
        shifted = net.tensor("shifted", (1, 4, 4, 4))
        net.op("ADD", [source, net.constant("one", 1.0)], [shifted])
        source = shifted
    inputs = [source] + [net.constant(f"argument{i}", values, kind) for i, (kind, values) in enumerate(extra)]
    kind = (
        "INT32"
        if name.startswith("ARG_")
        else "BOOL"
        if name.split("_", maxsplit=1)[0] in ("GREATER", "LESS")
        else "FLOAT32"
    )
    outputs = [net.tensor("y", shape, dtype=kind)]
    if name == "SPLIT_V":
        outputs.append(net.tensor("rest", (1, 4, 4, 3)))
    if name == "TOPK_V2":
        outputs.append(net.tensor("places", (1, 4, 4, 2), dtype="INT32"))
    net.op(name, inputs, outputs, **options)
    if kind != "FLOAT32":
        return net.build([x], outputs, (["x"], ["y"]))
    end = net.tensor("end", shape)
    net.op("RELU", [outputs[0]], [end])
    return net.build([x], [end, *outputs], (["x"], ["end", *(f"y{i}" for i in range(len(outputs)))]))


def _quantized(tflite: bytes, io: str = "INT8") -> bytes:
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 30)), read_model(tflite))
    return quantize(tflite, SchemeRule("int8", io), ranges).tflite


@pytest.mark.parametrize("name", sorted(FINISHED_INT8))
def test_each_op_computes_in_int8(name):
    """Each op runs in its int8 kernel without conversions around it and keeps 20 dB, or nine in ten integers."""
    tflite = _between(name)
    quantized = _quantized(tflite)
    graph = read_model(quantized).main
    assert not list(float_ops(graph)) and "DEQUANTIZE" not in {op.name for op in graph.ops}
    assert len(graph.tensors) == len({i for op in graph.ops for i in (*op.inputs, *op.outputs) if i >= 0})
    for sample in builders.samples(tflite, 3, seed=9):
        expected, actual = builders.run(tflite, sample), builders.run(quantized, sample)
        if read_model(tflite).main.tensors[read_model(tflite).main.outputs[0]].dtype != "FLOAT32":
            assert (expected[0] == actual[0]).mean() > 0.9
        else:
            assert builders.snr(expected[1:2], actual[1:2]) > 20


@pytest.mark.parametrize("name", sorted(FINISHED_INT8))
def test_values_that_are_only_passed_on_keep_their_scale(name):
    """Input and output of an op that copies or selects values have one scale in the file."""
    graph = read_model(_quantized(_between(name))).main
    op = next(op for op in graph.ops if op.name == name)
    shared = [graph.tensors[i].quantization for i in same_scale_tensors(op) if graph.tensors[i].dtype == "INT8"]
    assert len({(float(q.scale[0]), int(q.zero_point[0])) for q in shared}) <= 1


def test_a_result_that_nothing_reads_is_int8_too():
    """One part of a SPLIT that nothing reads, as in the first step of an unrolled GRU, leaves nothing in float."""
    net = builders.Net(5)
    x = net.tensor("x", (1, 4, 4, 4))
    source = net.conv(x, "conv", (1, 4, 4, 4), 4, "NONE")
    parts = [net.tensor(f"part{i}", (1, 4, 4, 2)) for i in range(2)]
    net.op("SPLIT", [net.constant("axis", 3, "INT32"), source], parts, numSplits=2)
    end = net.tensor("end", (1, 4, 4, 2))
    net.op("RELU", [parts[0]], [end])
    tflite = net.build([x], [end], (["x"], ["end"]))
    quantized = _quantized(tflite)
    assert not list(float_ops(read_model(quantized).main))
    sample = builders.samples(tflite, 1, seed=9)[0]
    assert builders.snr(builders.run(tflite, sample), builders.run(quantized, sample)) > 20


@pytest.mark.parametrize("io", ["INT8", "UINT8", "FLOAT32"])
def test_softmax_before_tile_is_requantized(io):
    """A fixed output scale is kept where a wider group follows: the values are rescaled, not reinterpreted."""
    net = builders.Net(1)
    x, logits = net.tensor("x", (1, 4)), net.tensor("other", (1, 4))
    soft, least, wide = net.tensor("soft", (1, 4)), net.tensor("least", (1, 4)), net.tensor("wide", (1, 8))
    net.op("FULLY_CONNECTED", [x, net.constant("w", 9 * np.eye(4)), net.constant("b", np.zeros(4))], [logits])
    net.op("SOFTMAX", [x], [soft], beta=1.0)
    net.op("MINIMUM", [soft, logits], [least])
    net.op("TILE", [least, net.constant("times", [1, 2], "INT32")], [wide])
    tflite = net.build([x], [wide, soft], (["x"], ["wide", "soft"]))
    quantized = _quantized(tflite, io)
    sample = builders.samples(tflite, 1, seed=3)[0]
    assert builders.snr(builders.run(tflite, sample), builders.run(quantized, sample)) > 20
    assert _dtypes(read_model(quantized).main) == {io}


@pytest.mark.parametrize("io", ["INT8", "UINT8", "INT16"])
def test_float_ends_of_another_quantizer_become_integers(io):
    """A file whose inputs and outputs stayed float gets integer ends with the scale of the ranges."""
    net = builders.Net(2)
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1, 4))
    net.op("FLOOR", [x], [y])
    tflite = net.build([x], [y, x, y], (["x"], ["y", "same", "again"]))
    ends = quantize_ends(tflite, [(-2.0, 3.0)], [(-2.0, 3.0)] * 3, io)
    graph = read_model(ends).main
    assert _dtypes(graph) == {io}
    assert graph.outputs[0] == graph.outputs[2] and graph.outputs[1] == graph.inputs[0]
    assert quantize_ends(tflite, [None], [None] * 3, io) == tflite


def _dtypes(graph: Graph) -> set[str]:
    return {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)}
