"""Remove what nothing refers to any more from a `ModelT`: tensors of a subgraph, operator codes, data of buffers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph.edit import drop_unused_codes, empty_unused, pack, unpack


def drop_unused(file: Any, number: int = 0) -> None:
    """Remove tensors of a subgraph that no op, input, output or signature refers to, and what is unused in the file.

    In the file that is the contents of buffers, and operator codes.

    Args:
        file: The schema's mutable `ModelT`.
        number: Index of the subgraph.
    """
    graph = file.subgraphs[number]
    ops = graph.operators or []
    used = {int(i) for op in ops for i in (*_list(op.inputs), *_list(op.outputs), *_list(op.intermediates))}
    used |= {int(i) for i in (*_list(graph.inputs), *_list(graph.outputs))} - {-1}
    signatures = [s for s in file.signatureDefs or [] if s.subgraphIndex == number]
    entries = [entry for s in signatures for entry in (*(s.inputs or []), *(s.outputs or []))]
    used |= {int(entry.tensorIndex) for entry in entries}
    new_indices = {old: new for new, old in enumerate(sorted(used - {-1}))}
    new_indices[-1] = -1
    graph.tensors = [tensor for index, tensor in enumerate(graph.tensors) if index in new_indices]
    for op in ops:
        for name in ("inputs", "outputs", "intermediates"):
            if getattr(op, name) is not None:
                setattr(op, name, _renumbered(getattr(op, name), new_indices))
    graph.inputs, graph.outputs = _renumbered(graph.inputs, new_indices), _renumbered(graph.outputs, new_indices)
    for entry in entries:
        entry.tensorIndex = new_indices[int(entry.tensorIndex)]
    empty_unused(file)
    drop_unused_codes(file)


def share_equal_constants(tflite: bytes) -> bytes:
    """Let constants with equal bytes share one buffer, as TFLiteConverter does; returns the same bytes without any.

    Layers without a bias have zeros after their biases were separated for correction.
    """
    file = unpack(tflite)
    first: dict[bytes, int] = {}
    moved: dict[int, int] = {}
    for number, buffer in enumerate(file.buffers):
        data = b"" if buffer.data is None else bytes(np.asarray(buffer.data, np.uint8).data)
        if data and (same := first.setdefault(data, number)) != number:
            moved[number] = same
    tensors = [tensor for graph in file.subgraphs for tensor in graph.tensors or []]
    changed = [tensor for tensor in tensors if int(tensor.buffer) in moved and not tensor.isVariable]
    for tensor in changed:
        tensor.buffer = moved[int(tensor.buffer)]
    if not changed:
        return tflite
    empty_unused(file)
    return pack(file)


def _list(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _renumbered(values: Any, new_indices: Mapping[int, int]) -> npt.NDArray[np.int32]:
    return np.array([new_indices[int(value)] for value in _list(values)], np.int32)
