"""Carry factors on the channels of a tensor through the ops that read it to the weights that take them back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op
from edgepack.repair.file_edits import FileEditor

Floats = npt.NDArray[np.float32]

#: Ops whose output is scaled where their input is, channel by channel.
_SCALES_PASS = frozenset(
    {
        "AVERAGE_POOL_2D", "EXPAND_DIMS", "LEAKY_RELU", "MAX_POOL_2D", "PRELU", "RELU", "RESHAPE", "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR", "SQUEEZE",
    }
)  # fmt: skip

#: Largest number of values that factors are spread over: beyond it no layer reads them.
_MAX_VALUES = 1 << 20


@dataclass
class ScaleTransfer:
    """New values of constants, by (op, input position)."""

    constants: dict[tuple[int, int], Floats] = field(default_factory=dict)

    def apply(self, editor: FileEditor) -> None:
        """Write the constants."""
        for (op, position), values in self.constants.items():
            editor.replace_constant(op, position, values)


def plan_transfer(graph: Graph, op: Op, factors: Sequence[float]) -> ScaleTransfer | None:
    """Return what changes when each input of a CONCATENATION is multiplied by a factor; None if it cannot be undone.

    Args:
        graph: A float graph.
        op: A CONCATENATION along the last axis.
        factors: Factor of each input.
    """
    result = graph.tensors[op.outputs[0]]
    axis = int(op.options.get("axis", 0))
    sizes = [graph.tensors[i].shape[-1] for i in op.inputs]
    if axis % result.rank != result.rank - 1 or sum(sizes) != result.shape[-1]:
        return None
    transfer = ScaleTransfer()
    channel_factors = np.repeat(np.array(factors, np.float64), sizes)
    return transfer if _follow(graph, op.outputs[0], channel_factors, transfer) else None


def _follow(graph: Graph, index: int, factors: npt.NDArray[np.float64], transfer: ScaleTransfer) -> bool:
    consumers = graph.consumers.get(index, ())
    if index in graph.outputs or not consumers:
        return False
    for consumer in consumers:
        op = graph.ops[consumer]
        if list(op.inputs).count(index) > 1 or not _absorb(graph, op, index, factors, transfer):
            return False
    return True


def _absorb(graph: Graph, op: Op, index: int, factors: npt.NDArray[np.float64], transfer: ScaleTransfer) -> bool:
    """Take the factors back in an op's constant, or follow them behind it; False where neither is possible."""
    if op.name in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"):
        return op.inputs[0] == index and _into_weights(graph, op, factors, transfer)
    if op.name in ("MUL", "DIV", "ADD", "SUB"):
        return _into_constant(graph, op, index, factors, transfer)
    if op.inputs[0] != index or op.options.get("fused_activation", "NONE") not in ("NONE", "RELU"):
        return False
    result = graph.tensors[op.outputs[0]]
    channels = graph.tensors[index].shape[-1]
    if op.name == "MEAN":
        axes, rank = graph.tensors[op.inputs[1]].data, graph.tensors[index].rank
        kept = axes is not None and all(int(axis) % rank != rank - 1 for axis in axes.ravel())
        return bool(kept) and _follow(graph, op.outputs[0], factors, transfer)
    if op.name == "PAD":
        pads = graph.tensors[op.inputs[1]].data
        return pads is not None and not pads[-1].any() and _follow(graph, op.outputs[0], factors, transfer)
    if op.name not in _SCALES_PASS or not result.rank:
        return False
    last = result.shape[-1]
    if last % channels or last > _MAX_VALUES or (last != channels and op.name != "RESHAPE"):
        return False
    return _follow(graph, op.outputs[0], np.tile(factors, last // channels), transfer)


def _into_weights(graph: Graph, op: Op, factors: npt.NDArray[np.float64], transfer: ScaleTransfer) -> bool:
    weights = graph.tensors[op.inputs[1]]
    if weights.data is None or weights.dtype != "FLOAT32" or (op.index, 1) in transfer.constants:
        return False
    inputs = weights.shape[-1]
    if op.name == "DEPTHWISE_CONV_2D":
        if inputs % len(factors):
            return False
        factors = np.repeat(factors, inputs // len(factors))
    elif op.name == "FULLY_CONNECTED" and inputs % len(factors) == 0:
        # A dense layer flattens its input: the channels repeat.
        factors = np.tile(factors, inputs // len(factors))
    if len(factors) != inputs:
        return False
    transfer.constants[op.index, 1] = (weights.data / factors).astype(np.float32)
    return True


def _into_constant(graph: Graph, op: Op, index: int, factors: npt.NDArray[np.float64], transfer: ScaleTransfer) -> bool:
    """MUL and DIV take factors back; a constant that is added is scaled, and the sum is followed."""
    position = 1 - list(op.inputs).index(index)
    constant = graph.tensors[op.inputs[position]]
    values = constant.data
    if values is None or constant.dtype != "FLOAT32" or (op.index, position) in transfer.constants:
        return False
    shape = (*constant.shape[:-1], len(factors)) if constant.rank else (len(factors),)
    same_shape = graph.tensors[op.outputs[0]].shape == graph.tensors[index].shape
    if not same_shape or (constant.rank and constant.shape[-1] not in (1, len(factors))):
        return False
    if np.prod(shape) > _MAX_VALUES:
        return False
    spread = np.broadcast_to(values, shape).astype(np.float64)
    if op.name == "MUL" or (op.name == "DIV" and position == 1):
        scaled = spread / factors if op.name == "MUL" else spread * factors
        transfer.constants[op.index, position] = scaled.astype(np.float32)
        return True
    if op.name == "DIV" or op.options.get("fused_activation", "NONE") not in ("NONE", "RELU"):
        return False
    transfer.constants[op.index, position] = (spread * factors).astype(np.float32)
    return _follow(graph, op.outputs[0], factors, transfer)
