"""Spectra without complex tensors, which Qualcomm's compiler refuses anywhere in a file."""

import math

import numpy as np

from edgepack.graph import Graph, Op
from edgepack.repair.graph_edits import Draft, Edit

#: Longest transform that is written as two matrices: they take 4 n (n / 2 + 1) bytes each, and float32 sums of more
#: terms lose the precision of the rewrite.
_LONGEST = 2048

_PARTS = frozenset({"COMPLEX_ABS", "REAL", "IMAG"})


def rewrite_spectrum(graph: Graph, op: Op) -> list[Edit]:
    """RFFT2D of rows of which only magnitudes, real or imaginary parts are read: products with cosines and sines."""
    if op.name != "RFFT2D" or len(op.inputs) != 2 or len(op.outputs) != 1:
        return []
    x = graph.tensors[op.inputs[0]]
    length = graph.tensors[op.inputs[1]].integers
    if x.dtype != "FLOAT32" or x.is_dynamic or x.rank < 2 or length is None or length.size != 2 or x.is_constant:
        return []
    height, size = (int(n) for n in length.ravel())
    if (height, x.shape[-2], x.shape[-1]) != (1, 1, size) or not 2 <= size <= _LONGEST:
        return []
    readers = _readers(graph, op)
    if readers is None:
        return []
    between, parts = readers
    rows, bins = math.prod(x.shape[:-1]), size // 2 + 1
    if any(graph.tensors[part.outputs[0]].elements != rows * bins for part in parts):
        return []
    draft = Draft(graph, graph.output_name(op))
    flat = draft.then("RESHAPE", [x.index, draft.constant((rows, size), "INT32")], (rows, size), new_shape=[rows, size])
    angles = 2 * np.pi * np.outer(np.arange(bins), np.arange(size)) / size
    zeros = draft.constant(np.zeros(bins))
    kinds = {part.name for part in parts}
    products = {
        kind: draft.then("FULLY_CONNECTED", [flat, draft.constant(matrix), zeros], (rows, bins))
        for kind, matrix in (("REAL", np.cos(angles)), ("IMAG", -np.sin(angles)))
        if kinds & {kind, "COMPLEX_ABS"}
    }
    for part in parts:
        out = graph.tensors[part.outputs[0]]
        if part.name == "COMPLEX_ABS":
            squares = [draft.then("MUL", [product, product], (rows, bins)) for product in products.values()]
            power = draft.then("ADD", squares, (rows, bins))
            result = draft.then("SQRT", [power], (rows, bins))
        else:
            result = products[part.name]
        draft.op("RESHAPE", [result, draft.constant(out.shape, "INT32")], [out.index], new_shape=list(out.shape))
    removed = [op.index, *(one.index for one in (*between, *parts))]
    message = f"a Fourier transform of {size} values written as products with cosines and sines"
    return [draft.edit("real-spectrum", removed, message)]


def _readers(graph: Graph, op: Op) -> tuple[list[Op], list[Op]] | None:
    """Return the RESHAPE ops behind a transform, and the ops that make real values of its result; None for others."""
    between: list[Op] = []
    parts: list[Op] = []
    waiting = [op.outputs[0]]
    while waiting:
        tensor = waiting.pop()
        if tensor in graph.outputs:
            return None
        for index in graph.consumers.get(tensor, ()):
            reader = graph.ops[index]
            if len(reader.outputs) != 1 or reader.name not in {*_PARTS, "RESHAPE", "SQUEEZE"}:
                return None
            if graph.tensors[reader.outputs[0]].is_dynamic:
                return None
            if reader.name in _PARTS:
                parts.append(reader)
            else:
                between.append(reader)
                waiting.append(reader.outputs[0])
    return (between, parts) if parts else None
