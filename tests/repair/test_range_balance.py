import builders
import numpy as np
import pytest

from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import choose_ranges
from edgepack.repair import TOLERANCE, ChannelRange, balance_ranges, has_shared_ranges, prove

RULE = SchemeRule("int8", "INT8")


def joined(ratio: float, between: str = "", *, layer: bool = False) -> bytes:
    """Two inputs whose ranges differ by a factor, joined, an op that passes scales on, and a dense layer."""
    net = builders.Net(1)
    x, y = net.tensor("x", (1, 8)), net.tensor("y", (1, 8))
    sources = [x, y]
    if layer:
        # The range comes from a layer's weights instead of the input.
        large = net.tensor("large", (1, 8))
        weights = net.constant("lw", net.random.normal(0, ratio, (8, 8)))
        net.op("FULLY_CONNECTED", [y, weights, net.constant("lb", np.zeros(8))], [large])
        sources = [x, large]
    wide = net.tensor("joined", (1, 16))
    net.op("CONCATENATION", sources, [wide], axis=-1)
    if between:
        passed = net.tensor("passed", (1, 16))
        shift = [net.constant("shift", np.repeat([0.1, 0.1 * ratio], 8))] if between in ("ADD", "SUB") else []
        net.op(between, [wide, *shift], [passed])
        wide = passed
    weights = net.random.normal(0, 1, (4, 16)) / np.repeat([1.0, ratio], 8)
    out = net.tensor("out", (1, 4))
    net.op("FULLY_CONNECTED", [wide, net.constant("w", weights), net.constant("b", np.zeros(4))], [out])
    return net.build([x, y], [out], (["x", "y"], ["out"]))


def head(slicer: str, *, reshape: bool = False) -> bytes:
    """A convolution whose first four channels are large and whose last two are small, sliced apart."""
    net = builders.Net(2)
    x = net.tensor("x", (1, 4, 4, 3))
    y = net.tensor("y", (1, 4, 4, 6))
    kernel = net.random.normal(0, 1, (6, 1, 1, 3)) * np.array([400.0] * 4 + [1.0] * 2)[:, None, None, None]
    net.op("CONV_2D", [x, net.constant("k", kernel), net.constant("b", np.zeros(6))], [y], strideW=1, strideH=1)
    shape: tuple[int, ...] = (1, 4, 4)
    if reshape:
        flat = net.tensor("flat", (1, 16, 6))
        net.op("RESHAPE", [y, net.constant("to", [1, 16, 6], "INT32")], [flat])
        y, shape = flat, (1, 16)
    boxes, scores = net.tensor("boxes", (*shape, 4)), net.tensor("scores", (*shape, 2))
    rank = len(shape) + 1
    if slicer == "SPLIT_V":
        net.op("SPLIT_V", [y, net.constant("s", [4, 2], "INT32"), net.constant("axis", rank - 1, "INT32")],
               [boxes, scores], numSplits=2)  # fmt: skip
    else:
        for name, result, first, count in (("b", boxes, 0, 4), ("s", scores, 4, 2)):
            begin = [0] * (rank - 1) + [first]
            second = [*shape, count] if slicer == "SLICE" else [*shape, first + count]
            arguments = [net.constant(f"{name}0", begin, "INT32"), net.constant(f"{name}1", second, "INT32")]
            arguments += [net.constant(f"{name}2", [1] * rank, "INT32")] if slicer == "STRIDED_SLICE" else []
            net.op(slicer, [y, *arguments], [result])
    return net.build([x], [boxes, scores], (["x"], ["boxes", "scores"]))


def samples_for(tflite: bytes, ratio: float = 1.0, count: int = 40, seed: int = 0) -> list:
    samples = builders.samples(tflite, count, seed=seed)
    return [{name: values * (ratio if name == "y" else 1.0) for name, values in s.items()} for s in samples]


def balanced(tflite: bytes, samples: list) -> tuple[bytes, list[str]]:
    model = read_model(tflite)
    keys = {key: i for i, key in enumerate(tensor_keys(model.main))}
    statistics = calibrate(tflite, samples).tensors
    ranges = {keys[k]: ChannelRange(s.channel_minimum, s.channel_maximum) for k, s in statistics.items()}
    after, rewrites = balance_ranges(tflite, ranges)
    return after, [rewrite.code for rewrite in rewrites]


def decibels(reference: bytes, tflite: bytes, samples: list, test: list) -> float:
    """Worst SNR of an output of the int8 file."""
    ranges = choose_ranges(calibrate(tflite, samples), read_model(tflite))
    file = quantize(tflite, RULE, ranges).tflite
    pairs = [(builders.run(reference, sample), builders.run(file, sample)) for sample in test]
    outputs = range(len(pairs[0][0]))
    return min(
        10 * np.log10(sum((a[o] ** 2).sum() for a, _ in pairs) / sum(((a[o] - b[o]) ** 2).sum() for a, b in pairs))
        for o in outputs
    )


@pytest.mark.parametrize("between", ["", "RELU", "ADD", "SUB", "LEAKY_RELU"])
@pytest.mark.parametrize("layer", [False, True], ids=["input", "layer"])
def test_joined_inputs_of_different_ranges_keep_their_precision(between, layer):
    """Ranges a thousand times apart: equal in float, and in int8 25 dB more than without."""
    ratio = 1000.0
    tflite = joined(ratio, between, layer=layer)
    scale = 1.0 if layer else ratio
    samples, test = samples_for(tflite, scale), samples_for(tflite, scale, 30, seed=7)
    after, codes = balanced(tflite, samples)
    assert codes == ["balanced-concatenation"]
    assert prove(tflite, after, samples[:4]) <= TOLERANCE
    assert decibels(tflite, after, samples, test) > max(25.0, decibels(tflite, tflite, samples, test) + 15)


def test_a_layer_takes_the_factor_itself():
    """Where a layer computes the narrow input for this op alone, its weights are scaled and no op is added."""
    net = builders.Net(3)
    x = net.tensor("x", (1, 8))
    small, wide = net.tensor("small", (1, 8)), net.tensor("wide", (1, 16))
    net.op("FULLY_CONNECTED", [x, net.constant("w0", np.eye(8) * 1e-3), net.constant("b0", np.full(8, 1e-4))], [small])
    net.op("CONCATENATION", [small, x], [wide], axis=1)
    out = net.tensor("out", (1, 4))
    net.op("FULLY_CONNECTED", [wide, net.weights("w", 4, 16), net.weights("b", 4)], [out])
    tflite = net.build([x], [out], (["x"], ["out"]))
    samples = samples_for(tflite)
    after, codes = balanced(tflite, samples)
    assert codes == ["balanced-concatenation"] and prove(tflite, after, samples[:4]) <= TOLERANCE
    assert [op.name for op in read_model(after).main.ops] == [op.name for op in read_model(tflite).main.ops]


@pytest.mark.parametrize("slicer", ["STRIDED_SLICE", "SLICE", "SPLIT_V"])
@pytest.mark.parametrize("reshape", [False, True])
def test_slices_of_a_head_get_scales_of_their_own(slicer, reshape):
    """Scores beside boxes 400 times as large: equal in float, and every output keeps 25 dB in int8."""
    tflite = head(slicer, reshape=reshape)
    samples, test = samples_for(tflite), samples_for(tflite, count=20, seed=7)
    after, codes = balanced(tflite, samples)
    assert codes == ["split-head"] and has_shared_ranges(read_model(tflite).main)
    assert prove(tflite, after, samples[:4]) == 0.0
    assert not any(op.name == slicer for op in read_model(after).main.ops)
    assert decibels(tflite, tflite, samples, test) < 15 < 25 < decibels(tflite, after, samples, test)


def test_equal_ranges_are_left_alone():
    """Where ranges are alike nothing is rewritten, and the bytes stay."""
    tflite = joined(2.0)
    samples = samples_for(tflite, 2.0)
    assert balanced(tflite, samples) == (tflite, [])


@pytest.mark.parametrize("blocker", ["TANH", "output"])
def test_a_scale_that_nothing_takes_back_is_not_changed(blocker):
    """Behind an op that is not linear, or at an output, factors cannot be undone: the file stays."""
    net = builders.Net(4)
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1, 4))
    wide, end = net.tensor("wide", (1, 8)), net.tensor("end", (1, 8))
    net.op("CONCATENATION", [x, y], [wide], axis=1)
    net.op("TANH" if blocker == "TANH" else "RELU", [wide], [end])
    tflite = net.build([x, y], [end], (["x", "y"], ["end"]))
    assert balanced(tflite, samples_for(tflite, 1000.0)) == (tflite, [])


def test_an_input_that_is_handed_through_keeps_its_scale():
    """An input that is an output too, and joined with wider ones, keeps 30 dB."""
    net = builders.Net(5)
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1, 4))
    wide = net.tensor("wide", (1, 8))
    net.op("CONCATENATION", [x, y], [wide], axis=1)
    tflite = net.build([x, y], [x, y, wide], (["x", "y"], ["same x", "same y", "wide"]))
    samples, test = samples_for(tflite, 1000.0), samples_for(tflite, 1000.0, 20, seed=7)
    after, codes = balanced(tflite, samples)
    assert codes == ["separate-range"] and prove(tflite, after, samples[:4]) == 0.0
    assert decibels(tflite, tflite, samples, test) < 5 < 30 < decibels(tflite, after, samples, test)
