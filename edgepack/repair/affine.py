"""Fold scales and offsets per channel into the layers around them, so that a quantizer sees plain layers.

Rescaling, Normalization, and a BatchNormalization behind an activation are MUL, ADD, SUB and DIV with constants in a
.tflite. In int8 each of these rounds once more, with one scale for constants of very different size, and the layers
behind them cannot be improved. They are folded where that is exact: into the layer in front when it has no activation,
else into every layer behind, also through means. Zero padding makes an offset inexact at the borders: there, scale and
offset become one DEPTHWISE_CONV_2D of 1x1, whose weights have one scale per channel.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, read_model
from edgepack.graph.op_layout import dilated_size, padding_amounts
from edgepack.repair.graph_edits import Draft, Edit, rewritten
from edgepack.repair.rewrite_search import Rewrite

Values = npt.NDArray[np.float64]

FOLDED = "folded-arithmetic"

_ARITHMETIC = frozenset({"ADD", "DIV", "MUL", "SUB"})
_LAYERS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
_MEANS = frozenset({"AVERAGE_POOL_2D", "MEAN"})

#: Largest ratio of a folded scale to its neighbour: beyond it float32 sums lose what the graph kept apart.
_MAX_SCALE = 1e6


@dataclass(frozen=True)
class _Chain:
    """Ops that together scale and shift the channels of one tensor.

    Attributes:
        ops: In order.
        source: Tensor in front.
        result: Tensor behind.
        scale: Per channel of the last dimension.
        offset: The same.
        activation: Fused activation of the last op.
    """

    ops: tuple[Op, ...]
    source: int
    result: int
    scale: Values
    offset: Values
    activation: str


def fold_arithmetic(tflite: bytes) -> tuple[bytes, tuple[Rewrite, ...]]:
    """Fold scales and offsets; return the file, the same bytes when there is nothing to fold, and what was done.

    Args:
        tflite: A float .tflite.
    """
    model = read_model(tflite)
    graph = model.main
    edits: list[Edit] = []
    rewrites = []
    used: set[int] = set()
    for chain in _chains(graph):
        found = _backward(graph, chain) or _forward(graph, chain) or _as_layer(graph, chain)
        touched = {index for edit in found for index in edit.removed}
        if not found or touched & used:
            continue
        used |= touched
        edits += found
        last, names = chain.ops[-1], " and ".join(op.name for op in chain.ops)
        message = f"{names} {found[0].message}"
        rewrites.append(Rewrite(FOLDED, last.label, last.index, graph.output_name(last), message, True, 0))
    edits.sort(key=lambda edit: edit.removed[-1])
    return (rewritten(tflite, model, edits), tuple(rewrites)) if edits else (tflite, ())


def _chains(graph: Graph) -> Iterator[_Chain]:
    taken: set[int] = set()
    for op in graph.ops:
        first = None if op.index in taken else _step(graph, op)
        if first is None:
            continue
        source, scale, offset = first
        ops = [op]
        while (following := _following(graph, ops[-1])) is not None:
            step = _step(graph, following)
            if step is None or step[0] != ops[-1].outputs[0]:
                break
            scale, offset = scale * step[1], offset * step[1] + step[2]
            ops.append(following)
        taken |= {one.index for one in ops}
        size = np.abs(scale)
        if np.isfinite(scale).all() and np.isfinite(offset).all() and size.max() <= _MAX_SCALE:
            activation = str(ops[-1].options.get("fused_activation", "NONE"))
            yield _Chain(tuple(ops), source, ops[-1].outputs[0], scale, offset, activation)


def _following(graph: Graph, op: Op) -> Op | None:
    """Return the only consumer of an op without activation."""
    result = op.outputs[0]
    consumers = graph.consumers.get(result, ())
    if op.options.get("fused_activation", "NONE") != "NONE" or len(consumers) != 1 or result in graph.outputs:
        return None
    return graph.ops[consumers[0]]


def _step(graph: Graph, op: Op) -> tuple[int, Values, Values] | None:
    """Return (tensor, scale, offset) of an op that scales or shifts by a constant, None for another op."""
    if op.name not in _ARITHMETIC or len(op.inputs) != 2 or min(op.inputs) < 0:
        return None
    tensors = [graph.tensors[index] for index in op.inputs]
    constants = [tensor.is_constant for tensor in tensors]
    if constants not in ([False, True], [True, False]):
        return None
    source, constant = tensors if constants[1] else tensors[::-1]
    result, data = graph.tensors[op.outputs[0]], constant.data
    if data is None or {source.dtype, constant.dtype, result.dtype} != {"FLOAT32"} or source.shape != result.shape:
        return None
    channels = source.shape[-1] if source.rank >= 2 else 0
    if (
        not channels
        or source.is_dynamic
        or (data.size != 1 and (data.size, data.shape[-1:]) != (channels, (channels,)))
    ):
        return None
    values = np.broadcast_to(data.ravel().astype(np.float64), channels)
    one, zero = np.ones(channels), np.zeros(channels)
    if op.name == "MUL":
        return source.index, values, zero
    if op.name == "ADD":
        return source.index, one, values
    if op.name == "SUB":
        return (source.index, one, -values) if constants[1] else (source.index, -one, values)
    return (source.index, 1 / values, zero) if constants[1] and np.all(values != 0) else None


def _backward(graph: Graph, chain: _Chain) -> list[Edit]:
    """Fold into the layer in front, which has no activation of its own."""
    producer = graph.producers.get(chain.source)
    layer = None if producer is None else graph.ops[producer]
    if layer is None or layer.name not in _LAYERS or _following(graph, layer) is not chain.ops[0]:
        return []
    weights = _weights(graph, layer)
    if weights is None or len(layer.outputs) != 1 or graph.tensors[chain.source].shape[-1] != weights[1].size:
        return []
    kernel, bias = weights
    shape = (-1, *(1,) * (kernel.ndim - 1)) if layer.name != "DEPTHWISE_CONV_2D" else (1, 1, 1, -1)
    draft = Draft(graph, graph.tensors[chain.result].name)
    inputs = [
        layer.inputs[0],
        draft.constant(kernel * chain.scale.reshape(shape)),
        draft.constant(bias * chain.scale + chain.offset),
    ]
    draft.op(layer.name, inputs, [chain.result], **{**layer.options, "fused_activation": chain.activation})
    removed = [layer.index, *(op.index for op in chain.ops)]
    return [draft.edit(FOLDED, removed, f"folded into the {layer.name} in front")]


def _forward(graph: Graph, chain: _Chain) -> list[Edit]:
    """Fold into all layers behind."""
    if chain.activation != "NONE" or chain.result in graph.outputs:
        return []
    readers = [graph.ops[index] for index in graph.consumers.get(chain.result, ())]
    message = f"folded into the {', '.join(sorted({op.name for op in readers}))} behind"
    edits = [Draft(graph, "").edit(FOLDED, [op.index for op in chain.ops], message)]
    if len(readers) == 1 and readers[0].name in _MEANS and _is_plain_mean(graph, readers[0]):
        mean = readers[0]
        if mean.outputs[0] in graph.outputs:
            return []
        draft = Draft(graph, graph.output_name(mean))
        draft.op(mean.name, [chain.source, *mean.inputs[1:]], mean.outputs, **mean.options)
        edits.append(draft.edit(FOLDED, [mean.index], message))
        readers = [graph.ops[index] for index in graph.consumers.get(mean.outputs[0], ())]
        source, result = mean.outputs[0], mean.outputs[0]
    else:
        source, result = chain.source, chain.result
    for reader in readers:
        edit = _into(graph, reader, chain, source, result, message)
        if edit is None:
            return []
        edits.append(edit)
    return edits if readers else []


def _is_plain_mean(graph: Graph, op: Op) -> bool:
    """Return whether an op averages over other dimensions than the last one, and does nothing else."""
    if op.name == "AVERAGE_POOL_2D":
        return bool(op.options.get("fused_activation", "NONE") == "NONE")
    axes = graph.tensors[op.inputs[1]].data if len(op.inputs) == 2 and op.inputs[1] >= 0 else None
    rank = graph.tensors[op.inputs[0]].rank
    return axes is not None and not any(int(axis) % rank == rank - 1 for axis in axes.ravel())


def _into(graph: Graph, layer: Op, chain: _Chain, source: int, result: int, message: str) -> Edit | None:
    """Return the edit that gives a layer the scale and offset of its input, None where that is not exact."""
    weights = _weights(graph, layer) if layer.name in _LAYERS else None
    if weights is None or layer.inputs[0] != result or result in layer.inputs[1:]:
        return None
    kernel, bias = weights
    if layer.name != "FULLY_CONNECTED" and np.any(chain.offset != 0) and _pads(graph, layer, kernel):
        return None
    channels = chain.scale.size
    draft = Draft(graph, graph.output_name(layer))
    if layer.name == "DEPTHWISE_CONV_2D":
        if kernel.shape[3] % channels:
            return None
        repeats = kernel.shape[3] // channels
        scale, offset = np.repeat(chain.scale, repeats), np.repeat(chain.offset, repeats)
        shift = (kernel * offset).sum(axis=(0, 1, 2))
    else:
        if kernel.shape[-1] % channels or (layer.name == "CONV_2D" and kernel.shape[-1] != channels):
            return None
        # A FULLY_CONNECTED flattens its input: channels are the innermost dimension.
        scale, offset = (np.tile(v, kernel.shape[-1] // channels) for v in (chain.scale, chain.offset))
        shift = (kernel * offset).sum(axis=tuple(range(1, kernel.ndim)))
    inputs = [source, draft.constant(kernel * scale), draft.constant(bias + shift)]
    draft.op(layer.name, inputs, layer.outputs, **layer.options)
    return draft.edit(FOLDED, [layer.index], message)


def _weights(graph: Graph, layer: Op) -> tuple[Values, Values] | None:
    """Return kernel and bias of a layer in float, zeros where it has no bias."""
    if not 2 <= len(layer.inputs) <= 3 or len(layer.outputs) != 1:
        return None
    if layer.options.get("weights_format", "DEFAULT") != "DEFAULT":
        return None
    kernel = graph.tensors[layer.inputs[1]]
    bias = graph.tensors[layer.inputs[2]] if len(layer.inputs) == 3 and layer.inputs[2] >= 0 else None
    if kernel.data is None or kernel.dtype != "FLOAT32" or kernel.elements == 0:
        return None
    if kernel.rank != (2 if layer.name == "FULLY_CONNECTED" else 4):
        return None
    outputs = kernel.shape[3 if layer.name == "DEPTHWISE_CONV_2D" else 0]
    if bias is None:
        return kernel.data.astype(np.float64), np.zeros(outputs)
    if bias.data is None or bias.dtype != "FLOAT32" or bias.elements != outputs:
        return None
    return kernel.data.astype(np.float64), bias.data.astype(np.float64).ravel()


def _pads(graph: Graph, layer: Op, kernel: Values) -> bool:
    """Return whether a convolution sees zeros beyond its input."""
    shape = graph.tensors[layer.inputs[0]].shape
    options = layer.options
    for axis, size in ((1, "h"), (2, "w")):
        spanned = dilated_size(kernel.shape[axis], int(options.get(f"dilation_{size}", 1)) or 1)
        stride = int(options.get(f"stride_{size}", 1)) or 1
        if any(padding_amounts(str(options.get("padding", "SAME")), shape[axis], spanned, stride)):
            return True
    return False


def _as_layer(graph: Graph, chain: _Chain) -> list[Edit]:
    """Write a scale and an offset, or either per channel, as one DEPTHWISE_CONV_2D of 1x1."""
    tensor = graph.tensors[chain.source]
    varied = np.ptp(chain.scale) > 0 or np.ptp(chain.offset) > 0
    if tensor.rank != 4 or not (varied or len(chain.ops) > 1):
        return []
    draft = Draft(graph, graph.tensors[chain.result].name)
    inputs = [chain.source, draft.constant(chain.scale.reshape(1, 1, 1, -1)), draft.constant(chain.offset)]
    draft.op(
        "DEPTHWISE_CONV_2D", inputs, [chain.result], padding="VALID", stride_w=1, stride_h=1, depth_multiplier=1,
        fused_activation=chain.activation,
    )  # fmt: skip
    return [draft.edit(FOLDED, [op.index for op in chain.ops], "written as one DEPTHWISE_CONV_2D of 1x1")]
