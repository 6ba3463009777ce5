"""Biases of ops with int16 activations: 32 bits wide where the accumulator cannot overflow.

TFLite's quantizers write 64-bit biases. The kernels of some ops also support 32 bits, selected by the option
`quantized_bias_type` (TensorFlow 2.15), and Qualcomm's plugin supports only those. Such a kernel accumulates in 32 bits
without saturating: measured in ai-edge-litert 2.3.0, a 1x1 CONV_2D or a FULLY_CONNECTED over 700 inputs of 32767 with
weights of 127 gives a result of the wrong sign. A bias is therefore narrowed only where no input can overflow the sum.

For accelerators that support no 64-bit biases, the bias of every other op moves into an ADD behind it. The range of the
sum before the bias follows from the range of the output and the bias; values below minus the largest bias may be
clipped where a RELU follows, because they become zero in any case.
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import add_buffer, empty_unused, op_code, pack, tensor_keys, unique_names, unpack
from edgepack.graph.op_layout import OP_LAYOUTS, bias_index, weights_index
from edgepack.graph.read import schema
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.op_support import DIRECT_INT16
from edgepack.quantize.ranges import Range

#: Ops whose int16 kernel supports a 32-bit bias. DEPTHWISE_CONV_2D is not one: ai-edge-litert 2.3.0 refuses to prepare
#: it with such a bias.
NARROW_BIAS = frozenset({"CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})

#: Largest magnitude of an int16 input, and largest value of a 32-bit accumulator.
_MAX_INPUT = 1 << 15
_MAX_SUM = (1 << 31) - 1


@dataclass(frozen=True)
class SplitBiases:
    """A float model with biases moved into ADD ops.

    Attributes:
        tflite: The model, for quantization only: TFLite's float kernel of a DEPTHWISE_CONV_2D without bias crashes
            (measured in ai-edge-litert 2.3.0; the int16 kernel does not).
        ranges: Ranges of its activations by `tensor_keys`, those of the new ones included.
        added: `tensor_keys` of the new activations.
    """

    tflite: bytes
    ranges: dict[str, Range]
    added: frozenset[str] = frozenset()


def sums_fit(weights: npt.NDArray[Any], bias: npt.NDArray[Any]) -> bool:
    """Return whether the sums of an op stay within 32 bits for all int16 inputs.

    Args:
        weights: Quantized weights, output channels first.
        bias: Quantized bias, shape (output channels,); zeros where it is unknown.
    """
    magnitude = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1)
    return bool((magnitude * _MAX_INPUT + np.abs(bias.astype(np.int64)) <= _MAX_SUM).all())


def layer_fits(graph: Graph, op: Op, rule: SchemeRule) -> bool:
    """Return whether an op of the float model gets a 32-bit bias with int16 activations, judged by its weights."""
    if op.name not in NARROW_BIAS:
        return False
    weights = graph.tensors[weights_index(op)]
    if weights.data is None or not weights.data.size:
        return False
    rows = np.abs(weights.data.reshape(weights.shape[0], -1))
    peak = rows.max() if rule.has_one_scale(op.name) else rows.max(axis=1, keepdims=True)
    return sums_fit(np.rint(rows / np.maximum(peak, 1e-30) * 127), np.zeros(len(rows)))


def splits_bias(graph: Graph, op: Op, rule: SchemeRule) -> bool:
    """Return whether the bias of an op moves into an ADD behind it when the activations become int16."""
    bias = bias_index(op)
    if rule.wide_bias or op.name not in DIRECT_INT16 or bias < 0 or graph.tensors[bias].data is None:
        return False
    return not layer_fits(graph, op, rule)


def split_biases(
    tflite: bytes, ranges: Mapping[str, Range], rule: SchemeRule, only: Collection[str] | None = None
) -> SplitBiases:
    """Move biases that the accelerator does not support into ADD ops behind their op.

    Args:
        tflite: A float model.
        ranges: Ranges of its activations by `tensor_keys`.
        rule: The rule; the model stays unchanged unless its `wide_bias` is False.
        only: Ops that become int16, by the `tensor_keys` of their outputs; None for all.
    """
    tflite = unique_names(tflite)
    graph = read_model(tflite).main
    keys = tensor_keys(graph)
    affected = {
        op.index: op
        for op in graph.ops
        if splits_bias(graph, op, rule)
        and keys[op.outputs[0]] in ranges
        and (only is None or keys[op.outputs[0]] in only)
    }
    if not affected:
        return SplitBiases(tflite, dict(ranges))
    model = unpack(tflite)
    main = model.subgraphs[0]
    code = op_code(model, "ADD")
    extended, names = dict(ranges), set(keys)
    operators: list[Any] = []
    for index, layer in enumerate(main.operators):
        operators.append(layer)
        if index in affected:
            op = affected[index]
            name = f"{keys[op.outputs[0]]}/products"
            while name in names:
                name += "_"
            names.add(name)
            operators.append(_add_behind(main, layer, op, name, code))
            bias = graph.tensors[bias_index(op)].data
            assert bias is not None
            low, high = ranges[keys[op.outputs[0]]]
            extended[name] = min(0.0, low - float(bias.max())), max(0.0, high - float(bias.min()))
    main.operators = operators
    return SplitBiases(pack(model), extended, frozenset(names - set(keys)))


def _add_behind(main: Any, layer: Any, op: Op, name: str, code: int) -> Any:
    """Remove bias and fused activation from an operator, and return an ADD with both."""
    products = copy.copy(main.tensors[op.outputs[0]])
    products.name = name.encode()
    main.tensors.append(products)
    add = schema().OperatorT()
    add.opcodeIndex = code
    add.inputs = np.array([len(main.tensors) - 1, bias_index(op)], np.int32)
    add.outputs = layer.outputs
    add.builtinOptionsType = schema().BuiltinOptions.AddOptions
    add.builtinOptions = schema().AddOptionsT()
    add.builtinOptions.fusedActivationFunction = layer.builtinOptions.fusedActivationFunction
    layer.builtinOptions.fusedActivationFunction = schema().ActivationFunctionType.NONE
    layer.inputs = np.array(op.inputs[: OP_LAYOUTS[op.name].bias], np.int32)
    layer.outputs = np.array([len(main.tensors) - 1], np.int32)
    return add


def narrow_biases(tflite: bytes) -> bytes:
    """Return the file with 32-bit biases for int16 ops whose kernel supports them and whose sums cannot overflow."""
    graph = read_model(tflite).main
    biases = {op.index: bias_index(op) for op in graph.ops if _narrowable(graph, op)}
    # A bias that another op reads in 64 bits stays.
    biases = {op: bias for op, bias in biases.items() if all(biases.get(i) == bias for i in graph.consumers[bias])}
    if not biases:
        return tflite
    model = unpack(tflite)
    main, int32 = model.subgraphs[0], schema().TensorType.INT32
    for op, bias in biases.items():
        main.operators[op].builtinOptions.quantizedBiasType = int32
        tensor = main.tensors[bias]
        if tensor.type != int32:
            tensor.type = int32
            tensor.buffer = _narrowed(model, tensor.buffer)
    empty_unused(model)
    return pack(model)


def _narrowed(model: Any, buffer: int) -> int:
    """Add a buffer with the 64-bit values of another buffer in 32 bits, and return its index."""
    values = np.frombuffer(bytes(model.buffers[buffer].data), np.int64).astype(np.int32)
    return add_buffer(model, values)


def _narrowable(graph: Graph, op: Op) -> bool:
    if op.name not in NARROW_BIAS or bias_index(op) < 0:
        return False
    layout = OP_LAYOUTS[op.name]
    data, weights, bias = (graph.tensors[i] for i in (op.inputs[layout.data], weights_index(op), bias_index(op)))
    if (data.dtype, weights.dtype, bias.dtype) != ("INT16", "INT8", "INT64"):
        return False
    return weights.data is not None and bias.data is not None and sums_fit(weights.data, bias.data)
