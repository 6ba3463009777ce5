"""Run a float or quantized model on samples and look at chosen tensors, as real numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.op_layout import dilated_size, padding_amounts
from edgepack.quantize.ptq.layers import Doubles, Floats, Layer
from edgepack.runtime import metrics
from edgepack.runtime.logits import expose_logits
from edgepack.runtime.runner import Runner

Sample = Mapping[str, npt.NDArray[Any]]

_THREADS = 2


def watch(tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]) -> Iterator[list[Doubles]]:
    """Yield, for each sample, the real values of the tensors of the main graph with these indices.

    Args:
        tflite: A float or quantized model.
        tensors: Indices of inputs or activations.
        samples: Real values by `Model.input_names()`, with the batch dimension.
    """
    names = read_model(tflite).input_names()
    wanted = list(dict.fromkeys(tensors))
    model = unpack(tflite)
    model.subgraphs[0].outputs = np.array(wanted, np.int32)
    model.signatureDefs = None
    runner = Runner(pack(model), threads=_THREADS)
    places = [wanted.index(index) for index in tensors]
    for sample in samples:
        seen = runner.run_real([sample[name] for name in names])
        yield [seen[place] for place in places]


def logits(tflite: bytes, samples: Sequence[Sample]) -> list[list[Doubles]]:
    """Return the real outputs of a model for each sample, before the last SOFTMAX or LOGISTIC."""
    names = read_model(tflite).input_names()
    runner = Runner(expose_logits(tflite), threads=_THREADS)
    return [runner.run_real([sample[name] for name in names]) for sample in samples]


def snr_db(reference: Sequence[Sequence[Doubles]], measured: Sequence[Sequence[Doubles]]) -> float:
    """Return 10 log10(sum reference^2 / sum (reference - measured)^2) over all samples and outputs; inf when equal."""
    signal = noise = 0.0
    for wants, gots in zip(reference, measured, strict=True):
        for want, got in zip(wants, gots, strict=True):
            signal += float(np.vdot(want, want))
            noise += float(np.vdot(want - got, want - got))
    ratio = metrics.snr_db(signal, noise)
    return math.inf if ratio is None else ratio


def patches(layer: Layer, values: Doubles, most: int, seed: int = 0) -> Floats:
    """Return what a layer multiplies its weights with: (positions, inputs of one output).

    A depthwise layer gives (positions, output channels, inputs of one output). Of many positions, `most` are picked
    at random, the same for the same seed and shape.

    Args:
        layer: The layer.
        values: Its input for one sample.
        most: Most positions wanted.
        seed: Of the choice.
    """
    if layer.dense:
        return _some(values.reshape(-1, layer.channels).astype(np.float32), most, seed)
    options = layer.op.options
    height, width = layer.shape[1:3]
    steps = (int(options["stride_h"]), int(options["stride_w"]))
    spread = (int(options.get("dilation_h", 1)), int(options.get("dilation_w", 1)))
    reach = [dilated_size(size, s) for size, s in zip((height, width), spread, strict=True)]
    pads = [padding_amounts(options["padding"], values.shape[1 + i], reach[i], steps[i]) for i in range(2)]
    padded = np.pad(values.astype(np.float32), ((0, 0), *pads, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(reach), axis=(1, 2))
    windows = windows[:, :: steps[0], :: steps[1], :, :: spread[0], :: spread[1]]
    shape = windows.shape[:3]
    chosen = np.unravel_index(_positions(math.prod(shape), most, seed), shape)
    taken = windows[chosen]  # positions, channels, height, width
    if layer.depthwise:
        flat = taken.reshape(*taken.shape[:2], -1)
        return np.repeat(flat, layer.width // layer.channels, axis=1)
    return np.ascontiguousarray(taken.transpose(0, 2, 3, 1)).reshape(len(taken), -1)


def _some(rows: Floats, most: int, seed: int) -> Floats:
    return rows[_positions(len(rows), most, seed)]


def _positions(count: int, most: int, seed: int) -> npt.NDArray[np.intp]:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
