"""Small float models that plain int8 represents badly, and what the tests of single steps run them with."""

from collections.abc import Mapping, Sequence

import builders
import numpy as np

from edgepack.graph import read_model
from edgepack.graph.read import schema
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq.activations import Sample
from edgepack.quantize.ptq.layers import Doubles, unshare_biases
from edgepack.quantize.ptq.noise_gain import GainFunction, NoiseGain
from edgepack.quantize.ptq.step import Fit, Setting, Step, Subject, View
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import Range, choose_ranges

RULE = SchemeRule("int8", "INT8")
PER_TENSOR = SchemeRule("int8", "INT8", "per-tensor", weights="per-tensor")


def chain(activation: str = "RELU", spread: float = 100.0) -> bytes:
    """Conv, depthwise, 1x1 conv, global pool, dense, softmax: (1, 8, 8, 3) to (1, 10), with unequal channel ranges."""
    net = builders.Net(3)
    fused = getattr(schema().ActivationFunctionType, activation)
    x = net.tensor("x", (1, 8, 8, 3))
    # RELU6 clips at 6, so its channels are only scaled down.
    low, high = (-1.0, 0.0) if activation == "RELU6" else (-0.5, 0.5)
    factor = (spread ** np.linspace(low, high, 16)).astype(np.float32)
    scale = 1.0 / np.sqrt(27)
    a = net.tensor("conv", (1, 8, 8, 16))
    kernel = net.constant("conv/kernel", net.random.normal(0, scale, (16, 3, 3, 3)) * factor[:, None, None, None])
    bias = net.constant("conv/bias", np.abs(net.random.normal(0, 0.3, 16)) * factor)
    net.op("CONV_2D", [x, kernel, bias], [a], strideW=1, strideH=1, fusedActivationFunction=fused)
    b = net.tensor("dw", (1, 4, 4, 16))
    kernel = net.constant("dw/kernel", net.random.normal(0, 0.4, (1, 3, 3, 16)) / factor)
    net.op("DEPTHWISE_CONV_2D", [a, kernel, net.constant("dw/bias", np.full(16, 0.1))], [b],
           strideW=2, strideH=2, depthMultiplier=1, fusedActivationFunction=fused)  # fmt: skip
    c = net.tensor("point", (1, 4, 4, 16))
    net.op("CONV_2D", [b, net.weights("point/kernel", 16, 1, 1, 16), net.weights("point/bias", 16)], [c],
           strideW=1, strideH=1, fusedActivationFunction=fused)  # fmt: skip
    return _head(net, x, c, 4)


def residual(activation: str = "RELU") -> bytes:
    """Two convolutions whose sum is used further: a residual stream that two layers write and two read."""
    net = builders.Net(4)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "stem", (1, 8, 8, 3), 8, activation)
    b = net.conv(a, "branch", (1, 8, 8, 8), 8, "NONE")
    total = net.tensor("sum", (1, 8, 8, 8))
    net.op("ADD", [a, b], [total])
    c = net.conv(total, "last", (1, 8, 8, 8), 16, activation)
    flat = net.tensor("pool", (1, 2, 2, 16))
    net.op("AVERAGE_POOL_2D", [c], [flat], strideW=4, strideH=4, filterWidth=4, filterHeight=4)
    return _head(net, x, flat, 2)


def _head(net: builders.Net, x: int, features: int, size: int) -> bytes:
    pooled = net.tensor("global", (1, 1, 1, 16))
    net.op("MAX_POOL_2D", [features], [pooled], strideW=size, strideH=size, filterWidth=size, filterHeight=size)
    dense = net.tensor("dense", (1, 10))
    kernel = net.constant("fc/kernel", net.random.normal(0, 1, (10, 16)))
    net.op("FULLY_CONNECTED", [pooled, kernel, net.weights("fc/bias", 10)], [dense])
    end = net.tensor("probabilities", (1, 10))
    net.op("SOFTMAX", [dense], [end], beta=1.0)
    return net.build([x], [end], (["image"], ["classes"]))


def kinds() -> bytes:
    """Every kind of layer: grouped, depthwise, transposed, dilated without padding, dense; (1, 8, 8, 4) to (1, 4)."""
    net = builders.Net(11)
    relu = schema().ActivationFunctionType.RELU
    x = net.tensor("x", (1, 8, 8, 4))
    a = net.tensor("grouped", (1, 4, 4, 8))
    net.op("CONV_2D", [x, net.weights("grouped/w", 8, 3, 3, 2), net.weights("grouped/b", 8)], [a],
           strideW=2, strideH=2, fusedActivationFunction=relu)  # fmt: skip
    b = net.tensor("depthwise", (1, 4, 4, 16))
    net.op("DEPTHWISE_CONV_2D", [a, net.constant("depthwise/w", net.random.normal(0, 0.4, (1, 3, 3, 16))),
           net.weights("depthwise/b", 16)], [b], strideW=1, strideH=1, depthMultiplier=2)  # fmt: skip
    c = net.tensor("transposed", (1, 8, 8, 6))
    shape = net.constant("transposed/shape", [1, 8, 8, 6], "INT32")
    net.op("TRANSPOSE_CONV", [shape, net.weights("transposed/w", 6, 3, 3, 16), b, net.weights("transposed/b", 6)], [c],
           strideW=2, strideH=2)  # fmt: skip
    d = net.tensor("dilated", (1, 4, 4, 5))
    net.op("CONV_2D", [c, net.weights("dilated/w", 5, 3, 3, 6), net.weights("dilated/b", 5)], [d], strideW=1,
           strideH=1, padding=1, dilationWFactor=2, dilationHFactor=2, fusedActivationFunction=relu)  # fmt: skip
    flat = net.tensor("flat", (1, 80))
    net.op("RESHAPE", [d, net.constant("flat/shape", [1, 80], "INT32")], [flat])
    end = net.tensor("end", (1, 4))
    net.op("FULLY_CONNECTED", [flat, net.weights("end/w", 4, 80), net.weights("end/b", 4)], [end])
    return net.build([x], [end], (["image"], ["scores"]))


def gated() -> bytes:
    """SiLU, LEAKY_RELU, squeeze and excite with TILE, upsampling: ops that a plain chain of layers does not have."""
    net = builders.Net(12)
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "stem", (1, 8, 8, 3), 8, "NONE")
    gate, silu = net.tensor("gate", (1, 8, 8, 8)), net.tensor("silu", (1, 8, 8, 8))
    net.op("LOGISTIC", [a], [gate])
    net.op("MUL", [a, gate], [silu])
    mean, scale = net.tensor("mean", (1, 1, 1, 8)), net.tensor("scale", (1, 1, 1, 8))
    net.op("MEAN", [silu, net.constant("axes", [1, 2], "INT32")], [mean], keepDims=True)
    net.op("LOGISTIC", [mean], [scale])
    tiled, excited = net.tensor("tiled", (1, 8, 8, 8)), net.tensor("excited", (1, 8, 8, 8))
    net.op("TILE", [scale, net.constant("times", [1, 8, 8, 1], "INT32")], [tiled])
    net.op("MUL", [silu, tiled], [excited])
    b = net.conv(excited, "middle", (1, 8, 8, 8), 8, "NONE")
    leaky, large = net.tensor("leaky", (1, 8, 8, 8)), net.tensor("large", (1, 16, 16, 8))
    net.op("LEAKY_RELU", [b], [leaky], alpha=0.1)
    net.op("RESIZE_NEAREST_NEIGHBOR", [leaky, net.constant("size", [16, 16], "INT32")], [large])
    c = net.conv(large, "last", (1, 16, 16, 8), 4, "NONE")
    return net.build([x], [c], (["image"], ["mask"]))


def subject(
    tflite: bytes,
    samples: Sequence[Sample],
    effort: str = "low",
    rule: SchemeRule = RULE,
) -> Subject:
    """What a step works on, quantized by ai-edge-quantizer."""

    def make(model: bytes, rule: SchemeRule, ranges: Mapping[str, Range]) -> bytes:
        return quantize(model, rule, ranges).tflite

    return Subject(unshare_biases(tflite), rule, effort, samples, make, lambda step, done, parts: None)


def minmax(tflite: bytes, samples: Sequence[Sample]) -> dict[str, Range]:
    """The ranges that TFLiteConverter takes."""
    return choose_ranges(calibrate(tflite, samples, 2), read_model(tflite), "minmax")


def applied(step: Step, setting: Setting, about: Subject, ranges: Mapping[str, Range] | None = None) -> Fit:
    """What one step makes of the float model."""
    fit = Fit(about.tflite, about.tflite, minmax(about.tflite, about.samples) if ranges is None else ranges)
    return step.apply(fit, setting, View(about.samples), about)


def noise_gains(tflite: bytes, samples: Sequence[Sample], peaks: Mapping[int, Doubles]) -> dict[int, NoiseGain]:
    """Return the noise gains of a model by a function of its own."""
    return GainFunction(tflite, peaks)(tflite, samples, peaks)
