"""Compute LayerNorm and RMSNorm by L2_NORMALIZATION, which has an integer kernel that is exact where int8 tensors fail.

Converters write LayerNorm as ten ops. Two of its intermediate results, the variance and its inverse root, differ by
orders of magnitude between positions of an image or words of a text, and in int8 all of them share 255 steps: an almost
blank patch has an inverse root of 85 where others have 3, so that these are known to 10 % only. L2_NORMALIZATION
divides each position by its own norm inside the kernel, in wider integers (tensorflow/lite/kernels/internal/reference/
integer_ops/l2normalization.h), and its result has a fixed scale of 1/128.

With d = x - mean(x) over N channels, LayerNorm (Ba et al. 2016) is d / sqrt(mean(d^2) + epsilon), times a gain, plus an
offset: sqrt(N) times d divided by the norm of d and one more value, sqrt(N epsilon). Where epsilon is far below every
variance, that value is left out. RMSNorm (Zhang and Sennrich 2019) is the same with d = x.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.choices import Effort
from edgepack.graph import Graph, Op, Tensor, read_model
from edgepack.graph.edit import add_buffer, builtin_code, code_number, op_code, pack, tensor_keys, unpack
from edgepack.graph.options import full_options, packed_options
from edgepack.graph.read import schema
from edgepack.graph.unused import drop_unused
from edgepack.quantize.ptq.layers import Doubles
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import LEAST_EPSILON

#: Largest rank that the kernel of L2_NORMALIZATION supports (tensorflow/lite/kernels/l2norm.cc).
_MAX_RANK = 4

#: What a term of a sum is a multiple of: the normalized input x, its mean m, the inverse root r, products, or one.
_PRODUCTS = {("x", "r"): "xr", ("m", "r"): "mr", ("r", "x"): "xr", ("r", "m"): "mr"}

#: Ops that lose their readers; others, such as those of models with state, stay without one.
_ARITHMETIC = ("ADD", "DIV", "MEAN", "MUL", "NEG", "RSQRT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB")

_Terms = Mapping[str, Doubles]


@dataclass(frozen=True)
class Normalization:
    """A LayerNorm or RMSNorm of a graph: result = gain * (source - mean) / sqrt(variance + epsilon) + offset.

    Attributes:
        source: Tensor that is normalized along its last axis.
        mean: Its mean; None for RMSNorm.
        variance: Tensor with the variance plus `epsilon`, or with the mean square plus `epsilon`.
        epsilon: What is added to the variance.
        gain: Factor of each channel, (channels,).
        offset: What is added to each channel, (channels,).
        result: Tensor with the result.
    """

    source: int
    mean: int | None
    variance: int
    epsilon: float
    gain: Doubles
    offset: Doubles
    result: int


def find_normalizations(graph: Graph) -> list[Normalization]:
    """Return the LayerNorms and RMSNorms over the last axis that a float graph computes op by op."""
    found: dict[int, Normalization] = {}
    for op in graph.ops:
        if op.name in {"RSQRT", "SQRT"}:
            for normalization in _normalizations(graph, op):
                found.setdefault(normalization.result, normalization)
    return list(found.values())


def _normalizations(graph: Graph, root: Op) -> list[Normalization]:
    """Return the normalizations by the root of a variance, which several with other gains may share."""
    sums = _producer(graph, root.inputs[0], "ADD")
    if sums is None or not _is_linear(sums):
        return []
    constants, others = (
        [i for i in sums.inputs if (_scalar(graph, i) is not None) == known] for known in (True, False)
    )
    if len(constants) != 1 or len(others) != 1:
        return []
    epsilon, average = _scalar(graph, constants[0]), _producer(graph, others[0], "MEAN")
    if epsilon is None or epsilon < 0.0 or average is None or not _is_over_channels(graph, average):
        return []
    square = graph.producers.get(average.inputs[0])
    difference = None if square is None else _squared(graph, graph.ops[square])
    if difference is None or not _is_supported(graph.tensors[difference[0]]):
        return []
    source, mean = difference
    channels = graph.tensors[source].shape[-1:]
    normalizations = []
    for result, terms in _normalized(graph, root, source, mean):
        gain, offset = (np.broadcast_to(terms.get(key, np.zeros(1)), channels) for key in ("xr", "1"))
        normalizations.append(Normalization(source, mean, root.inputs[0], epsilon, gain, offset, result))
    return normalizations


def _is_supported(tensor: Tensor) -> bool:
    """Return whether L2_NORMALIZATION and the ops around it, which contain the shape, can take a tensor."""
    # An open batch is run with the batch 1 of the shape.
    fixed = all(size >= 0 for size in tensor.shape_signature[1:])
    return tensor.dtype == "FLOAT32" and 1 < tensor.rank <= _MAX_RANK and min(tensor.shape) > 0 and fixed


def _producer(graph: Graph, index: int, name: str) -> Op | None:
    op = graph.producers.get(index)
    return graph.ops[op] if op is not None and graph.ops[op].name == name else None


def _scalar(graph: Graph, index: int) -> float | None:
    data = graph.tensors[index].data
    return float(data.reshape(-1)[0]) if data is not None and data.size == 1 and data.dtype.kind == "f" else None


def _is_linear(op: Op) -> bool:
    return op.options.get("fused_activation", "NONE") in (None, "NONE")


def _is_over_channels(graph: Graph, op: Op) -> bool:
    """Return whether a MEAN is taken over the last axis, which it keeps."""
    axes, before = graph.tensors[op.inputs[1]].data, graph.tensors[op.inputs[0]].shape
    if axes is None or not before or graph.tensors[op.outputs[0]].shape != (*before[:-1], 1):
        return False
    return {int(axis) % len(before) for axis in axes.reshape(-1)} == {len(before) - 1}


def _squared(graph: Graph, op: Op) -> tuple[int, int | None] | None:
    """Return (input, its mean) of an op that squares their difference, (input, None) where it squares the input."""
    if op.name == "SQUARED_DIFFERENCE":
        return _centred(graph, *op.inputs)
    if op.name == "SQUARE" or (op.name == "MUL" and op.inputs[0] == op.inputs[1] and _is_linear(op)):
        difference = _producer(graph, op.inputs[0], "SUB")
        centred = _centred(graph, *difference.inputs) if difference is not None and _is_linear(difference) else None
        return centred or (op.inputs[0], None)
    return None


def _centred(graph: Graph, one: int, other: int) -> tuple[int, int] | None:
    """Return a tensor and its mean in this order, whichever of both comes first."""
    for source, mean in ((one, other), (other, one)):
        average = _producer(graph, mean, "MEAN")
        if average is not None and average.inputs[0] == source and _is_over_channels(graph, average):
            return source, mean
    return None


def _normalized(graph: Graph, root: Op, source: int, mean: int | None) -> list[tuple[int, _Terms]]:
    """Return the tensors that are a gain times the normalized source plus an offset, with their terms.

    Of those that follow from each other, the last one before other ops read a result: what they read is replaced.
    """
    one = np.ones(1)
    known: dict[int, _Terms] = {source: {"x": one}}
    if mean is not None:
        known[mean] = {"m": one}
    divisor = -1
    if root.name == "RSQRT":
        known[root.outputs[0]] = {"r": one}
    else:
        divisor = root.outputs[0]
    normalized: dict[int, _Terms] = {}
    first = []
    for op in graph.ops:
        result = op.outputs[0] if op.outputs else -1
        if result in known or result < 0 or not _is_linear(op):
            continue
        terms = _terms(graph, op, known, divisor)
        if terms is None:
            continue
        known[result] = terms
        if graph.tensors[result].shape == graph.tensors[source].shape and _is_normalized(terms, mean):
            normalized[result] = terms
            if not normalized.keys() & set(op.inputs):
                first.append(result)
    last = {_last(graph, result, normalized) for result in first}
    return [(result, terms) for result, terms in normalized.items() if result in last]


def _last(graph: Graph, result: int, normalized: Mapping[int, _Terms]) -> int:
    """Return the last of the tensors that follow from a normalized one, each read by the next one's op only."""
    while result not in graph.outputs and len(readers := graph.consumers.get(result, ())) == 1:
        following = graph.ops[readers[0]].outputs[0] if graph.ops[readers[0]].outputs else -1
        if following not in normalized:
            break
        result = following
    return result


def _is_normalized(terms: _Terms, mean: int | None) -> bool:
    if "xr" not in terms or not terms.keys() <= {"xr", "mr", "1"}:
        return False
    if mean is None:
        return "mr" not in terms
    return "mr" in terms and bool(np.allclose(terms["mr"], -terms["xr"], rtol=1e-5, atol=0.0))


def _terms(graph: Graph, op: Op, known: Mapping[int, _Terms], divisor: int) -> _Terms | None:
    """Return the result of an op as a sum of terms; None where it is something else, or nothing of the norm's."""
    if not any(index in known or index == divisor for index in op.inputs):
        return None
    values = [known.get(index) or _constant_terms(graph, index) for index in op.inputs]
    if op.name == "DIV" and op.inputs[1] == divisor and values[0] is not None:
        return _product(values[0], {"r": np.ones(1)})
    if any(value is None for value in values):
        return None
    parts: list[_Terms] = [value for value in values if value is not None]
    if op.name == "NEG":
        return {key: -value for key, value in parts[0].items()}
    if op.name == "MUL":
        return _product(*parts)
    if op.name == "DIV" and parts[1].keys() == {"1"} and bool((parts[1]["1"] != 0.0).all()):
        return {key: value / parts[1]["1"] for key, value in parts[0].items()}
    if op.name in {"ADD", "SUB"}:
        sign = 1.0 if op.name == "ADD" else -1.0
        return {
            key: parts[0].get(key, np.zeros(1)) + sign * parts[1].get(key, np.zeros(1))
            for key in (*parts[0], *(key for key in parts[1] if key not in parts[0]))
        }
    return None


def _constant_terms(graph: Graph, index: int) -> _Terms | None:
    """Return a constant with one value, or one per channel."""
    tensor = graph.tensors[index]
    if tensor.data is None or tensor.data.dtype.kind != "f" or tensor.elements != (tensor.shape or (1,))[-1]:
        return None
    return {"1": tensor.data.astype(np.float64).reshape(-1)}


def _product(one: _Terms, other: _Terms) -> _Terms | None:
    """Return the product of two sums; None where it has a term of another form."""
    result: dict[str, Doubles] = {}
    for first, value in one.items():
        for second, factor in other.items():
            if "1" in (first, second):
                key: str | None = second if first == "1" else first
            else:
                key = _PRODUCTS.get((first, second))
            if key is None:
                return None
            result[key] = result.get(key, np.zeros(1)) + value * factor
    return result


def replace_normalizations(tflite: bytes, extended: Sequence[bool]) -> bytes:
    """Return the float model with L2_NORMALIZATION in place of `find_normalizations`; the same bytes without any.

    Args:
        tflite: A float model.
        extended: For each normalization, whether epsilon is kept.
    """
    graph = read_model(tflite).main
    normalizations = find_normalizations(graph)
    if not normalizations:
        return tflite
    editor = _Editor(tflite)
    pairs = list(zip(normalizations, extended, strict=True))
    # In the order of the file: what results share is computed with the first of them.
    for normalization, extends in sorted(pairs, key=lambda pair: graph.producers[pair[0].result]):
        editor.replace(graph, normalization, extended=extends)
    return editor.finish()


class _Editor:
    """A model in which the results of normalizations are computed by other ops."""

    def __init__(self, tflite: bytes) -> None:
        self.model = unpack(tflite)
        self.file = self.model.subgraphs[0]
        self._by_result: dict[int, list[Any]] = {}
        self._units: dict[tuple[int, int, bool], int] = {}

    def replace(self, graph: Graph, found: Normalization, *, extended: bool) -> None:
        """Add the ops of one normalization."""
        shape = graph.tensors[found.source].shape
        name, channels = graph.tensors[found.result].name, shape[-1]
        ops = self._by_result.setdefault(found.result, [])
        shared = found.source, found.variance, extended
        if shared not in self._units:
            self._units[shared] = self._unit(ops, name, shape, found, extended=extended)
        value = self._units[shared]
        wide = (1,) * (len(shape) - 1) + (channels,)
        gain = self._constant(f"{name}/gain", (math.sqrt(channels) * found.gain).astype(np.float32).reshape(wide))
        if not found.offset.any():
            ops.append(self._op("MUL", [value, gain], found.result))
            return
        value = self._then(ops, f"{name}/scaled", "MUL", [value, gain], shape)
        offset = self._constant(f"{name}/offset", found.offset.astype(np.float32).reshape(wide))
        ops.append(self._op("ADD", [value, offset], found.result))

    def _unit(self, ops: list[Any], name: str, shape: tuple[int, ...], found: Normalization, *, extended: bool) -> int:
        """Add the ops that divide each position by its norm; return their result."""
        value, channels = found.source, shape[-1]
        if found.mean is not None:
            value = self._then(ops, f"{name}/centred", "SUB", [value, found.mean], shape)
        if not extended:
            return self._then(ops, f"{name}/unit", "L2_NORMALIZATION", [value], shape)
        # Not by PADV2: Qualcomm's HTP simulator pads int8 with another value (QAIRT 2.51, v73).
        rest = np.full((*shape[:-1], 1), math.sqrt(channels * found.epsilon), np.float32)
        parts = [value, self._constant(f"{name}/epsilon", rest)]
        wider, axis = (*shape[:-1], channels + 1), len(shape) - 1
        value = self._then(ops, f"{name}/extended", "CONCATENATION", parts, wider, axis=axis)
        value = self._then(ops, f"{name}/unit", "L2_NORMALIZATION", [value], wider)
        start = self._constant(f"{name}/start", np.zeros(len(shape), np.int32))
        size = self._constant(f"{name}/size", np.array(shape, np.int32))
        return self._then(ops, f"{name}/channels", "SLICE", [value, start, size], shape)

    def finish(self) -> bytes:
        """Return the file without the ops that nothing reads any more."""
        operators = []
        for op in self.file.operators:
            ops = next((self._by_result[int(i)] for i in op.outputs if int(i) in self._by_result), None)
            operators += [op] if ops is None else ops
        needed = {int(index) for index in self.file.outputs}
        # By number: a file may have several codes of an op, of other versions.
        arithmetic = {builtin_code(name) for name in _ARITHMETIC}
        kept = []
        for op in reversed(operators):
            number = code_number(self.model.operatorCodes[op.opcodeIndex])
            if number not in arithmetic or any(int(i) in needed for i in op.outputs):
                kept.append(op)
                needed |= {int(index) for index in op.inputs}
        self.file.operators = kept[::-1]
        drop_unused(self.model)
        return pack(self.model)

    def _then(
        self, ops: list[Any], name: str, op: str, inputs: Sequence[int], shape: Sequence[int], **options: Any
    ) -> int:
        result = self._tensor(name, shape)
        ops.append(self._op(op, inputs, result, **options))
        return result

    def _op(self, name: str, inputs: Sequence[int], result: int, **options: Any) -> Any:
        op = schema().OperatorT()
        op.opcodeIndex = op_code(self.model, name)
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array([result], np.int32)
        op.builtinOptionsType, op.builtinOptions = packed_options(name, full_options(name, options))
        return op

    def _constant(self, name: str, values: npt.NDArray[Any]) -> int:
        index = self._tensor(name, values.shape)
        self.file.tensors[index].buffer = add_buffer(self.model, values)
        if values.dtype == np.int32:
            self.file.tensors[index].type = schema().TensorType.INT32
        return index

    def _tensor(self, name: str, shape: Sequence[int]) -> int:
        tensor = schema().TensorT()
        tensor.name, tensor.shape, tensor.hasRank = name.encode(), np.array(shape, np.int32), True
        tensor.type, tensor.buffer = schema().TensorType.FLOAT32, 0
        self.file.tensors.append(tensor)
        return len(self.file.tensors) - 1


class _LayerNorm(Step):
    id = "layer-norm"
    effort = Effort.LOW
    source = "LayerNorm (Ba et al. 2016) by L2_NORMALIZATION, whose kernel divides each position by its own norm"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        if subject.rule.layer_norm != "L2_NORMALIZATION" or not find_normalizations(subject.graph):
            return []
        return [{self.id: "L2_NORMALIZATION"}]

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        # Decided by all samples: every fit has the same graph, whichever is made first.
        samples = subject.view(range(len(subject.samples)))
        model = subject.once("layer norms", fit.reference, lambda: self._replaced(fit.reference, samples))
        return replace(fit, reference=model, tflite=model)

    def _replaced(self, tflite: bytes, view: View) -> bytes:
        graph = read_model(tflite).main
        keys, statistics = tensor_keys(graph), view.calibration(tflite).tensors
        extended = []
        for found in find_normalizations(graph):
            measured = statistics.get(keys[found.variance])
            least = 0.0 if measured is None else float(measured.minimum)
            extended.append(found.epsilon > LEAST_EPSILON * least)
        return replace_normalizations(tflite, extended)


LAYER_NORM = _LayerNorm()
