"""Fake quantization in a float file becomes ranges, without a change of what the file computes apart from rounding."""

import numpy as np
import pytest
from builders import Net, classifier

from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.fake_quant import fold_fake_quant, learned_ranges, with_fake_quant
from edgepack.graph.read import schema
from edgepack.quantize.ranges import unlearned
from edgepack.runtime import Runner

KERNEL = np.random.default_rng(3).normal(0, 0.3, (4, 3)).astype(np.float32)


def dense(kind: str) -> bytes:
    """Return a dense layer with fake quantization of its input, kernel and output, in one of both forms."""
    net = Net()
    x = net.tensor("x", (1, 3))
    kernel = net.constant("kernel", KERNEL)
    rounded_x = _pair(net, x, (1, 3), kind)
    rounded_kernel = _pair(net, kernel, (4, 3), kind)
    product = net.tensor("product", (1, 4))
    net.op("FULLY_CONNECTED", [rounded_x, rounded_kernel, net.constant("bias", np.ones(4))], [product])
    y = _pair(net, product, (1, 4), kind, "y")
    tflite = net.build([x], [y])
    return _with_grids(tflite)


def _pair(net: Net, source: int, shape: tuple[int, ...], kind: str, name: str = "") -> int:
    result = net.tensor(name or f"rounded{source}", shape)
    if kind == "FAKE_QUANT":
        net.op("FAKE_QUANT", [source], [result], min=-64 * 4 / 255, max=191 * 4 / 255, numBits=8)
        return result
    codes = net.tensor(f"codes{source}", shape, dtype="UINT8")
    net.op("QUANTIZE", [source], [codes])
    net.op("DEQUANTIZE", [codes], [result])
    return result


def _with_grids(tflite: bytes) -> bytes:
    file = unpack(tflite)
    graph = file.subgraphs[0]
    for tensor in graph.tensors:
        if tensor.name.startswith(b"codes"):
            tensor.quantization = schema().QuantizationParametersT()
            tensor.quantization.scale = np.array([4 / 255], np.float32)
            tensor.quantization.zeroPoint = np.array([64], np.int64)
    return pack(file)


@pytest.mark.parametrize("kind", ["FAKE_QUANT", "QUANTIZE"])
def test_ranges_take_the_place_of_rounding(kind: str) -> None:
    """Both forms fold to one plain FULLY_CONNECTED with the kernel on its grid and a range per activation."""
    tflite = dense(kind)
    folded = fold_fake_quant(tflite)
    model = read_model(folded)
    assert [op.name for op in model.main.ops] == ["FULLY_CONNECTED"]
    assert (model.is_float, model.input_names(), model.output_names()) == (True, ("x",), ("y",))
    ranges = learned_ranges(folded)
    assert set(ranges) == {"x", "y"}
    assert np.allclose(list(ranges.values()), (-64 * 4 / 255, 191 * 4 / 255), atol=1e-5)
    assert unlearned(model, ranges) == ()
    kernel = model.main.tensors[model.main.ops[0].inputs[1]].data
    assert kernel is not None and np.abs(kernel - KERNEL).max() <= 2 / 255 + 1e-6
    x = np.array([[0.3, -0.4, 1.1]], np.float32)
    assert np.allclose(Runner(folded).run([x])[0], x @ kernel.T + 1, atol=1e-5)


def test_the_trained_rounding_comes_back() -> None:
    """`with_fake_quant` computes what the model computed with its own rounding, up to that of its outputs."""
    original = dense("QUANTIZE")
    again = with_fake_quant(fold_fake_quant(original))
    for x in np.random.default_rng(0).uniform(-1, 2, (20, 1, 3)).astype(np.float32):
        free = np.clip(Runner(again).run([x])[0], -64 * 4 / 255, 191 * 4 / 255)
        difference = np.abs(Runner(original).run([x])[0] - free)
        assert difference.max() <= 2 / 255 + 1e-6


def test_other_files_stay_as_they_are() -> None:
    """A float model without fake quantization is returned unchanged and has no learned ranges."""
    tflite = classifier()
    assert fold_fake_quant(tflite) is tflite
    assert with_fake_quant(tflite) is tflite
    assert learned_ranges(tflite) == {}


def test_an_integer_file_is_not_taken_apart() -> None:
    """QUANTIZE whose result an integer op reads is no fake quantization: the file stays quantized."""
    net = Net()
    x, codes, y = (
        net.tensor("x", (1, 3)),
        net.tensor("codes", (1, 3), dtype="UINT8"),
        net.tensor("y", (1, 3), dtype="UINT8"),
    )
    net.op("QUANTIZE", [x], [codes])
    net.op("RESHAPE", [codes, net.constant("shape", [1, 3], "INT32")], [y])
    tflite = _with_grids(net.build([x], [y]))
    assert fold_fake_quant(tflite) is tflite
