"""Biases beside int16 activations: 32 bits where the kernel takes them, and only where no sum can overflow."""

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
    """A FULLY_CONNECTED all of whose weights are 1: the sums are as large as sums get."""
    net = builders.Net()
    x, y = net.tensor("x", (1, inputs)), net.tensor("y", (1, 4))
    net.op("FULLY_CONNECTED", [x, net.constant("k", np.ones((4, inputs))), net.constant("b", np.zeros(4))], [y])
    return net.build([x], [y], (["x"], ["y"]))


def wide(tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The int16x8 file as ai-edge-quantizer writes it: every bias with 64 bits."""
    with monkeypatch.context() as patch:
        patch.setattr("edgepack.quantize.quantizer.narrow_biases", lambda made: made)
        return made(tflite)


def made(tflite: bytes) -> bytes:
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
    """Each kernel gets the bias it takes and computes what it does with 64 bits, to a step; the plan knew it all.

    A step, because the kernels for either bias round their multipliers to a different number of bits.
    """
    tflite = make()
    before, after = wide(tflite, monkeypatch), made(tflite)
    model = read_model(after)
    assert biases(model.main) == expected
    assert model.min_runtime_version == runtime
    assert len(after) <= len(before) + 64
    assert {dtype for _, dtype in biases(read_model(before).main)} == {"INT64"}
    scale = model.main.tensors[model.main.outputs[0]].quantization.scale
    for sample in builders.samples(tflite, 8, seed=3):
        for one, other in zip(builders.run(before, sample), builders.run(after, sample), strict=True):
            assert one == pytest.approx(other, abs=1.5 * float(scale[0]), rel=0)
    planned = preview(read_model(tflite), RULE)
    assert biases(planned.main) == expected
    assert [op.version for op in planned.main.ops] == [op.version for op in model.main.ops]
    assert planned.min_runtime_version == runtime


@pytest.mark.parametrize("inputs", [512, 700, 1024])
def test_the_largest_sums_do_not_wrap(inputs):
    """The largest input there is gives the largest output: a bias of 32 bits over 700 inputs would give a negative."""
    tflite = dense(inputs)
    done = quantize(tflite, RULE, {"x": (-1.0, 1.0), "y": (-float(inputs), float(inputs))}).tflite
    (result,) = builders.run(done, {"x": np.ones((1, inputs), np.float32)})
    assert result == pytest.approx(np.full((1, 4), inputs), rel=1e-3)


@pytest.mark.parametrize(
    "make", [builders.classifier, transposed, lambda: dense(700)], ids=["net", "transposed", "700"]
)
def test_a_bias_behind_the_layer(make, monkeypatch):
    """Where 64 bits are not taken, what needs them gets its bias from an ADD: no such tensor, the same values."""
    tflite = make()
    rule = SchemeRule("int16x8", "INT16", wide_bias=False)
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 8)), read_model(tflite), activation_bits=16)
    before, after = wide(tflite, monkeypatch), quantize(tflite, rule, ranges).tflite
    model = read_model(after)
    assert "INT64" not in {tensor.dtype for tensor in model.main.tensors}
    kept = {op.name for op in read_model(tflite).main.ops if op.name in ("CONV_2D", "TRANSPOSE_CONV")}
    assert {name for name, dtype in biases(model.main) if dtype == "INT32"} >= kept
    assert sum(op.name == "ADD" for op in model.main.ops) == (0 if make is transposed else 1)
    reference = [one for sample in builders.samples(tflite, 8, seed=3) for one in builders.run(tflite, sample)]
    snr = [
        builders.snr(reference, [one for s in builders.samples(tflite, 8, seed=3) for one in builders.run(made, s)])
        for made in (before, after)
    ]
    assert snr[1] > snr[0] - 0.1
    planned = preview(read_model(tflite), rule)
    assert [(op.name, op.version) for op in planned.main.ops] == [(op.name, op.version) for op in model.main.ops]


def test_what_fits():
    """Sums fit up to 65535 in weights; a bias counts, and each channel by itself."""
    assert sums_fit(np.full((1, 255), 127), np.zeros(1))
    assert sums_fit(np.array([[65535]]), np.array([32767]))
    assert not sums_fit(np.array([[65535]]), np.array([32768]))
    assert not sums_fit(np.array([[1], [65536]]), np.zeros(2))
    assert not sums_fit(np.array([[-1]]), np.array([-(2**31)]))


def test_a_bias_that_a_depthwise_layer_shares_stays(monkeypatch):
    """One bias tensor for two layers keeps the 64 bits that one of them needs; one buffer for two tensors is split."""
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
    """An int8 file comes back as it is, byte for byte."""
    tflite = DIGITS.read_bytes()
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 4)), read_model(tflite))
    done = quantize(tflite, SchemeRule("int8", "INT8"), ranges).tflite
    assert narrow_biases(done) is done
