"""The layers with weights of a float model: what the steps read and change."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import add_buffer, pack, unpack
from edgepack.graph.op_layout import OP_LAYOUTS, bias_index, channel_rows, from_channel_rows, weights_index
from edgepack.graph.read import schema
from edgepack.graph.variant import remember_variant

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


@dataclass(frozen=True, eq=False)
class Layer:
    """One op of `_KINDS` whose weights no other op uses.

    Attributes:
        position: Position among the ops of these kinds; the same in a quantized file of the same model.
        op: The op.
        source: Tensor index of its input.
        result: Tensor index of its output.
        weights: Tensor index of its weights: (out, height, width, in) for CONV_2D, whose `in` is that of one group, and
            TRANSPOSE_CONV, (1, height, width, out) for DEPTHWISE_CONV_2D, (out, in) for FULLY_CONNECTED.
        bias: Tensor index of its bias, -1 when it has none.
        shape: Shape of the weights.
        input_channels: Number of input channels.
    """

    position: int
    op: Op
    source: int
    result: int
    weights: int
    bias: int
    shape: tuple[int, ...]
    input_channels: int

    @property
    def depthwise(self) -> bool:
        """True for DEPTHWISE_CONV_2D."""
        return self.op.name == "DEPTHWISE_CONV_2D"

    @property
    def dense(self) -> bool:
        """True for FULLY_CONNECTED."""
        return self.op.name == "FULLY_CONNECTED"

    @property
    def transposed(self) -> bool:
        """True for TRANSPOSE_CONV."""
        return self.op.name == "TRANSPOSE_CONV"

    @property
    def axis(self) -> int:
        """Dimension of the weights along which the output channels run."""
        axis = OP_LAYOUTS[self.op.name].channel_axis
        assert axis is not None  # all ops of `_KINDS` have channels
        return axis

    @property
    def output_channels(self) -> int:
        """Number of output channels."""
        return self.shape[self.axis]

    @property
    def data_position(self) -> int:
        """Position of the activation among the op's inputs."""
        return OP_LAYOUTS[self.op.name].data

    @property
    def bias_position(self) -> int:
        """Position of the bias among the op's inputs."""
        position = OP_LAYOUTS[self.op.name].bias
        assert position is not None  # all ops of `_KINDS` have one
        return position

    @property
    def kernel(self) -> tuple[int, int] | None:
        """Height and width of the kernel that slides over the input, None where each position counts alone."""
        return None if self.dense or self.transposed else (self.shape[1], self.shape[2])

    @property
    def groups(self) -> int:
        """Number of groups of output channels that multiply the same inputs."""
        return self.input_channels if self.depthwise else self.input_channels // self.shape[-1]

    @property
    def inputs(self) -> int:
        """Number of values that one row of `matrix` is multiplied with."""
        if self.depthwise:
            return self.shape[1] * self.shape[2]
        return self.shape[-1] if self.dense or self.transposed else math.prod(self.shape[1:])

    @property
    def taps(self) -> int:
        """Number of consecutive rows of `matrix` that belong to one output channel: taps of a TRANSPOSE_CONV."""
        return self.shape[1] * self.shape[2] if self.transposed else 1

    def rows(self, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return weights as (output channels, weights of one output channel)."""
        return channel_rows(weights, self.axis)

    def matrix(self, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return weights as (groups, rows, inputs): `taps` rows for each of a group's output channels."""
        return self.rows(weights).reshape(self.groups, -1, self.inputs)

    def from_rows(self, rows: npt.NDArray[Any]) -> Floats:
        """Undo `rows` or `matrix`."""
        return np.ascontiguousarray(from_channel_rows(rows, self.shape, self.axis), np.float32)

    def per_output_channel(self, values: Floats) -> Floats:
        """Return one value per output channel, shaped to be multiplied with the weights."""
        return values.reshape([-1 if axis == self.axis else 1 for axis in range(len(self.shape))])

    def per_input_channel(self, values: Floats) -> Floats:
        """Return one value per input channel, shaped to be multiplied with the weights."""
        if self.depthwise:
            return np.repeat(values, self.output_channels // self.input_channels).reshape(1, 1, 1, -1)
        if self.groups > 1:
            each = np.repeat(values.reshape(self.groups, -1), self.output_channels // self.groups, axis=0)
            return each[:, np.newaxis, np.newaxis, :]
        return values.reshape([1] * (len(self.shape) - 1) + [-1])


def weighted_ops(graph: Graph) -> list[Op]:
    """Return the ops of the kinds that have weights, in file order."""
    return [op for op in graph.ops if op.name in _KINDS]


def find_layers(graph: Graph) -> list[Layer]:
    """Return the layers whose weights can be changed: constant float32, used by no other op."""
    uses = Counter(index for op in graph.ops for index in op.inputs if index >= 0)
    layers = []
    for position, op in enumerate(weighted_ops(graph)):
        layout = OP_LAYOUTS[op.name]
        source, weights, bias = op.inputs[layout.data], weights_index(op), bias_index(op)
        tensor = graph.tensors[weights]
        if tensor.data is None or tensor.dtype != "FLOAT32" or uses[weights] > 1 or graph.tensors[source].is_constant:
            continue
        if bias >= 0 and (graph.tensors[bias].data is None or graph.tensors[bias].dtype != "FLOAT32"):
            continue
        shape, source_shape = tensor.shape, graph.tensors[source].shape
        channels = shape[-1] if op.name == "FULLY_CONNECTED" else source_shape[-1]
        outputs = shape[layout.channel_axis or 0]
        if op.name == "DEPTHWISE_CONV_2D":
            known = outputs % channels == 0
        else:
            known = channels % shape[-1] == 0 and outputs % (channels // shape[-1]) == 0
        if not known or (op.name == "FULLY_CONNECTED" and op.options.get("weights_format", "DEFAULT") != "DEFAULT"):
            continue
        layers.append(Layer(position, op, source, op.outputs[0], weights, bias, shape, channels))
    return layers


def constant_values(graph: Graph, index: int) -> Floats:
    """Return a copy of a constant's values."""
    data = graph.tensors[index].data
    assert data is not None
    return np.array(data, np.float32)


def unshare_biases(tflite: bytes) -> bytes:
    """Give every layer a bias that no other layer uses, zeros where it has none.

    TFLiteConverter stores equal constants as one tensor, so layers without a bias share one tensor of zeros.
    Returns the same bytes when nothing changes.
    """
    graph = read_model(tflite).main
    uses = Counter(index for op in graph.ops for index in op.inputs if index >= 0)
    model, changed = None, False
    layers = find_layers(graph)
    of_layers = Counter(layer.bias for layer in layers)
    kept: set[int] = set()
    for layer in layers:
        if layer.bias >= 0 and layer.bias not in kept and uses[layer.bias] == of_layers[layer.bias]:
            # The first of several layers keeps the tensor, which nothing would use otherwise.
            kept.add(layer.bias)
            continue
        model = model or unpack(tflite)
        values = constant_values(graph, layer.bias) if layer.bias >= 0 else np.zeros(layer.output_channels, np.float32)
        tensor = schema().TensorT()
        tensor.name = f"{graph.tensors[layer.result].name}/bias{layer.position}".encode()
        tensor.shape, tensor.type, tensor.hasRank = np.array([layer.output_channels], np.int32), 0, True
        tensor.buffer = _new_buffer(model, values)
        tensors, op = model.subgraphs[0].tensors, model.subgraphs[0].operators[layer.op.index]
        tensors.append(tensor)
        layout = OP_LAYOUTS[layer.op.name]
        assert layout.bias is not None  # all ops of `_KINDS` have one
        op.inputs = np.array([*layer.op.inputs[: layout.bias], len(tensors) - 1], np.int32)
        changed = True
    return pack(model) if changed else tflite


def set_constants(tflite: bytes, values: Mapping[int, npt.NDArray[Any]]) -> bytes:
    """Replace the values of float32 and int32 constants of the main graph, keyed by tensor index."""
    return _written(tflite, values) or _with_new_buffers(tflite, values)


def _written(tflite: bytes, values: Mapping[int, npt.NDArray[Any]]) -> bytes | None:
    """Return the file with the values in the place of the old ones; None where tensors share them, or sizes differ."""
    known = read_model(tflite)
    base = _address(np.frombuffer(tflite, np.uint8))
    constants = [one for graph in known.graphs for one in graph.tensors if one.raw is not None and one.raw.nbytes]
    places = sorted((_address(one.raw) - base, one.raw.nbytes) for one in constants if one.raw is not None)
    # Two buffers may be the same bytes of the file as well.
    overlaps = {one for pair in pairwise(places) if pair[1][0] < pair[0][0] + pair[0][1] for one in pair}
    edited = bytearray(tflite)
    for index, array in values.items():
        raw, new = known.main.tensors[index].raw, _bytes(array)
        if raw is None or raw.nbytes != new.nbytes or (_address(raw) - base, raw.nbytes) in overlaps:
            return None
        start = _address(raw) - base
        edited[start : start + new.nbytes] = new.tobytes()
    result = bytes(edited)
    remember_variant(result, tflite)
    return result


def _address(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _with_new_buffers(tflite: bytes, values: Mapping[int, npt.NDArray[Any]]) -> bytes:
    """Return the file with the values, those of shared buffers in new ones."""
    model = unpack(tflite)
    uses = Counter(int(t.buffer) for graph in model.subgraphs for t in graph.tensors)
    for index, array in sorted(values.items()):
        tensor = model.subgraphs[0].tensors[index]
        if uses[int(tensor.buffer)] > 1:
            uses[int(tensor.buffer)] -= 1
            tensor.buffer = _new_buffer(model, array)
        else:
            model.buffers[tensor.buffer].data = _bytes(array)
    return pack(model)


def _new_buffer(model: Any, values: npt.NDArray[Any]) -> int:
    return add_buffer(model, _bytes(values))


def _bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    dtype = np.int32 if values.dtype == np.int32 else np.float32
    return np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8)
