"""Sparse constants: the dense values of a tensor that a file stores with `SparsityParameters`."""

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import ModelFileError
from edgepack.graph.read import schema


def dense_values(stored: npt.NDArray[Any], shape: tuple[int, ...], sparsity: Any) -> npt.NDArray[Any]:
    """Return a sparse constant as a dense array, as the DENSIFY kernel does.

    The format is that of TACO, described in schema.fbs of github.com/tensorflow/tensorflow: the dimensions, and those
    of the blocks after them, are stored level by level, each level dense or compressed (CSR).

    Args:
        stored: The values in the buffer.
        shape: Dense shape.
        sparsity: The schema's `SparsityParametersT`.

    Raises:
        ModelFileError: The levels do not match the shape or the values.
    """
    order = _ints(sparsity.traversalOrder)
    block_map = _ints(sparsity.blockMap)
    levels = list(sparsity.dimMetadata or [])
    rank, elements = len(shape), prod(shape)
    if sorted(order) != list(range(rank + len(block_map))) or len(levels) != len(order):
        raise ModelFileError(f"a sparse constant {list(shape)} has {len(levels)} levels")
    if any(not 0 <= axis < rank for axis in block_map):
        raise ModelFileError(f"a sparse constant {list(shape)} has blocks along axes {block_map}")
    sizes = {axis: int(levels[level].denseSize) for level, axis in enumerate(order) if axis >= rank}
    blocks = {axis: sizes[rank + at] for at, axis in enumerate(block_map)}
    position = np.zeros(1, np.int64)
    coordinates = np.zeros((rank, 1), np.int64)
    for level, axis in zip(levels, order, strict=True):
        parents, position, along = _descend(level, position, elements)
        coordinates = coordinates[:, parents]
        if axis >= rank:
            coordinates[block_map[axis - rank]] += along
        else:
            coordinates[axis] += along * blocks.get(axis, 1)
    limits = np.array(shape, np.int64)[:, None]
    if (coordinates < 0).any() or (coordinates >= limits).any() or (position >= stored.size).any():
        raise ModelFileError(f"a sparse constant {list(shape)} has values outside its shape or its buffer")
    dense = np.zeros(shape, stored.dtype)
    dense[tuple(coordinates)] = stored[position]
    return dense


def _descend(
    level: Any, position: npt.NDArray[np.int64], elements: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for each entry of the next level: its parent's number, its position, and its index along the level."""
    if level.format == schema().DimensionType.DENSE:
        size = int(level.denseSize)
        counts = np.full(position.size, size, np.int64)
        starts = position * size
    else:
        segments, indices = _vector(level.arraySegments), _vector(level.arrayIndices)
        if position.size and position.max() + 1 >= segments.size:
            raise ModelFileError("a level of a sparse constant ends before its parent")
        starts = segments[position]
        counts = segments[position + 1] - starts
    total = int(counts.sum())
    if (counts < 0).any() or not 0 <= total <= elements:
        raise ModelFileError(f"a sparse constant of {elements} values claims {total}")
    parents = np.repeat(np.arange(position.size), counts)
    within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    children = np.repeat(starts, counts) + within
    if level.format == schema().DimensionType.DENSE:
        return parents, children, within
    if total and (children.min() < 0 or children.max() >= indices.size):
        raise ModelFileError("a level of a sparse constant has too few indices")
    return parents, children, indices[children]


def _vector(holder: Any) -> npt.NDArray[np.int64]:
    return np.asarray([] if holder is None or holder.values is None else holder.values, np.int64)


def _ints(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]
