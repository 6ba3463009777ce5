"""Which tensors cause the loss of an int8 file: each activation and each layer's weights in int8 alone, measured.

One tensor at a time, as in `ptq.sensitivity` (Wu et al. 2020, section 6.1), on the output that lost most. The tensors
whose own rounding error is largest come first; how many are measured follows from the size of the model and not from
a clock, so that the same inputs give the same text.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.graph import Graph, Tensor, read_model
from edgepack.graph.edit import tensor_keys
from edgepack.graph.op_layout import bias_index
from edgepack.quantize.ptq.activations import Sample, iterate_activations
from edgepack.quantize.ptq.bias_correction import real_weights
from edgepack.quantize.ptq.layers import Layer, constant_values, find_layers, set_constants, weighted_ops
from edgepack.quantize.ptq.sensitivity import with_rounded_activations
from edgepack.quantize.ranges import Range
from edgepack.runtime.runner import Runner
from edgepack.runtime.signal import LOWEST_SNR, SignalMeter

#: Multiply-accumulates of all measurements together: about ten seconds on two cores of a laptop.
BUDGET = 4e10
#: Fewest and most tensors that are measured alone.
FEWEST, MOST = 4, 64
#: SNR that stands for a tensor without error.
_EXACT = 999.0


@dataclass(frozen=True)
class Cause:
    """The effect of int8 on one tensor alone.

    Attributes:
        kind: `input`, `output`, `activation` or `weights`.
        tensor: Name of the activation, or of the output of the layer with the weights.
        op: Op that produces it, empty for an input.
        snr_db: SNR of the model's worst output when only this tensor is int8, dB.
    """

    kind: str
    tensor: str
    op: str
    snr_db: float


@dataclass(frozen=True)
class Attribution:
    """The measured tensors.

    Attributes:
        causes: Lowest SNR first.
        tensors: Number of tensors that are int8 in the file, measured or not.
    """

    causes: tuple[Cause, ...]
    tensors: int


def attribute(
    tflite: bytes,
    quantized: bytes,
    samples: Sequence[Sample],
    output: int,
    columns: Sequence[int] = (),
    axis: int | None = None,
    *,
    own_ranges: bool = True,
) -> Attribution:
    """Measure the tensors of a float model in int8 alone.

    Args:
        tflite: The float model that was quantized.
        quantized: The int8 file; activations have the same names.
        samples: Real values by input name.
        output: Position of the output that is measured.
        columns: Its columns that are measured, all when empty.
        axis: Their axis.
        own_ranges: Take the ranges of activations, and weights with their biases, from the file. False takes ranges
            from the samples and rounds weights to nearest: a file with equalized channels has other values.

    Raises:
        UnfitModelError: A model does not run on this machine.
    """
    graph, other = read_model(tflite).main, read_model(quantized).main
    activations = _activations(graph, other)
    found = _local_errors(tflite, samples, activations, own_ranges=own_ranges)
    layers = {layer.result: layer for layer in find_layers(graph)}
    weights = {index: _integer_layer(graph, layer, other, from_file=own_ranges) for index, layer in layers.items()}
    order = [(error, "activation", index) for index, (error, _) in found.items()]
    order += [(error, "weights", index) for index, (error, _) in weights.items()]
    order.sort()
    multiplications = sum(layer.rows(constant_values(graph, layer.weights)).shape[1] * graph.tensors[i].elements
                          for i, layer in layers.items())  # fmt: skip
    affordable = int(BUDGET / max(1.0, float(multiplications) * len(samples)))

    def outputs(model: bytes) -> Iterator[np.ndarray]:
        runner = Runner(model, threads=2, stream=True)
        names = read_model(tflite).input_names()
        for sample in samples:
            value = runner.run_real([sample[name] for name in names])[output]
            yield value if axis is None or not columns else np.take(value, list(columns), axis=axis)

    reference = list(outputs(tflite))
    causes = []
    for _, kind, index in order[: max(FEWEST, min(MOST, affordable))]:
        if kind == "activation":
            changed = with_rounded_activations(tflite, {index: found[index][1]})
        else:
            changed = set_constants(tflite, weights[index][1])
        meter = SignalMeter(columns=False)
        for expected, actual in zip(reference, outputs(changed), strict=True):
            meter.add(expected, actual)
        snr = meter.result().snr_db
        causes.append(_cause(graph, kind, index, _EXACT if snr is None else snr))
    return Attribution(tuple(sorted(causes, key=lambda cause: cause.snr_db)), len(order))


def _activations(graph: Graph, other: Graph) -> dict[int, Range]:
    """Return the float activations that are int8 in the file, by index, with the file's range."""
    by_name = {tensor.name: tensor for tensor in other.tensors if _is_int8(tensor)}
    keys = tensor_keys(graph)
    used = {index for op in graph.ops for index in (*op.inputs, *op.outputs)}
    result = {}
    for tensor in graph.tensors:
        match = by_name.get(keys[tensor.index])
        if match is None or tensor.is_constant or not tensor.is_float or tensor.index not in used:
            continue
        assert match.quantization is not None
        scale, zero = float(match.quantization.scale[0]), int(match.quantization.zero_point[0])
        lowest = 0 if match.dtype == "UINT8" else -128
        result[tensor.index] = (scale * (lowest - zero), scale * (lowest + 255 - zero))
    return result


def _is_int8(tensor: Tensor) -> bool:
    known = tensor.quantization is not None and tensor.quantization.scale.size == 1
    return known and tensor.dtype in {"INT8", "UINT8"}


def _local_errors(
    tflite: bytes, samples: Sequence[Sample], ranges: Mapping[int, Range], *, own_ranges: bool
) -> dict[int, tuple[float, Range]]:
    """Return the SNR of each activation when it is rounded, and its range, by index."""
    indices = list(ranges)
    used = dict(ranges)
    if not own_ranges:
        bounds = dict.fromkeys(indices, (0.0, 0.0))
        for values in iterate_activations(tflite, indices, samples):
            for index, value in zip(indices, values, strict=True):
                low, high = bounds[index]
                bounds[index] = min(low, float(value.min(initial=0.0))), max(high, float(value.max(initial=0.0)))
        used = bounds
    meters = {index: SignalMeter(columns=True) for index in indices}
    for values in iterate_activations(tflite, indices, samples) if indices else ():
        for index, value in zip(indices, values, strict=True):
            low, high = used[index]
            scale = max((high - low) / 255, 1e-30)
            meters[index].add(value, np.clip(np.rint((value - low) / scale), 0, 255) * scale + low)
    snr = {index: meter.result().snr_db for index, meter in meters.items()}
    return {index: (math.inf if snr[index] is None else float(snr[index] or 0.0), used[index]) for index in indices}


def _integer_layer(graph: Graph, layer: Layer, other: Graph, *, from_file: bool) -> tuple[float, dict[int, np.ndarray]]:
    """Return the SNR of a layer's weights in int8, and its constants in int8 by index.

    Those of the file include the bias, because it makes up for the shift that rounding of the weights causes.
    """
    ops, weights = weighted_ops(other), constant_values(graph, layer.weights)
    stored = other.tensors[ops[layer.position].inputs[1]] if len(ops) == len(weighted_ops(graph)) else None
    if from_file and stored is not None and stored.dtype == "INT8" and stored.shape == layer.shape:
        constants = {layer.weights: real_weights(other, stored.index).astype(np.float32)}
        bias = bias_index(ops[layer.position])
        if layer.bias >= 0 and bias >= 0 and other.tensors[bias].data is not None:
            constants[layer.bias] = real_weights(other, bias).astype(np.float32)
    else:
        rows = layer.rows(weights)
        per_tensor = stored is not None and stored.quantization is not None and not stored.quantization.per_channel
        largest = np.abs(rows).max(axis=None if per_tensor else 1, keepdims=True)
        scale = np.maximum(largest, 1e-12) / 127
        constants = {layer.weights: layer.from_rows(np.rint(rows / scale) * scale)}
    noise = float(np.square(weights - constants[layer.weights]).sum())
    signal = float(np.square(weights).sum())
    error = math.inf if noise == 0.0 else LOWEST_SNR if signal == 0.0 else 10 * math.log10(signal / noise)
    return error, constants


def _cause(graph: Graph, kind: str, index: int, snr: float) -> Cause:
    producer = graph.producers.get(index)
    if kind == "activation":
        kind = "output" if index in graph.outputs else "input" if producer is None else "activation"
    return Cause(kind, tensor_keys(graph)[index], "" if producer is None else graph.ops[producer].label, snr)
