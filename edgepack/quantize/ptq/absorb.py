"""High-bias absorption: what a channel never goes below moves through RELU into the next layer's bias.

A channel whose smallest value on the samples is c > 0 is lowered by c, and the next layer's bias takes c times its
weights: the same in float on these samples, and a narrower range. Nagel et al. 2019, section 4.1.3; there c comes from
batch norm's statistics, here it is measured. Padding would stand for 0 and not for c, so only layers without it take
part.
"""

from collections.abc import Sequence

import numpy as np

from edgepack.graph import Graph, read_model
from edgepack.quantize.ptq.equalize import Stream, find_streams
from edgepack.quantize.ptq.layers import Floats, Layer, find_layers, set_constants, values_of
from edgepack.quantize.ptq.observe import Sample, watch


def absorb_biases(tflite: bytes, samples: Sequence[Sample]) -> bytes:
    """Return the float model with high biases absorbed; the same bytes where no channel stays above zero.

    Args:
        tflite: A float model, biases of their own.
        samples: Calibration samples.
    """
    graph = read_model(tflite).main
    streams = [stream for stream in find_streams(graph, find_layers(graph)) if _simple(graph, stream)]
    if not streams:
        return tflite
    lowest: list[Floats] = []
    for seen in watch(tflite, [stream.tensors[0] for stream in streams], samples):
        now = [values.reshape(-1, values.shape[-1]).min(axis=0).astype(np.float32) for values in seen]
        lowest = [np.minimum(a, b) for a, b in zip(lowest, now, strict=True)] if lowest else now
    changed: dict[int, Floats] = {}
    for stream, floor in zip(streams, lowest, strict=True):
        floor = np.maximum(floor, 0.0)
        if not floor.any():
            continue
        before = stream.before[0]
        changed[before.bias] = changed.get(before.bias, values_of(graph, before.bias)) - floor
        for after in stream.after:
            rows = after.rows(values_of(graph, after.weights) * after.along_input(floor))
            changed[after.bias] = changed.get(after.bias, values_of(graph, after.bias)) + rows.sum(axis=1)
    return set_constants(tflite, changed) if changed else tflite


def _simple(graph: Graph, stream: Stream) -> bool:
    """Return whether one layer's RELU feeds layers that see no padding, directly."""
    if len(stream.tensors) != 1 or stream.clipped or len(stream.before) != 1 or stream.before[0].bias < 0:
        return False
    if stream.before[0].op.options.get("fused_activation") != "RELU":
        return False
    return all(after.bias >= 0 and not _padded(graph, after) for after in stream.after)


def _padded(graph: Graph, layer: Layer) -> bool:
    if layer.dense or layer.op.options["padding"] == "VALID":
        return False
    return layer.shape[1:3] != (1, 1)
