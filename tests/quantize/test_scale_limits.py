import builders
import numpy as np
import pytest

from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.quantizer import quantize, require_loadable
from edgepack.quantize.ranges import choose_ranges
from edgepack.quantize.scale_limits import bounded_ranges

_OPS = ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "SQUARED_DIFFERENCE", "HARD_SWISH", "DIV"]


def _narrow(name: str) -> bytes:
    net = builders.Net(6)
    x = net.tensor("x", (1, 4, 4, 4) if name != "FULLY_CONNECTED" else (1, 4))
    y = net.tensor("y", (1, 4, 4, 4) if name != "FULLY_CONNECTED" else (1, 4))
    end = net.tensor("end", (1, 4, 4, 4) if name != "FULLY_CONNECTED" else (1, 4))
    bias = net.constant("b", np.zeros(4))
    if name == "CONV_2D":
        net.op(name, [x, net.weights("w", 4, 1, 1, 4), bias], [y], strideW=1, strideH=1)
    elif name == "DEPTHWISE_CONV_2D":
        net.op(name, [x, net.weights("w", 1, 1, 1, 4), bias], [y], strideW=1, strideH=1, depthMultiplier=1)
    elif name == "FULLY_CONNECTED":
        net.op(name, [x, net.weights("w", 4, 4), bias], [y])
    elif name == "HARD_SWISH":
        net.op(name, [x], [y])
    else:
        net.op(name, [x, net.constant("c", 1.5)], [y])
    # A second op with the first one's narrow output: its wider range must not break the next ratio.
    net.op("ADD", [y, y], [end])
    return net.build([x], [end, y], (["x"], ["end", "y"]))


@pytest.mark.parametrize("name", _OPS)
@pytest.mark.parametrize("width", [0.0, 1e-30, 1e-12, 1e-6, 1e-3])
def test_a_file_with_a_very_narrow_output_loads(name, width):
    """Whatever the range of an output, the runtime loads the file; only outputs beyond the limits are widened."""
    tflite = _narrow(name)
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 5)), read_model(tflite))
    ranges.update(dict.fromkeys(("y", "end"), (0.0, width)))
    bounded = bounded_ranges(read_model(tflite).main, ranges)
    assert bounded["x"] == ranges["x"] and bounded["y"][1] >= width
    for io in ("INT8", "FLOAT32"):
        require_loadable(quantize(tflite, SchemeRule("int8", io), ranges).tflite)


def test_ordinary_ranges_stay():
    """Ranges within the limits are returned as they are."""
    tflite = builders.classifier()
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 20)), read_model(tflite))
    assert bounded_ranges(read_model(tflite).main, ranges) == ranges


def test_tensors_that_share_a_scale_are_widened_together():
    """The pool behind a dead layer keeps the layer's scale."""
    tflite = builders.classifier()
    model = read_model(tflite)
    ranges = choose_ranges(calibrate(tflite, builders.samples(tflite, 20)), model)
    dead = {**ranges, "dw": (0.0, 0.0), "pool": (0.0, 0.0)}
    bounded = bounded_ranges(model.main, dead)
    assert bounded["dw"] == bounded["pool"] and bounded["dw"][1] > 0.0
    assert set(bounded) == {*tensor_keys(model.main)} & set(ranges)
    require_loadable(quantize(tflite, SchemeRule("int8", "INT8"), dead).tflite)
