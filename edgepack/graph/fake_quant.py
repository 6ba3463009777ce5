"""Ranges that a float model learned: read from its FAKE_QUANT ops, and kept in its tensors.

A model that was trained quantization-aware and converted in float has, behind each activation, either a FAKE_QUANT op
(TOCO) or a QUANTIZE and a DEQUANTIZE (TFLiteConverter). `fold_fake_quant` removes these and stores the range in the
tensor, as `min` and `max` of its quantization parameters: the schema's place for ranges of float tensors. Rewrites keep
tensors, and so the ranges reach the quantizer.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import ModelFileError
from edgepack.graph.edit import add_buffer, op_code, pack, set_ranges, tensor_keys, unpack, write_true_versions
from edgepack.graph.model import Graph, Op, Quantization
from edgepack.graph.read import read_model, schema
from edgepack.graph.unused import drop_unused

Range = tuple[float, float]

#: Ops that only round a float tensor to a grid: their result is the input again, as far as a float model goes.
_START = ("FAKE_QUANT", "QUANTIZE")


def learned_ranges(tflite: bytes) -> dict[str, Range]:
    """Return the ranges that a float file stores for its activations, by `tensor_keys`; empty for most files.

    Raises:
        ModelFileError: The bytes are not a readable .tflite.
    """
    graph = read_model(tflite).main
    packed = schema().Model.GetRootAsModel(tflite, 0).Subgraphs(0)
    keys: tuple[str, ...] = ()
    ranges = {}
    for tensor in graph.tensors:
        if tensor.is_constant or tensor.dtype != "FLOAT32":
            continue
        stored = packed.Tensors(tensor.index).Quantization()
        try:
            # Several values would be per-channel ranges, which no kernel has for activations.
            if stored is None or stored.MinLength() != 1 or stored.MaxLength() != 1:
                continue
            low, high = float(stored.Min(0)), float(stored.Max(0))
        except (struct.error, TypeError, ValueError) as error:
            raise ModelFileError(f"the range of tensor {tensor.index} lies outside the file") from error
        if math.isfinite(low) and math.isfinite(high) and low < high:
            keys = keys or tensor_keys(graph)
            ranges[keys[tensor.index]] = (min(0.0, low), max(0.0, high))
    return ranges


def fold_fake_quant(tflite: bytes) -> bytes:
    """Replace fake quantization by ranges in the tensors; constants get the values that it gives them.

    Returns the same bytes for a file without fake quantization, and for one that is quantized in other ways as well.
    """
    model = read_model(tflite)
    graph = model.main
    if len(model.graphs) != 1 or not any(op.name in _START for op in graph.ops):
        return tflite
    folding = _Folding(graph)
    for op in graph.ops:
        folding.add(op)
    if not folding.removed:
        return tflite
    file = unpack(tflite)
    packed = file.subgraphs[0]
    for index, values in folding.constants.items():
        packed.tensors[index].buffer = add_buffer(file, values.astype(np.float32))
        packed.tensors[index].shape = np.array(values.shape, np.int32)
        packed.tensors[index].shapeSignature = None
        packed.tensors[index].quantization = None
    for operator in packed.operators:
        operator.inputs = folding.moved(operator.inputs)
    packed.operators = [o for number, o in enumerate(packed.operators) if number not in folding.removed]
    for output in packed.outputs:
        if int(output) in folding.sources:
            # The result keeps the name under which the app knows it.
            packed.tensors[folding.source(int(output))].name = packed.tensors[int(output)].name
            packed.tensors[int(output)].name = b""
    packed.outputs = folding.moved(packed.outputs)
    for signature in file.signatureDefs or []:
        for entry in signature.outputs or []:
            entry.tensorIndex = folding.source(int(entry.tensorIndex))
    names = {index: tensor.name for index, tensor in enumerate(packed.tensors)}
    for index in folding.ranges:
        packed.tensors[index].name = f"range {index}".encode()
    with_marks = pack(file)
    ranged = unpack(set_ranges(with_marks, {f"range {index}": bounds for index, bounds in folding.ranges.items()}))
    for index in folding.ranges:
        ranged.subgraphs[0].tensors[index].name = names[index]
    drop_unused(ranged)
    folded = write_true_versions(pack(ranged))
    return folded if read_model(folded).is_float else tflite


def with_fake_quant(tflite: bytes) -> bytes:
    """Return the model as it was trained: every activation with a learned range is rounded to 8 bits in it.

    Results of the graph are not rounded. Returns the same bytes for a file without learned ranges.
    """
    ranges = learned_ranges(tflite)
    if not ranges:
        return tflite
    graph = read_model(tflite).main
    chosen = {i: ranges[key] for i, key in enumerate(tensor_keys(graph)) if key in ranges and i in graph.consumers}
    if not chosen:
        return tflite
    file = unpack(tflite)
    packed = file.subgraphs[0]
    rounded: dict[int, int] = {}
    pairs: dict[int, list[Any]] = {}
    for index, (low, high) in chosen.items():
        scale = (high - low) / 255
        codes, floats = (_copy(packed, index, suffix) for suffix in ("codes", "rounded"))
        grid = schema().QuantizationParametersT()
        grid.scale, grid.zeroPoint = np.array([scale], np.float32), np.array([round(-128 - low / scale)], np.int64)
        packed.tensors[codes].quantization, packed.tensors[codes].type = grid, schema().TensorType.INT8
        pairs[index] = [_operator(file, "QUANTIZE", index, codes), _operator(file, "DEQUANTIZE", codes, floats)]
        rounded[index] = floats
    operators = [one for index in graph.inputs for one in pairs.get(index, ())]
    for op, operator in zip(graph.ops, packed.operators, strict=True):
        operator.inputs = np.array([rounded.get(i, i) for i in op.inputs], np.int32)
        operators += [operator, *(one for index in op.outputs for one in pairs.get(index, ()))]
    packed.operators = operators
    return write_true_versions(pack(file))


def _copy(packed: Any, index: int, suffix: str) -> int:
    """Add an empty tensor of the shape of another one; return its index."""
    like, tensor = packed.tensors[index], schema().TensorT()
    tensor.name = like.name + f"/{suffix}".encode()
    tensor.shape, tensor.shapeSignature, tensor.hasRank = like.shape, like.shapeSignature, True
    tensor.type, tensor.buffer = like.type, 0
    packed.tensors.append(tensor)
    return len(packed.tensors) - 1


def _operator(file: Any, name: str, source: int, result: int) -> Any:
    operator = schema().OperatorT()
    operator.opcodeIndex = op_code(file, name)
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([result], np.int32)
    return operator


class _Folding:
    """Which ops go, and what each result of theirs becomes.

    Attributes:
        removed: Indices of ops that go.
        sources: For each result of a removed op, the tensor in front of it.
        ranges: (low, high) by tensor index; the widest where a tensor is rounded in several ways.
        constants: Values of constants that were rounded, by tensor index.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.removed: set[int] = set()
        self.sources: dict[int, int] = {}
        self.ranges: dict[int, Range] = {}
        self.constants: dict[int, npt.NDArray[np.float32]] = {}

    def add(self, op: Op) -> None:
        """Fold one op, where it is fake quantization of a float tensor."""
        if op.name == "FAKE_QUANT" and len(op.inputs) == len(op.outputs) == 1:
            self._fold(op, (), self._of_options(op))
        elif op.name == "QUANTIZE" and len(op.inputs) == len(op.outputs) == 1:
            rounded = self.graph.tensors[op.outputs[0]]
            readers = [self.graph.ops[i] for i in self.graph.consumers.get(rounded.index, ())]
            plain = readers and all(reader.name == "DEQUANTIZE" for reader in readers)
            if plain and rounded.index not in self.graph.outputs:
                self._fold(op, readers, rounded.quantization)
        elif op.name == "DEQUANTIZE" and len(op.inputs) == len(op.outputs) == 1:
            self._fold_stored(op)

    def _fold_stored(self, op: Op) -> None:
        """Fold the DEQUANTIZE of integer weights: they become float constants on their grid."""
        tensor = self.graph.tensors[op.inputs[0]]
        if tensor.data is None or tensor.quantization is None or tensor.dtype not in _LIMITS:
            return
        result = self.graph.tensors[op.outputs[0]]
        if result.index not in self.graph.outputs:
            self.constants[result.index] = _dequantized(tensor.data, tensor.quantization)
            self.removed.add(op.index)

    def _fold(self, op: Op, readers: "list[Op] | tuple[Op, ...]", grid: "Quantization | None") -> None:
        source = self.source(op.inputs[0])
        results = list(op.outputs) if not readers else [reader.outputs[0] for reader in readers]
        tensor = self.graph.tensors[source]
        # An input that is also an output has two names, and only a copy can carry both.
        tangled = source in {*self.graph.inputs, *self.graph.outputs} and set(results) & set(self.graph.outputs)
        twice = len(set(results) & set(self.graph.outputs)) > 1
        if tensor.dtype != "FLOAT32" or grid is None or tangled or twice:
            return
        limits = _limits(op, self.graph)
        if tensor.data is not None or source in self.constants:
            values = self.constants.get(source, tensor.data)
            assert values is not None
            # The results become constants; other ops may read the original unrounded.
            self.constants.update(dict.fromkeys(results, _rounded(values, grid, limits)))
            self.removed |= {op.index, *(reader.index for reader in readers)}
            return
        if grid.per_channel:
            return
        scale, zero = float(grid.scale[0]), int(grid.zero_point[0])
        low, high = ((limit - zero) * scale for limit in limits)
        known = self.ranges.get(source, (low, high))
        self.ranges[source] = min(low, known[0]), max(high, known[1])
        self.removed |= {op.index, *(reader.index for reader in readers)}
        self.sources.update(dict.fromkeys(results, source))

    @staticmethod
    def _of_options(op: Op) -> "Quantization | None":
        """Return the grid of a FAKE_QUANT, nudged so that zero is on it as in fake_quant.cc of TFLite."""
        low, high = float(op.options.get("min", 0.0)), float(op.options.get("max", 0.0))
        first, last = _steps(op)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            return None
        scale = (high - low) / (last - first)
        zero = min(last, max(first, round(first - low / scale)))
        return Quantization(np.array([scale], np.float32), np.array([zero], np.int64))

    def source(self, index: int) -> int:
        """Return the tensor that replaces one."""
        while index in self.sources:
            index = self.sources[index]
        return index

    def moved(self, indices: Any) -> npt.NDArray[np.int32]:
        """Return tensor indices with those of removed results replaced."""
        return np.array([self.source(int(i)) for i in ([] if indices is None else indices)], np.int32)


#: Smallest and largest value of the integer types of fake quantization.
_LIMITS: Mapping[str, Range] = {
    kind: (float(np.iinfo(kind.lower()).min), float(np.iinfo(kind.lower()).max)) for kind in ("INT8", "UINT8", "INT16")
}


def _steps(op: Op) -> tuple[int, int]:
    bits = int(op.options.get("num_bits", 8)) or 8
    return int(bool(op.options.get("narrow_range"))), (1 << min(16, max(2, bits))) - 1


def _limits(op: Op, graph: Graph) -> Range:
    if op.name == "FAKE_QUANT":
        first, last = _steps(op)
        return float(first), float(last)
    return _LIMITS.get(graph.tensors[op.outputs[0]].dtype, (-128.0, 127.0))


def _rounded(values: npt.NDArray[np.float32], grid: Quantization, limits: Range) -> npt.NDArray[np.float32]:
    scale, zero = _shaped(grid, values.ndim)
    steps = np.clip(np.round(values.astype(np.float64) / scale) + zero, *limits)
    result: npt.NDArray[np.float32] = ((steps - zero) * scale).astype(np.float32)
    return result


def _dequantized(data: npt.NDArray[Any], grid: Quantization) -> npt.NDArray[np.float32]:
    scale, zero = _shaped(grid, data.ndim)
    result: npt.NDArray[np.float32] = ((data.astype(np.float64) - zero) * scale).astype(np.float32)
    return result


def _shaped(grid: Quantization, rank: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return scales and zero points, shaped to be combined with values."""
    shape = [-1 if axis == grid.axis else 1 for axis in range(rank)] if grid.per_channel else [1] * rank
    return grid.scale.astype(np.float64).reshape(shape), grid.zero_point.astype(np.float64).reshape(shape)
