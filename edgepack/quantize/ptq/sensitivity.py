"""Sensitivity of a model to int8: everything in float except one activation or one layer's weights, measured.

One tensor at a time, as in Wu et al. 2020, "Integer Quantization for Deep Learning Inference", section 6.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.graph import read_model
from edgepack.graph.edit import op_code, pack, tensor_keys, unpack
from edgepack.graph.read import schema
from edgepack.quantize.ptq.activations import Sample, logits, snr_db
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants
from edgepack.quantize.ranges import Range

_LEVELS = 255


@dataclass(frozen=True)
class Sensitivity:
    """The effect of int8 on one tensor.

    Attributes:
        tensor: Key of the activation or of the layer's output (`edgepack.graph.edit.tensor_keys`).
        kind: `activation` or `weights`.
        snr_db: SNR of the model's logits when only this is int8; inf when nothing changes.
    """

    tensor: str
    kind: str
    snr_db: float


def sensitivities(tflite: bytes, ranges: Mapping[str, Range], samples: Sequence[Sample]) -> list[Sensitivity]:
    """Measure every activation with a range and every layer's weights; lowest SNR first.

    Args:
        tflite: A float model.
        ranges: Its ranges by `tensor_keys`.
        samples: Real values by input name.
    """
    reference = logits(tflite, samples)
    graph = read_model(tflite).main
    keys = tensor_keys(graph)
    results = []
    for key, bounds in ranges.items():
        model = with_rounded_activations(tflite, {keys.index(key): bounds})
        results.append(Sensitivity(key, "activation", snr_db(reference, logits(model, samples))))
    for layer in find_layers(graph):
        rows = layer.rows(constant_values(graph, layer.weights))
        scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / 127
        model = set_constants(tflite, {layer.weights: layer.from_rows(np.rint(rows / scale) * scale)})
        results.append(Sensitivity(keys[layer.result], "weights", snr_db(reference, logits(model, samples))))
    return sorted(results, key=lambda sensitivity: sensitivity.snr_db)


def with_rounded_activations(tflite: bytes, ranges: Mapping[int, Range]) -> bytes:
    """Return the float model with QUANTIZE and DEQUANTIZE after each of these tensors (by index)."""
    source = read_model(tflite).main
    model = unpack(tflite)
    graph = model.subgraphs[0]
    codes = {name: op_code(model, name) for name in ("QUANTIZE", "DEQUANTIZE")}
    at_start: list[Any] = []
    after_op: dict[int, list[Any]] = {}
    replaced_by: dict[int, int] = {}
    for index, (low, high) in ranges.items():
        old = graph.tensors[index]
        pair = [schema().TensorT(), schema().TensorT()]
        for tensor, suffix in zip(pair, (b"_int8", b"_real"), strict=True):
            tensor.name = (old.name or b"") + suffix
            tensor.shape, tensor.shapeSignature, tensor.hasRank = old.shape, old.shapeSignature, old.hasRank
        scale = max((high - low) / _LEVELS, 1e-30)
        pair[0].type = schema().TensorType.INT8
        pair[0].quantization = schema().QuantizationParametersT()
        pair[0].quantization.scale = np.array([scale], np.float32)
        pair[0].quantization.zeroPoint = np.array([round(-low / scale) - 128], np.int64)
        graph.tensors += pair
        integer, real = len(graph.tensors) - 2, len(graph.tensors) - 1
        replaced_by[index] = real
        ops = []
        for name, op_input, op_output in (("QUANTIZE", index, integer), ("DEQUANTIZE", integer, real)):
            op = schema().OperatorT()
            op.opcodeIndex = codes[name]
            op.inputs, op.outputs = np.array([op_input], np.int32), np.array([op_output], np.int32)
            ops.append(op)
        if index in source.producers:
            after_op[source.producers[index]] = [*after_op.get(source.producers[index], []), *ops]
        else:
            at_start += ops
    original_ops = list(graph.operators)
    for op in original_ops:
        op.inputs = np.array([replaced_by.get(int(i), int(i)) for i in op.inputs], np.int32)
    graph.outputs = np.array([replaced_by.get(int(i), int(i)) for i in graph.outputs], np.int32)
    graph.operators = [
        *at_start,
        *(op for number, old in enumerate(original_ops) for op in (old, *after_op.get(number, []))),
    ]
    for signature in model.signatureDefs or []:
        for entry in signature.outputs if signature.subgraphIndex == 0 else []:
            entry.tensorIndex = replaced_by.get(int(entry.tensorIndex), int(entry.tensorIndex))
    return pack(model)
