"""Columns of an output that are quantities of their own, such as the boxes and the scores that a detector joins.

One int8 scale serves a whole tensor, so that a quantity whose values vary much less than those beside it loses its
signal, and an energy summed over both does not show it. Columns are therefore judged in groups of similar variation. A
group is split off only where the difference is large: the 1,000 logits of a classifier, or the elements of an
embedding, are one quantity although they do not vary equally.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: A group varies less than the next one by at least this factor: at a common scale it has three of the eight bits less.
SPLIT = 8.0
#: Up to this many columns each may be a quantity of its own, as in [x, y, angle].
FEW = 16
#: With more columns, a group has at least this share of them, or its columns are adjacent. Single elements of an
#: embedding that hardly vary on the samples are neither.
SHARE = 0.1
#: More columns than this are no list of quantities, and are not examined.
MOST = 4096
#: Columns that vary by less than this part of their own magnitude are constant: ten times the step of float32 near 1.
CONSTANT = 1e-6


def column_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of an output whose columns may be different quantities.

    That is the last one, and in an output of rank 3 the second one as well where it is the shorter one: detectors have
    [batch, boxes, values] or [batch, values, boxes].

    Args:
        shape: Shape of the output, batch first.
    """
    axes = [len(shape) - 1] if len(shape) > 1 else []
    if len(shape) == 3 and shape[1] < shape[2]:
        axes.append(1)
    return tuple(axis for axis in axes if 1 < shape[axis] <= MOST)


def column_groups(spread: FloatArray, magnitude: FloatArray) -> list[list[int]]:
    """Return the columns in groups of similar variation, those that vary most first.

    Columns that are constant on the samples are in no group: they have no signal that could be lost.

    Args:
        spread: Root mean square of each column about the means of its elements.
        magnitude: Root mean square of each column about zero.
    """
    varying = [int(c) for c in np.argsort(-spread, kind="stable") if spread[c] > CONSTANT * magnitude[c]]
    groups: list[list[int]] = []
    current: list[int] = []
    for number, column in enumerate(varying):
        if current and spread[column] * SPLIT <= spread[current[-1]]:
            rest = varying[number:]
            if len(spread) <= FEW or _adjacent(rest) or _adjacent(current):
                groups.append(sorted(current))
                current = []
            elif not groups and len(rest) >= SHARE * len(spread):
                return [sorted(current), sorted(rest)]
        current.append(column)
    return [*groups, sorted(current)] if current else groups


def _adjacent(columns: Sequence[int]) -> bool:
    return len(columns) > 1 and max(columns) - min(columns) + 1 == len(columns)
