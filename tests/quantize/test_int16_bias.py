"""Biases with int16 activations: 32 bits where the kernel supports them and no sum can overflow."""

from pathlib import Path

import builders
import numpy as np
import pytest

from edgepack.graph import Graph, read_model
from edgepack.graph.edit import pack, unpack
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.int16_bias import narrow_biases, sums_fit
from edgepack.quantize.preview import preview
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges

DIGITS = Path(__file__).parent.parent / "data" / "digits_float.tflite"
RULE = SchemeRule("int16x8", "INT16")


def transposed() -> bytes:
    """A TRANSPOSE_CONV with a bias: (1, 4, 4, 3) to (1, 8, 8, 5)."""
    net = builders.Net(5)
    x, y = net.tensor("x", (1, 4, 4, 3)), net.tensor("y", (1, 8, 8, 5))
    shape = net.constant("shape", np.array([1, 8, 8, 5]), "INT32")
    inputs = [shape, net.weights("kernel", 5, 3, 3, 3), x, net.weights("bias", 5)]
    net.op("TRANSPOSE_CONV", inputs, [y], strideW=2, strideH=2)
    return net.build([x], [y], (["x"], ["y"]))


def dense(inputs: int) -> bytes:
    """A FULLY_CONNECTED with all weights 1, which gives the largest possible sums."""
    net = builders.Net()
    x, y = net.tensor("x", (1, inputs)), net.tensor("y", (1, 4))
    net.op("FULLY_CONNECTED", [x, net.constant("k", np.ones((4, inputs))), net.constant("b", np.zeros(4))], [y])
    return net.build([x], [y], (["x"], ["y"]))


def wide(tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The int16x8 file as ai-edge-quantizer writes it: every bias with 64 bits."""
    with monkeypatch.context() as patch:
        patch.setattr("edgepack.quantize.quantizer.narrow_biases", lambda tflite: tflite)
        return quantized(tflite)


def quantized(tflite: bytes) -> bytes:
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 8)), read_model(tflite), activation_bits=16)
    return quantize(tflite, RULE, ranges).tflite


def biases(graph: Graph) -> list[tuple[str, str]]:
    place = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
    layers = [op for op in graph.ops if len(op.inputs) > place.get(op.name, len(op.inputs))]
    return [(op.name, graph.tensors[op.inputs[place[op.name]]].dtype) for op in layers]


@pytest.mark.parametrize(
    ("make", "expected", "runtime"),
    [
        (
            builders.classifier,
            [("CONV_2D", "INT32"), ("DEPTHWISE_CONV_2D", "INT64"), ("FULLY_CONNECTED", "INT32")],
            "2.15.0",
        ),
        (transposed, [("TRANSPOSE_CONV", "INT32")], "2.15.0"),
        (lambda: dense(512), [("FULLY_CONNECTED", "INT32")], "2.15.0"),
        (lambda: dense(700), [("FULLY_CONNECTED", "INT64")], "2.3.0"),
    ],
    ids=["classifier", "transposed", "512", "700"],
)
def test_narrow_biases_compute_the_same(make, expected, runtime, monkeypatch):
    """Each kernel gets a bias that it supports, gives its 64-bit result to within a scale step, and is previewed so.

    A scale step, because the kernels for either bias round their multipliers to a different number of bits.
    """
    tflite = make()
    before, after = wide(tflite, monkeypatch), quantized(tflite)
    model = read_model(after)
    assert biases(model.main) == expected
    assert model.min_runtime_version == runtime
    assert len(after) <= len(before) + 64
    assert {dtype for _, dtype in biases(read_model(before).main)} == {"INT64"}
    scale = model.main.tensors[model.main.outputs[0]].quantization.scale
    for sample in builders.samples(tflite, 8, seed=3):
        for one, other in zip(builders.run(before, sample), builders.run(after, sample), strict=True):
            assert one == pytest.approx(other, abs=1.5 * float(scale[0]), rel=0)
    previewed = preview(read_model(tflite), RULE)
    assert biases(previewed.main) == expected
    assert [op.version for op in previewed.main.ops] == [op.version for op in model.main.ops]
    assert previewed.min_runtime_version == runtime


@pytest.mark.parametrize("inputs", [512, 700, 1024])
def test_the_largest_sums_do_not_wrap(inputs):
    """The largest input gives the largest output: with a 32-bit bias over 700 inputs it would be negative."""
    tflite = dense(inputs)
    result = quantize(tflite, RULE, {"x": (-1.0, 1.0), "y": (-float(inputs), float(inputs))}).tflite
    (output,) = builders.run(result, {"x": np.ones((1, inputs), np.float32)})
    assert output == pytest.approx(np.full((1, 4), inputs), rel=1e-3)


@pytest.mark.parametrize(
    "make", [builders.classifier, transposed, lambda: dense(700)], ids=["net", "transposed", "700"]
)
def test_a_bias_behind_the_layer(make, monkeypatch):
    """Where 64-bit biases are not supported, an ADD adds those that need them: no 64-bit tensor, the same values."""
    tflite = make()
    rule = SchemeRule("int16x8", "INT16", wide_bias=False)
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 8)), read_model(tflite), activation_bits=16)
    before, after = wide(tflite, monkeypatch), quantize(tflite, rule, ranges).tflite
    model = read_model(after)
    assert "INT64" not in {tensor.dtype for tensor in model.main.tensors}
    narrowed = {op.name for op in read_model(tflite).main.ops if op.name in ("CONV_2D", "TRANSPOSE_CONV")}
    assert {name for name, dtype in biases(model.main) if dtype == "INT32"} >= narrowed
    assert sum(op.name == "ADD" for op in model.main.ops) == (0 if make is transposed else 1)
    reference = [one for sample in builders.samples(tflite, 8, seed=3) for one in builders.run(tflite, sample)]
    snr = [
        builders.snr(reference, [one for s in builders.samples(tflite, 8, seed=3) for one in builders.run(file, s)])
        for file in (before, after)
    ]
    assert snr[1] > snr[0] - 0.1
    previewed = preview(read_model(tflite), rule)
    assert [(op.name, op.version) for op in previewed.main.ops] == [(op.name, op.version) for op in model.main.ops]


def test_what_fits():
    """Sums fit up to a weight sum of 65535; the bias counts, and each channel is judged separately."""
    assert sums_fit(np.full((1, 255), 127), np.zeros(1))
    assert sums_fit(np.array([[65535]]), np.array([32767]))
    assert not sums_fit(np.array([[65535]]), np.array([32768]))
    assert not sums_fit(np.array([[1], [65536]]), np.zeros(2))
    assert not sums_fit(np.array([[-1]]), np.array([-(2**31)]))


def test_a_bias_that_a_depthwise_layer_shares_stays(monkeypatch):
    """A bias tensor shared by two ops keeps the 64 bits that one of them needs; a buffer of two tensors is split."""
    model = unpack(wide(builders.classifier(), monkeypatch))
    graph = model.subgraphs[0]
    convolution, depthwise = graph.operators[0], graph.operators[1]
    assert len(convolution.inputs) == len(depthwise.inputs) == 3
    graph.tensors[convolution.inputs[2]].buffer = graph.tensors[depthwise.inputs[2]].buffer
    apart = read_model(narrow_biases(pack(model))).main
    assert biases(apart)[:2] == [("CONV_2D", "INT32"), ("DEPTHWISE_CONV_2D", "INT64")]
    first, second = (apart.tensors[apart.ops[i].inputs[2]].data for i in (0, 1))
    assert first is not None and second is not None
    assert first.tolist() == second.tolist()
    convolution.inputs = np.array([*convolution.inputs[:2], depthwise.inputs[2]], np.int32)
    shared = read_model(narrow_biases(pack(model))).main
    assert biases(shared)[:2] == [("CONV_2D", "INT64"), ("DEPTHWISE_CONV_2D", "INT64")]


def test_files_without_int16_are_left_alone():
    """An int8 file is returned unchanged, byte for byte."""
    tflite = DIGITS.read_bytes()
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 4)), read_model(tflite))
    result = quantize(tflite, SchemeRule("int8", "INT8"), ranges).tflite
    assert narrow_biases(result) is result
