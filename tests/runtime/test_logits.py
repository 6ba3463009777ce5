"""Logits are found behind ops that move values, and have the shape of the output, in float and integer files."""

import builders
import numpy as np
import numpy.typing as npt
import pytest

from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges
from edgepack.runtime.logits import expose_logits, logit_tensors, with_logits
from edgepack.runtime.runner import Runner


def _head(movement: str, squash: str = "LOGISTIC") -> bytes:
    """A convolution whose probabilities are moved."""
    net = builders.Net()
    x = net.tensor("x", (1, 4, 4, 3))
    scores = net.conv(x, "scores", (1, 4, 4, 3), 4, "NONE")
    p = net.tensor("p", (1, 4, 4, 4))
    net.op(squash, [scores], [p], **({"beta": 1.0} if squash == "SOFTMAX" else {}))
    if movement == "reshape":
        y = net.tensor("y", (1, 16, 4))
        net.op("RESHAPE", [p, net.constant("shape", [1, 16, 4], "INT32")], [y])
        return net.build([x], [y], (["x"], ["y"]))
    if movement == "transpose and reshape":
        turned, y = net.tensor("turned", (1, 4, 4, 4)), net.tensor("y", (1, 64))
        net.op("TRANSPOSE", [p, net.constant("order", [0, 3, 1, 2], "INT32")], [turned])
        net.op("RESHAPE", [turned, net.constant("shape", [1, 64], "INT32")], [y])
        return net.build([x], [y], (["x"], ["y"]))
    if movement == "split":
        parts = [net.tensor(f"part{i}", (1, 4, 4, 2)) for i in range(2)]
        net.op("SPLIT", [net.constant("axis", 3, "INT32"), p], parts, numSplits=2)
        return net.build([x], parts, (["x"], ["a", "b"]))
    assert movement == "joined"
    other = net.conv(x, "other", (1, 4, 4, 3), 4, "NONE")
    q, y = net.tensor("q", (1, 4, 4, 4)), net.tensor("y", (1, 4, 4, 8))
    net.op("LOGISTIC", [other], [q])
    net.op("CONCATENATION", [p, q], [y], axis=3)
    return net.build([x], [y], (["x"], ["y"]))


def _squashed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-values))


@pytest.mark.parametrize("movement", ["reshape", "transpose and reshape", "split", "joined"])
def test_logits_are_moved_as_the_output_is(movement):
    """LOGISTIC of the exposed logits is the output, element by element, in the float and in the int8 file."""
    tflite = _head(movement)
    samples = builders.samples(tflite, 4)
    ranges = choose_ranges(calibrate(tflite, samples), read_model(tflite), "minmax")
    quantized = quantize(tflite, SchemeRule("int8", "INT8", "per-channel"), ranges).tflite
    for data, tolerance in ((tflite, 1e-5), (quantized, 1.5 / 256)):
        exposed, plain = Runner(expose_logits(data)), Runner(data)
        appended, positions = with_logits(data)
        both = Runner(appended)
        for sample in samples:
            values = list(sample.values())
            outputs = plain.run_real(values)
            for logits in (exposed.run_real(values), [both.run_real(values)[at] for at in positions]):
                for expected, actual in zip(outputs, logits, strict=True):
                    np.testing.assert_allclose(_squashed(actual), expected, atol=tolerance)
                    assert np.ptp(actual) > 1.0


def test_several_sources_of_one_output_are_returned():
    """Gradients start at the tensors before both LOGISTIC ops."""
    graph = read_model(_head("joined")).main
    assert [graph.tensors[index].name for index in logit_tensors(graph)] == ["scores", "other"]


def test_values_that_are_no_probabilities_stay():
    """An output that joins probabilities with other values is its own logits."""
    net = builders.Net()
    x, p, y = net.tensor("x", (1, 4)), net.tensor("p", (1, 4)), net.tensor("y", (1, 8))
    net.op("LOGISTIC", [x], [p])
    net.op("CONCATENATION", [p, x], [y], axis=1)
    tflite = net.build([x], [y])
    assert expose_logits(tflite) == tflite
    assert with_logits(tflite) == (tflite, (0,))


def test_only_numbers_of_a_file_change_where_logits_are_its_tensors():
    """The list of outputs and the signature name the logits; the file keeps its length, and a table twin its list."""
    tflite = builders.classifier()
    exposed = expose_logits(tflite)
    assert len(exposed) == len(tflite) and 0 < sum(a != b for a, b in zip(exposed, tflite, strict=True)) <= 8
    model = read_model(exposed)
    assert model.output_names() == read_model(tflite).output_names()
    assert model.main.outputs == logit_tensors(read_model(tflite).main)
