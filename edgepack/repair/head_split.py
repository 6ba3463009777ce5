"""Split a layer whose output is only sliced along its channels into one layer per slice. Exact."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.graph import Graph, Op
from edgepack.graph.op_layout import OP_LAYOUTS, bias_index, weights_index
from edgepack.repair.file_edits import FileEditor

#: Layers that are split: output channels run along the first axis of their weights.
_LAYERS = ("CONV_2D", "FULLY_CONNECTED")

#: Limit of the slices; more layers would cost too much.
_MAX_SLICES = 8


@dataclass(frozen=True)
class Slice:
    """A slice of a layer's output channels.

    Attributes:
        channels: The channels.
        op: Index of the op that slices.
        result: The tensor with the slice.
        removed: Ops between the layer and the slice.
    """

    channels: slice
    op: int
    result: int
    removed: tuple[int, ...]


def find_slices(graph: Graph, op: Op) -> tuple[Slice, ...]:
    """Return the slices that are all that reads a layer's output; empty when something else does, or for other ops."""
    if op.name not in _LAYERS or len(op.outputs) != 1:
        return ()
    constants = [graph.tensors[i] for i in (weights_index(op), bias_index(op)) if i >= 0]
    if not constants or any(t.data is None or t.dtype != "FLOAT32" for t in constants):
        return ()
    channels = constants[0].shape[0]
    if graph.tensors[op.outputs[0]].shape[-1:] != (channels,) or graph.tensors[op.outputs[0]].is_dynamic:
        return ()
    found = _slices_of(graph, op.outputs[0], channels, ())
    if found is None or not 2 <= len(found) <= _MAX_SLICES:
        return ()
    return tuple(found) if len({(part.channels.start, part.channels.stop) for part in found}) > 1 else ()


def split_layer(editor: FileEditor, op: Op, slices: Sequence[Slice]) -> None:
    """Replace a layer, and the ops that slice its output, by one layer per slice."""
    graph = editor.graph
    layout, output = OP_LAYOUTS[op.name], graph.tensors[op.outputs[0]]
    new = []
    for part in slices:
        inputs = [editor.input_of(op.index, position) for position in range(len(op.inputs))]
        for position, constant in ((layout.weights, weights_index(op)), (layout.bias, bias_index(op))):
            if position is not None and constant >= 0:
                tensor = graph.tensors[constant]
                assert tensor.data is not None
                inputs[position] = editor.constant(tensor.name, np.ascontiguousarray(tensor.data[part.channels]))
        shape = (*output.shape[:-1], part.channels.stop - part.channels.start)
        result = graph.tensors[part.result]
        if result.shape == shape:
            new.append(editor.new_op(op.name, inputs, [part.result], **op.options))
            continue
        produced = editor.tensor(output.name, shape)
        new.append(editor.new_op(op.name, inputs, [produced], **op.options))
        target = editor.constant(output.name, np.array(result.shape, np.int32))
        new.append(editor.new_op("RESHAPE", [produced, target], [part.result], new_shape=list(result.shape)))
    editor.replace_op(op.index, new)
    for index in {i for part in slices for i in (*part.removed, part.op)}:
        editor.replace_op(index, [])


def _slices_of(graph: Graph, index: int, channels: int, between: tuple[int, ...]) -> list[Slice] | None:
    """Return the slices of a tensor along its last axis, None when something else reads it."""
    consumers = graph.consumers.get(index, ())
    if index in graph.outputs or not consumers:
        return None
    found: list[Slice] = []
    for consumer in consumers:
        op = graph.ops[consumer]
        if op.inputs[0] != index and op.name != "SPLIT":
            return None
        if op.name == "RESHAPE" and graph.tensors[op.outputs[0]].shape[-1:] == (channels,):
            inner = _slices_of(graph, op.outputs[0], channels, (*between, op.index))
            if inner is None:
                return None
            found += inner
            continue
        parts = _parts(graph, op, index)
        if not parts:
            return None
        found += [Slice(slice(start, stop), op.index, result, between) for result, start, stop in parts]
    return found


def _parts(graph: Graph, op: Op, index: int) -> list[tuple[int, int, int]]:
    """Return (result, first channel, end) of an op's slices along the last axis; empty for any other op."""
    source = graph.tensors[index]
    if op.name in ("SPLIT", "SPLIT_V"):
        axis = graph.tensors[op.inputs[0 if op.name == "SPLIT" else 2]].data
        if axis is None or int(axis.ravel()[0]) % source.rank != source.rank - 1:
            return []
        sizes = [graph.tensors[i].shape[-1] for i in op.outputs]
        ends = np.cumsum(sizes).tolist()
        return [(i, end - size, end) for i, size, end in zip(op.outputs, sizes, ends, strict=True)]
    values = [graph.tensors[i].data for i in op.inputs[1:]]
    if op.name not in ("SLICE", "STRIDED_SLICE") or any(v is None or v.size != source.rank for v in values):
        return []
    numbers = [[int(n) for n in v.ravel()] for v in values if v is not None]
    if op.name == "SLICE":
        begin, size = numbers
        bounds = [(b, d if s == -1 else b + s, d) for b, s, d in zip(begin, size, source.shape, strict=True)]
        whole = all(first == 0 and end == d for first, end, d in bounds[:-1])
        return [(op.outputs[0], bounds[-1][0], bounds[-1][1])] if whole else []
    return _strided(op, source.shape, numbers)


def _strided(op: Op, shape: Sequence[int], numbers: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Return the slice of a STRIDED_SLICE that keeps all but the last axis whole; empty for any other."""
    if any(op.options.get(name) for name in ("new_axis_mask", "offset")):
        return []
    begin, end, stride = numbers
    ellipsis_axis = int(op.options.get("ellipsis_mask", 0))
    masks = [int(op.options.get(name, 0)) for name in ("begin_mask", "end_mask", "shrink_axis_mask")]
    last = len(shape) - 1
    for axis, size in enumerate(shape):
        if ellipsis_axis >> axis & 1:
            continue
        shrinks = bool(masks[2] >> axis & 1)
        first = 0 if masks[0] >> axis & 1 else begin[axis] % size if begin[axis] < 0 else begin[axis]
        stop = size if masks[1] >> axis & 1 else end[axis] + size if end[axis] < 0 else min(end[axis], size)
        stop = first + 1 if shrinks else stop
        if stride[axis] != 1 or (axis < last and (first != 0 or stop != size)):
            return []
        if axis == last:
            return [(op.outputs[0], first, stop)] if 0 <= first < stop <= size else []
    return []
