"""Ranges of what saturating functions read end where the functions are flat."""

import builders
import numpy as np
import pytest
from ptq_models import applied, subject

from edgepack.graph import read_model
from edgepack.quantize.histogram import Statistics
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.ptq.model_ranges import RANGES
from edgepack.quantize.ptq.saturation import SATURATION, choose_bounds, find_responses


def _gated(function: str, offset: float = 0.0) -> bytes:
    """A convolution with values far below zero, a function, and a dense layer that weighs its results."""
    net = builders.Net(9)
    x = net.tensor("x", (1, 6, 6, 3))
    a = net.tensor("wide", (1, 6, 6, 8))
    kernel = net.constant("wide/kernel", net.random.normal(0, 1.0, (8, 3, 3, 3)))
    bias = net.constant("wide/bias", np.linspace(-24.0, 2.0, 8) + offset)
    net.op("CONV_2D", [x, kernel, bias], [a], strideW=1, strideH=1)
    b = net.tensor("after", (1, 6, 6, 8))
    if function == "SILU":
        gate = net.tensor("gate", (1, 6, 6, 8))
        net.op("LOGISTIC", [a], [gate])
        net.op("MUL", [a, gate], [b])
    else:
        net.op(function, [a], [b])
    y = net.tensor("y", (1, 10))
    flat = net.tensor("flat", (1, 288))
    net.op("RESHAPE", [b, net.constant("shape", [1, 288], "INT32")], [flat])
    net.op("FULLY_CONNECTED", [flat, net.weights("fc/kernel", 10, 288), net.weights("fc/bias", 10)], [y])
    return net.build([x], [y], (["image"], ["scores"]))


def _bounds(function: str) -> tuple[tuple[float, float], tuple[float, float]]:
    tflite = _gated(function)
    about = subject(tflite, builders.samples(tflite, 20))
    plain = applied(RANGES, "minmax", about)
    chosen = applied(SATURATION, "flat sides", about, plain.ranges)
    assert {key for key in chosen.ranges if chosen.ranges[key] != plain.ranges[key]} == {"wide"}
    return plain.ranges["wide"], chosen.ranges["wide"]


@pytest.mark.parametrize(
    ("function", "lowest", "highest"), [("RELU", 0.0, 0.0), ("HARD_SWISH", -3.5, -2.5), ("SILU", -12.0, -3.0)]
)
def test_the_lower_bound_is_where_the_function_begins(function, lowest, highest):
    """Values below it give the same result; the upper bound stays, because there the function is linear."""
    before, after = _bounds(function)
    assert before[0] < -20.0
    assert lowest <= after[0] <= highest
    assert after[1] == before[1]


def test_both_bounds_of_a_sigmoid_move():
    """A sigmoid is flat on both sides."""
    statistics = Statistics()
    statistics.observe(np.random.default_rng(0).normal(0.0, 12.0, (1, 4000)).astype(np.float32))
    response = find_responses(read_model(_gated("LOGISTIC")).main)
    (sigmoid,) = response.values()
    low, high = choose_bounds(statistics, (-40.0, 40.0), sigmoid)
    assert -15.0 < low < -3.0
    assert 3.0 < high < 15.0


def test_a_tensor_with_other_readers_is_left_alone():
    """Where something else reads the values, those below the function's range count."""
    net = builders.Net()
    x, a, b, y = (net.tensor(name, (1, 4)) for name in "xaby")
    net.op("ADD", [x, net.constant("one", np.ones(4))], [a])
    net.op("HARD_SWISH", [a], [b])
    net.op("ADD", [a, b], [y])
    assert find_responses(read_model(net.build([x], [y])).main) == {}


@pytest.mark.parametrize("function", ["HARD_SWISH", "SILU"])
def test_less_is_lost_on_unseen_samples(function):
    """The scale covers the values that matter, and the SNR rises."""
    tflite = _gated(function)
    about = subject(tflite, builders.samples(tflite, 40))
    plain = applied(RANGES, "minmax", about)
    chosen = applied(SATURATION, "flat sides", about, plain.ranges)
    unseen = builders.samples(tflite, 30, 1)
    reference = logits(tflite, unseen)
    before, after = (snr_db(reference, logits(about.file(fit), unseen)) for fit in (plain, chosen))
    assert after > before + 1.0
