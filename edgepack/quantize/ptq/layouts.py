"""Where RESHAPE and TRANSPOSE move the values of a tensor."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op

#: Positions of values in the tensor that they come from, flat, in the shape that they have now.
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Origin:
    """A tensor whose values another one has in another layout.

    Attributes:
        tensor: The tensor.
        places: Where each value of the other one is in it.
    """

    tensor: int
    places: Places


def find_origin(graph: Graph, index: int) -> Origin | None:
    """Return the tensor whose last axis is spread over all axes but the last one of a tensor; None without one.

    Keras 2 normalizes the rows of (1, 5, 8) this way, by a batch normalization of the columns of (1, 8, 1, 5).
    """
    ops: list[Op] = []
    while (op := graph.producers.get(index)) is not None and graph.ops[op].name in {"RESHAPE", "TRANSPOSE"}:
        ops.insert(0, graph.ops[op])
        index = ops[0].inputs[0]
        tensor = graph.tensors[index]
        if not tensor.shape or min(tensor.shape) < 1:
            return None
        places: Places | None = np.arange(tensor.elements).reshape(tensor.shape)
        for step in ops:
            places = None if places is None else moved(graph, step, places)
        if places is None:
            return None
        rows = places.reshape(-1, places.shape[-1]) // tensor.shape[-1]
        if len(rows) == tensor.shape[-1] and bool((rows == rows[0]).all()):
            return Origin(index, places)
    return None


def moved(graph: Graph, op: Op, places: Places) -> Places | None:
    """Return where the values are after an op; None where it is none that only moves them, or that is not known."""
    shape = graph.tensors[op.outputs[0]].shape if op.outputs else ()
    if op.name == "RESHAPE" and int(np.prod(shape)) == places.size:
        return places.reshape(shape)
    order = graph.tensors[op.inputs[1]].integers if op.name == "TRANSPOSE" else None
    if order is None or sorted(order.reshape(-1)) != list(range(places.ndim)):
        return None
    return places.transpose([int(axis) for axis in order.reshape(-1)])
