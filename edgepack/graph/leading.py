"""Arithmetic on an input in front of a model's first layer, such as Rescaling and Normalization of Keras."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph.model import Graph, Model, Op

#: Ops that pass values on, in another shape, order or size.
_PASSED = {"CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"}


@dataclass(frozen=True)
class Affine:
    """Arithmetic `scale * input + offset` that a model applies to an input.

    Attributes:
        scale: float64, shape () or (channels,).
        offset: float64, the same.
        ops: Number of arithmetic ops that were read.
    """

    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    ops: int


def leading_affine(model: Model, tensor: int) -> Affine:
    """Return what the ops behind an input do to each value, up to the first op that does something else.

    Ops that only change shape, order or size are passed. Constants are numbers, or one per channel of the last axis.

    Args:
        model: A float model.
        tensor: Index of the input in the main graph.
    """
    graph, scale, offset, count = model.main, np.array(1.0), np.array(0.0), 0
    seen: set[int] = set()
    while tensor not in seen:
        seen.add(tensor)
        consumers = graph.consumers.get(tensor, ())
        if len(consumers) != 1 or tensor in graph.outputs:
            break
        op = graph.ops[consumers[0]]
        if op.name in _PASSED and op.inputs[0] == tensor:
            tensor = op.outputs[0]
            continue
        step = _arithmetic(graph, op, tensor)
        if step is None:
            break
        scale, offset, count = scale * step[0], offset * step[0] + step[1], count + 1
        tensor = op.outputs[0]
    return Affine(scale, offset, count)


def _arithmetic(graph: Graph, op: Op, tensor: int) -> tuple[Any, Any] | None:
    """Return (factor, summand) of one op with a constant, None for any other op."""
    if op.name not in {"MUL", "DIV", "ADD", "SUB"} or op.options.get("fused_activation", "NONE") != "NONE":
        return None
    if len(op.inputs) != 2 or min(op.inputs) < 0:
        return None
    first = op.inputs[0] == tensor
    other = graph.tensors[op.inputs[1] if first else op.inputs[0]]
    if other.data is None or other.data.size == 0 or other.data.size != (other.shape or (1,))[-1]:
        return None
    value = np.asarray(other.data, np.float64).reshape(-1)
    value = value[0] if value.size == 1 else value
    match op.name:
        case "MUL":
            return value, 0.0
        case "ADD":
            return 1.0, value
        case "SUB":
            return (1.0, -value) if first else (-1.0, value)
        case _:
            return (1.0 / value, 0.0) if first and np.all(value != 0) else None
