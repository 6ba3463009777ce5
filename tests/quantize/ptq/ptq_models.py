"""Small float models whose channel ranges differ by a factor of a hundred, which plain int8 represents badly."""

import builders
import numpy as np

from edgepack.graph.read import schema


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
