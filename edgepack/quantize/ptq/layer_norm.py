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
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.choices import Effort
from edgepack.graph import Graph, read_model
from edgepack.graph.edit import builtin_code, code_number, pack, unpack
from edgepack.graph.new_parts import new_operator, new_tensor
from edgepack.graph.unused import drop_unused
from edgepack.quantize.ptq.activations import Sample, iterate_activations
from edgepack.quantize.ptq.normalizations import Normalization, find_normalizations
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import LEAST_EPSILON

#: Ops that lose their readers; others, such as those of models with state, stay without one.
_WITHOUT_EFFECT = (
    "ADD", "DIV", "MEAN", "MUL", "NEG", "RESHAPE", "RSQRT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "TRANSPOSE",
)  # fmt: skip


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
            mean = found.mean
            if self._shape(mean) != (*shape[:-1], 1):
                axes = self._constant(f"{name}/axes", np.array([len(shape) - 1], np.int32))
                mean = self._then(ops, f"{name}/mean", "MEAN", [value, axes], (*shape[:-1], 1), keep_dims=True)
            value = self._then(ops, f"{name}/centred", "SUB", [value, mean], shape)
        if not extended:
            return self._then(ops, f"{name}/unit", "L2_NORMALIZATION", [value], shape)
        # Zeros and a sum: the Edge TPU's CONCATENATION takes no constants but zeros (targets/edgetpu/ops.toml), and
        # Qualcomm's HTP simulator gives PADV2 of int8 another value (QAIRT 2.51, v73). Three small networks have the
        # same SNR with one CONCATENATION.
        wider = (*shape[:-1], channels + 1)
        padding, rest = np.zeros((len(shape), 2), np.int32), np.zeros((1,) * (len(shape) - 1) + wider[-1:], np.float32)
        padding[-1, 1], rest[..., -1] = 1, math.sqrt(channels * found.epsilon)
        value = self._then(ops, f"{name}/padded", "PAD", [value, self._constant(f"{name}/padding", padding)], wider)
        value = self._then(ops, f"{name}/extended", "ADD", [value, self._constant(f"{name}/epsilon", rest)], wider)
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
        without_effect = {builtin_code(name) for name in _WITHOUT_EFFECT}
        kept = []
        for op in reversed(operators):
            number = code_number(self.model.operatorCodes[op.opcodeIndex])
            if number not in without_effect or any(int(i) in needed for i in op.outputs):
                kept.append(op)
                needed |= {int(index) for index in op.inputs}
        self.file.operators = kept[::-1]
        drop_unused(self.model)
        return pack(self.model)

    def _shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(size) for size in self.file.tensors[index].shape)

    def _then(
        self, ops: list[Any], name: str, op: str, inputs: Sequence[int], shape: Sequence[int], **options: Any
    ) -> int:
        result = new_tensor(self.model, self.file, name, shape)
        ops.append(self._op(op, inputs, result, **options))
        return result

    def _op(self, name: str, inputs: Sequence[int], result: int, **options: Any) -> Any:
        return new_operator(self.model, name, inputs, [result], **options)

    def _constant(self, name: str, values: npt.NDArray[Any]) -> int:
        return new_tensor(self.model, self.file, name, values.shape, values)


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
        model = subject.once("layer norms", fit.reference, lambda: _replaced(fit.reference, subject.samples))
        return replace(fit, reference=model, tflite=model)


def _replaced(tflite: bytes, samples: Sequence[Sample]) -> bytes:
    """Return the model with each epsilon kept that the smallest variance on the samples makes worth it."""
    found = find_normalizations(read_model(tflite).main)
    least = [math.inf] * len(found)
    for values in iterate_activations(tflite, [normalization.variance for normalization in found], samples):
        least = [min(before, float(value.min())) for before, value in zip(least, values, strict=True)]
    extended = [n.epsilon > LEAST_EPSILON * smallest for n, smallest in zip(found, least, strict=True)]
    return replace_normalizations(tflite, extended)


LAYER_NORM = _LayerNorm()
