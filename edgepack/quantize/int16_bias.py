"""Biases of layers with int16 activations: 32 bits wide where nothing can overflow.

TFLite's quantizers write them with 64 bits. The kernels of some layers take 32 bits too, said by the layer's option
`quantized_bias_type` (TensorFlow 2.15), and Qualcomm's plugin takes nothing else. Such a kernel also adds up in 32 bits
and does not saturate: measured in ai-edge-litert 2.3.0, a 1x1 CONV_2D or a FULLY_CONNECTED over 700 inputs of 32767
with weights of 127 gives the wrong sign. So a bias is only narrowed where no input can bring the sum past 32 bits.

Where the accelerator takes no bias of 64 bits at all, the other layers do without and an ADD follows them. Nothing is
lost: what comes before a RELU below minus the largest bias is zero behind it, so the range of the sum is known.
"""

import copy
from collections.abc import Collection, Mapping
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

_LARGEST_INPUT = 1 << 15
_LARGEST_SUM = (1 << 31) - 1


def sums_fit(weights: npt.NDArray[Any], bias: npt.NDArray[Any]) -> bool:
    """Return whether a layer's sums stay within 32 bits whatever its int16 inputs are.

    Args:
        weights: Quantized weights, output channels first.
        bias: Quantized bias, one value for each output channel; zeros where it is not known.
    """
    reach = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1)
    return bool((reach * _LARGEST_INPUT + np.abs(bias.astype(np.int64)) <= _LARGEST_SUM).all())


def layer_fits(graph: Graph, op: Op, rule: SchemeRule) -> bool:
    """Return whether a float layer will get a bias of 32 bits beside int16 activations, as far as its weights tell."""
    if op.name not in NARROW_BIAS:
        return False
    weights = graph.tensors[weights_index(op)]
    if weights.data is None or not weights.data.size:
        return False
    rows = np.abs(weights.data.reshape(weights.shape[0], -1))
    whole = "per-tensor" in {rule.weights, rule.fully_connected if op.name == "FULLY_CONNECTED" else ""}
    peak = rows.max() if whole else rows.max(axis=1, keepdims=True)
    return sums_fit(np.rint(rows / np.maximum(peak, 1e-30) * 127), np.zeros(len(rows)))


def splits_bias(graph: Graph, op: Op, rule: SchemeRule) -> bool:
    """Return whether a float layer's bias is to follow it as an ADD when its activations become int16."""
    bias = bias_index(op)
    if rule.wide_bias or op.name not in DIRECT_INT16 or bias < 0 or graph.tensors[bias].data is None:
        return False
    return not layer_fits(graph, op, rule)


def split_biases(
    tflite: bytes, ranges: Mapping[str, Range], rule: SchemeRule, only: Collection[str] | None = None
) -> tuple[bytes, dict[str, Range], frozenset[str]]:
    """Put an ADD behind the layers whose int16 kernel needs a bias of a type that the accelerator does not take.

    The result is for quantizing only: TFLite's float kernel of a DEPTHWISE_CONV_2D without bias crashes (measured in
    ai-edge-litert 2.3.0; the one for int16 does not).

    Args:
        tflite: A float model.
        ranges: Ranges of its activations by `tensor_keys`.
        rule: The rule; nothing is done unless its `wide_bias` is False.
        only: Layers that become int16, by the `tensor_keys` of their outputs; None for all.

    Returns:
        The model, the ranges with those of the new activations, and the names of those.
    """
    tflite = unique_names(tflite)
    graph = read_model(tflite).main
    keys = tensor_keys(graph)
    found = {
        op.index: op
        for op in graph.ops
        if splits_bias(graph, op, rule)
        and keys[op.outputs[0]] in ranges
        and (only is None or keys[op.outputs[0]] in only)
    }
    if not found:
        return tflite, dict(ranges), frozenset()
    model = unpack(tflite)
    main = model.subgraphs[0]
    code = op_code(model, "ADD")
    grown, names = dict(ranges), set(keys)
    written: list[Any] = []
    for index, layer in enumerate(main.operators):
        written.append(layer)
        if index in found:
            op = found[index]
            name = f"{keys[op.outputs[0]]}/products"
            while name in names:
                name += "_"
            names.add(name)
            written.append(_add_behind(main, layer, op, name, code))
            bias = graph.tensors[bias_index(op)].data
            assert bias is not None
            low, high = ranges[keys[op.outputs[0]]]
            grown[name] = min(0.0, low - float(bias.max())), max(0.0, high - float(bias.min()))
    main.operators = written
    return pack(model), grown, frozenset(names - set(keys))


def _add_behind(main: Any, layer: Any, op: Op, name: str, code: int) -> Any:
    """Take bias and activation function from a layer, and return the ADD that has them."""
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
    """Return the file with 32-bit biases for its int16 layers, where the kernel takes them and no sum can overflow."""
    graph = read_model(tflite).main
    able = {op.index: bias_index(op) for op in graph.ops if _narrowable(graph, op)}
    # A bias that another layer needs as it is stays.
    able = {op: bias for op, bias in able.items() if all(able.get(user) == bias for user in graph.consumers[bias])}
    if not able:
        return tflite
    model = unpack(tflite)
    main, wanted = model.subgraphs[0], schema().TensorType.INT32
    for op, bias in able.items():
        main.operators[op].builtinOptions.quantizedBiasType = wanted
        tensor = main.tensors[bias]
        if tensor.type != wanted:
            tensor.type = wanted
            tensor.buffer = _narrowed(model, tensor.buffer)
    empty_unused(model)
    return pack(model)


def _narrowed(model: Any, buffer: int) -> int:
    """Return the buffer with the 64-bit values of another in 32 bits, added to the model."""
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
