"""Key points, in pixels of the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.tasks.decode.mapping import FrameMapping
from edgepack.tasks.decode.scores import name_of


@dataclass(frozen=True)
class Keypoint:
    """A key point of a frame.

    Attributes:
        name: Its name, the number as text where it has none.
        x: In pixels of the frame.
        y: In pixels of the frame.
        score: Score, 1 where the model has none.
    """

    name: str
    x: float
    y: float
    score: float


def keypoints(
    values: NDArray[Any],
    mapping: FrameMapping,
    names: Sequence[str],
    *,
    order: str = "yx",
    size: tuple[int, int] | None = None,
) -> list[Keypoint]:
    """Return key points from [1, K, 2], [1, K, 3] or [1, 1, K, 3] numbers.

    Args:
        values: Coordinates, and a score where there is a third number.
        mapping: How the frame became the input.
        names: Names of the key points.
        order: `yx` or `xy`.
        size: Width and height of the input for coordinates in its pixels, None for fractions.
    """
    rows = np.asarray(values, np.float32).reshape(-1, np.shape(values)[-1])
    width, height = size or (1, 1)
    points = []
    for index, row in enumerate(rows):
        x, y = (row[1], row[0]) if order == "yx" else (row[0], row[1])
        left, top = mapping.to_original(float(x) / width, float(y) / height)
        points.append(Keypoint(name_of(names, index), left, top, float(row[2]) if len(row) > 2 else 1.0))
    return points


def keypoints_of_heatmaps(values: NDArray[Any], mapping: FrameMapping, names: Sequence[str]) -> list[Keypoint]:
    """Return the key point at the centre of the cell with the highest value of each map of [1, H, W, K]."""
    maps = np.asarray(values, np.float32)[0]
    rows, columns, count = maps.shape
    flat = maps.reshape(-1, count)
    points = []
    for index, place in enumerate(flat.argmax(axis=0)):
        row, column = divmod(int(place), columns)
        x, y = mapping.to_original((column + 0.5) / columns, (row + 0.5) / rows)
        points.append(Keypoint(name_of(names, index), x, y, float(flat[place, index])))
    return points
