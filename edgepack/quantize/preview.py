"""Preview of a float model in a scheme, without data and without quantizing: data types, op versions, added ops."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from edgepack.graph import NUMPY_DTYPES, Graph, Model, Op, Quantization, Tensor
from edgepack.graph.file_versions import file_versions
from edgepack.graph.memo import Memo
from edgepack.graph.op_layout import OP_LAYOUTS, bias_index, weights_index
from edgepack.graph.runtime_versions import min_runtime_version
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.float16 import halved_constants
from edgepack.quantize.hybrid_lstm import hybrid_weights
from edgepack.quantize.int16_bias import NARROW_BIAS, layer_fits, splits_bias
from edgepack.quantize.op_support import DYNAMIC_MIN_ELEMENTS, DYNAMIC_WEIGHTS, quantized_ops
from edgepack.quantize.scale_constraints import fixed_range
from edgepack.schemes import get_scheme

#: Placeholder for a scale that only data can determine. Below 1, so that MUL does not seem to scale up, and no power
#: of two, so that int16 ADD does not seem to have the scales of its older kernel: both change the op version.
_SCALE = 0.01

#: Types of the biases and the cell state of an int8 LSTM, by input position (tensorflow/lite/kernels/lstm_shared.h).
_LSTM_TYPES = {12: "INT32", 13: "INT32", 14: "INT32", 15: "INT32", 19: "INT16"}

#: Bytes of the quantization parameters of one channel: a float32 scale and an int64 zero point.
_CHANNEL_BYTES = 12


def preview(model: Model, rule: SchemeRule, memo: Memo | None = None) -> Model:
    """Return the model that `quantize` (or TFLiteConverter's quantizer, where it is needed) would write.

    Scales are placeholders, except those that kernels fix; constants that change type are zeros; `size` is an estimate.
    A model that is not float is returned unchanged.

    Args:
        model: A float model.
        rule: Scheme, type of inputs and outputs, granularity of weights.
        memo: Shared by the previews of a search, which then share their tensors; they have no `min_runtime_version`.
    """
    scheme = get_scheme(rule.scheme)
    if not model.is_float or (scheme.id == "float32" and memo is None):
        return model
    draft = _Draft(list(model.main.tensors), memo or Memo())
    if scheme.id == "float32":
        draft.ops.extend(model.main.ops)
    elif scheme.id == "float16":
        _halve(model.main, draft)
    elif scheme.id == "dynamic-range":
        _weights_only(model.main, draft, rule)
    else:
        _integer(model.main, draft, rule, 16 if scheme.activations == "INT16" else 8)
    finished = _finished(model, draft)
    return finished if memo is not None else _with_runtime(finished)


@dataclass
class _Draft:
    """A graph under construction: tensors by index, ops in order, and the tensors that replace inputs and outputs."""

    tensors: list[Tensor]
    memo: Memo
    ops: list[Op] = field(default_factory=list)
    moved_inputs: dict[int, int] = field(default_factory=dict)
    moved_outputs: dict[int, int] = field(default_factory=dict)

    def retype(self, index: int, dtype: str, quantization: Quantization | None) -> None:
        tensor = self.tensors[index]
        self.tensors[index] = self.memo.get(
            (tensor, quantization), ("retyped", dtype), lambda: _retyped(tensor, dtype, quantization, self.memo)
        )

    def add_tensor(self, like: int, suffix: str, dtype: str, quantization: Quantization | None) -> int:
        index, source = len(self.tensors), self.tensors[like]
        copied = self.memo.get(
            (source,), ("copied", index, suffix), lambda: replace(source, index=index, name=source.name + suffix)
        )
        self.tensors.append(copied)
        self.retype(index, dtype, quantization)
        return index

    def add_op(self, name: str, source: int, result: int) -> None:
        self.ops.append(Op(len(self.ops), name, "", 1, (source,), (result,), {}))


def _retyped(tensor: Tensor, dtype: str, quantization: Quantization | None, memo: Memo) -> Tensor:
    raw = tensor.raw
    if raw is not None:
        size = tensor.elements * NUMPY_DTYPES[dtype].itemsize
        raw = memo.get((), ("zeros", size), lambda: np.zeros(size, np.uint8))
    return replace(tensor, dtype=dtype, raw=raw, quantization=quantization)


@cache
def _per_tensor(scale: float = _SCALE, zero_point: int = 0) -> Quantization:
    return Quantization(np.array([scale], np.float32), np.array([zero_point], np.int64))


@cache
def _per_channel(channels: int, axis: int) -> Quantization:
    return Quantization(np.full(channels, _SCALE, np.float32), np.zeros(channels, np.int64), axis)


def _halve(graph: Graph, draft: _Draft) -> None:
    for index in halved_constants(graph):
        half = draft.add_tensor(index, "", "FLOAT16", None)
        draft.tensors[index] = replace(draft.tensors[index], raw=None, name=draft.tensors[index].name + "_dequantize")
        draft.add_op("DEQUANTIZE", half, index)
    draft.ops.extend(graph.ops)


def _weights_only(graph: Graph, draft: _Draft, rule: SchemeRule) -> None:
    for op in graph.ops:
        if op.name in DYNAMIC_WEIGHTS and weights_index(op) >= 0:
            weights = graph.tensors[weights_index(op)]
            if weights.is_constant and weights.dtype == "FLOAT32" and weights.elements >= DYNAMIC_MIN_ELEMENTS:
                draft.retype(weights.index, "INT8", _weight_quantization(op, weights, rule))
        for index in hybrid_weights(graph, op):
            draft.retype(index, "INT8", _per_tensor())
        draft.ops.append(op)


def _weight_quantization(op: Op, weights: Tensor, rule: SchemeRule) -> Quantization:
    axis = OP_LAYOUTS[op.name].channel_axis
    if rule.has_one_scale(op.name) or axis is None or axis >= weights.rank:
        return _per_tensor()
    return _per_channel(weights.shape[axis], axis)


def _integer(graph: Graph, draft: _Draft, rule: SchemeRule, bits: int) -> None:
    """Retype the tensors of quantized ops, and add QUANTIZE and DEQUANTIZE at float ops, inputs and outputs."""
    inner = f"INT{bits}"
    names = quantized_ops({op.name for op in graph.ops}, bits)
    quantized = {op.index for op in graph.ops if op.name in names}
    copies = _add_copies(graph, draft, rule.io, quantized, inner)
    for op in graph.ops:
        substitutes = copies.integer if op.index in quantized else copies.float
        if op.index in quantized:
            _retype_constants(graph, draft, op, rule, bits)
            _fix_outputs(draft, op, bits)
        inputs = tuple(substitutes.get(i, i) for i in op.inputs)
        converted = op if inputs == op.inputs else replace(op, inputs=inputs)
        if bits == 16 and op.index in quantized and splits_bias(graph, op, rule):
            draft.ops.extend(_without_bias(draft, converted))
        else:
            draft.ops.append(_with_bias_type(draft, converted, bits))
        _convert_results(draft, op.outputs, copies)
    _convert_interface(graph, draft, rule, inner)


@dataclass(frozen=True)
class _Copies:
    """Converted copies of activations, by the original's index.

    Attributes:
        float: Float copies of integer tensors, written by DEQUANTIZE.
        integer: Integer copies of float tensors, written by QUANTIZE.
    """

    float: dict[int, int] = field(default_factory=dict)
    integer: dict[int, int] = field(default_factory=dict)


def _add_copies(graph: Graph, draft: _Draft, io: str, quantized: set[int], inner: str) -> _Copies:
    """Choose the type of each activation, and add the converted copies that its consumers need.

    Args:
        graph: The float graph.
        draft: The graph under construction.
        io: Type of inputs and outputs.
        quantized: Indices of the ops that become integer.
        inner: Type of integer activations, `INT8` or `INT16`.
    """
    copies = _Copies()
    integer_io = io != "FLOAT32"
    for index in (t.index for t in graph.tensors if t.dtype == "FLOAT32" and not t.is_constant):
        producer = graph.producers.get(index)
        consumers = graph.consumers.get(index, ())
        if graph.tensors[index].is_variable:
            # A state has the type that its op needs; nothing converts it.
            if any(op in quantized for op in consumers):
                draft.retype(index, inner, _per_tensor())
            continue
        read_as_integer = any(op in quantized for op in consumers)
        if producer is None:
            is_integer = integer_io and (bool(consumers) or index in graph.outputs)
        else:
            is_integer = producer in quantized
        if is_integer:
            # An input that only float ops read has the type of the interface: no conversion is needed before it.
            draft.retype(index, inner if read_as_integer or producer is not None else io, _per_tensor())
            if any(op not in quantized for op in consumers):
                copies.float[index] = draft.add_tensor(index, "_dequant", "FLOAT32", None)
        else:
            is_output = index in graph.outputs and integer_io
            if is_output or read_as_integer:
                dtype = inner if read_as_integer else io
                copies.integer[index] = draft.add_tensor(index, "_quantized", dtype, _per_tensor())
            if is_output:
                draft.moved_outputs[index] = copies.integer[index]
    _convert_results(draft, graph.inputs, copies)
    return copies


def _convert_results(draft: _Draft, results: Iterable[int], copies: _Copies) -> None:
    for index in results:
        if index in copies.integer:
            draft.add_op("QUANTIZE", index, copies.integer[index])
        if index in copies.float:
            draft.add_op("DEQUANTIZE", index, copies.float[index])


def _retype_constants(graph: Graph, draft: _Draft, op: Op, rule: SchemeRule, bits: int) -> None:
    layout = OP_LAYOUTS.get(op.name)
    types = _LSTM_TYPES if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM" else {}
    for position, index in enumerate(op.inputs):
        tensor = graph.tensors[index] if index >= 0 else None
        if tensor is not None and position in types:
            draft.retype(index, types[position], _per_tensor())
            continue
        if tensor is None or not tensor.is_constant or tensor.dtype != "FLOAT32":
            continue
        if layout is not None and position == layout.bias:
            weights = draft.tensors[op.inputs[layout.weights]].quantization
            channels = weights is not None and weights.per_channel
            draft.retype(
                index,
                "INT32" if bits == 8 or layer_fits(graph, op, rule) else "INT64",
                _per_channel(tensor.elements, 0) if channels else _per_tensor(),
            )
        elif layout is not None and position == layout.weights:
            draft.retype(index, "INT8", _weight_quantization(op, tensor, rule))
        else:
            draft.retype(index, f"INT{bits}", _per_tensor())


def _with_bias_type(draft: _Draft, op: Op, bits: int) -> Op:
    bias = bias_index(op) if bits == 16 and op.name in NARROW_BIAS else -1
    if bias < 0 or draft.tensors[bias].dtype != "INT32":
        return op
    return replace(op, options={**op.options, "quantized_bias_type": "INT32"})


def _without_bias(draft: _Draft, op: Op) -> tuple[Op, Op]:
    """Return an op without its bias, and the ADD behind it with the bias."""
    bias, activation = bias_index(op), op.options.get("fused_activation", "NONE")
    products = draft.add_tensor(op.outputs[0], "/products", "INT16", _per_tensor())
    draft.retype(bias, "INT16", _per_tensor())
    layer = replace(
        op,
        inputs=op.inputs[: OP_LAYOUTS[op.name].bias],
        outputs=(products,),
        options={**op.options, "fused_activation": "NONE"},
    )
    add = Op(0, "ADD", "", 1, (products, bias), op.outputs, {"fused_activation": activation})
    return layer, add


def _fix_outputs(draft: _Draft, op: Op, bits: int) -> None:
    bounds = fixed_range(op, bits)
    if bounds is not None and op.outputs and op.outputs[0] >= 0:
        scale = (bounds[1] - bounds[0]) / (255 if bits == 8 else 65534)
        zero_point = -128 - round(bounds[0] / scale) if bits == 8 else 0
        draft.retype(op.outputs[0], f"INT{bits}", _per_tensor(scale, zero_point))


def _convert_interface(graph: Graph, draft: _Draft, rule: SchemeRule, inner: str) -> None:
    """Add the conversions between the type of inputs and outputs and an inner type that differs."""
    if rule.io == inner:
        return
    quantization = None if rule.io == "FLOAT32" else _per_tensor(zero_point=128)
    first = []
    for index in graph.inputs:
        if draft.tensors[index].dtype == inner:
            outer = draft.moved_inputs[index] = draft.add_tensor(index, "_end", rule.io, quantization)
            first.append(Op(0, "QUANTIZE", "", 1, (outer,), (index,), {}))
    draft.ops[:0] = first
    for index in dict.fromkeys(graph.outputs):
        source = draft.moved_outputs.get(index, index)
        if draft.tensors[source].dtype == inner:
            outer = draft.moved_outputs[index] = draft.add_tensor(source, "_end", rule.io, quantization)
            draft.add_op("QUANTIZE" if quantization is not None else "DEQUANTIZE", source, outer)


def _finished(model: Model, draft: _Draft) -> Model:
    ops = tuple(op if op.index == i else replace(op, index=i) for i, op in enumerate(draft.ops))
    old = model.main
    for inner, outer in (*draft.moved_inputs.items(), *draft.moved_outputs.items()):
        # Inputs and outputs keep the names of the float model.
        draft.tensors[outer] = replace(draft.tensors[outer], name=old.tensors[inner].name)
        draft.tensors[inner] = replace(draft.tensors[inner], name=f"{old.tensors[inner].name}#{inner}")
    graph = Graph(
        old.name,
        tuple(draft.tensors),
        ops,
        tuple(draft.moved_inputs.get(i, i) for i in old.inputs),
        tuple(draft.moved_outputs.get(i, i) for i in old.outputs),
    )
    quantized = replace(model, graphs=(graph, *model.graphs[1:]))
    versions = file_versions(quantized, draft.memo)
    ops = tuple(op if op.version == versions[0, op.index] else replace(op, version=versions[0, op.index]) for op in ops)
    return replace(
        quantized,
        graphs=(replace(graph, ops=ops), *model.graphs[1:]),
        signatures=tuple(_moved(s, draft) if s.graph == 0 else s for s in model.signatures),
        size=max(0, model.size + _constant_bytes(draft.tensors) - _constant_bytes(old.tensors)),
    )


def _with_runtime(model: Model) -> Model:
    runtime = min_runtime_version((op.name, op.version) for op in model.main.ops)
    return replace(model, metadata={**model.metadata, "min_runtime_version": runtime.encode()})


def _moved(signature: Any, draft: _Draft) -> Any:
    return replace(
        signature,
        inputs={name: draft.moved_inputs.get(i, i) for name, i in signature.inputs.items()},
        outputs={name: draft.moved_outputs.get(i, i) for name, i in signature.outputs.items()},
    )


def _constant_bytes(tensors: Iterable[Tensor]) -> int:
    constants = [t for t in tensors if t.raw is not None]
    data = {(t.buffer, t.dtype): t.raw.size for t in constants if t.raw is not None}
    channels = sum(t.quantization.scale.size for t in constants if t.quantization is not None)
    return sum(data.values()) + _CHANNEL_BYTES * channels
