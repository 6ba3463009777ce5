"""A network with channels of very different size, for targets with one scale per weight tensor."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import quality_set  # noqa: F401  the repository on the path

from edgepack.graph import Graph, read_model
from edgepack.graph.edit import pack, unpack
from edgepack.quantize.ptq.layers import constant_values, set_constants
from edgepack.runtime.runner import Runner

#: Value from which a channel counts as clipped by RELU6.
_CLIPPED = 5.999


def spread(tflite: bytes, samples: Sequence[Mapping[str, npt.NDArray[np.float32]]], factor: float) -> bytes:
    """Scale the input channels of depthwise layers at random, up to `factor` apart; the outputs stay the same.

    Channels are only scaled down, and channels that RELU6 clips on any sample keep their scale.

    Args:
        tflite: A float model.
        samples: Samples by input name, on which RELU6 is watched.
        factor: Largest ratio.
    """
    graph = read_model(tflite).main
    random = np.random.default_rng(5)
    pairs = _pairs(graph)
    largest = _largest(tflite, [graph.ops[before].outputs[0] for before, _ in pairs], samples)
    values: dict[int, npt.NDArray[np.float32]] = {}

    def constant(index: int) -> npt.NDArray[np.float32]:
        return values.get(index, constant_values(graph, index))

    for (before, after), maximum in zip(pairs, largest, strict=True):
        _, weights, bias = graph.ops[before].inputs
        t = (factor ** -random.random(len(maximum))).astype(np.float32)
        if graph.ops[before].options["fused_activation"] == "RELU6":
            t[maximum >= _CLIPPED] = 1.0
        values[weights] = constant(weights) * t.reshape(-1, 1, 1, 1)
        values[bias] = constant(bias) * t
        values[graph.ops[after].inputs[1]] = constant(graph.ops[after].inputs[1]) / t
    return set_constants(tflite, values)


def _pairs(graph: Graph) -> list[tuple[int, int]]:
    """Return (CONV_2D, DEPTHWISE_CONV_2D) where nothing else reads the values between them."""
    readers: dict[int, list[int]] = {}
    for op in graph.ops:
        for index in op.inputs:
            readers.setdefault(index, []).append(op.index)
    pairs = []
    for op in graph.ops:
        producer = graph.producers.get(op.inputs[0]) if op.name == "DEPTHWISE_CONV_2D" else None
        if producer is not None and graph.ops[producer].name == "CONV_2D" and len(readers[op.inputs[0]]) == 1:
            pairs.append((producer, op.index))
    return pairs


def _largest(
    tflite: bytes, tensors: Sequence[int], samples: Sequence[Mapping[str, npt.NDArray[np.float32]]]
) -> list[npt.NDArray[np.float64]]:
    """Return the largest value of each channel of the tensors with these indices."""
    model = unpack(tflite)
    model.subgraphs[0].outputs = np.array(tensors, np.int32)
    model.signatureDefs = None
    runner, names = Runner(pack(model)), read_model(tflite).input_names()
    largest = [np.float64(0.0)] * len(tensors)
    for sample in samples:
        outputs = runner.run_real([sample[name] for name in names])
        largest = [np.maximum(one, out.max(axis=(0, 1, 2))) for one, out in zip(largest, outputs, strict=True)]
    return largest
