"""Classes of the pixels of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.tasks.decode.mapping import FrameMapping
from edgepack.tasks.decode.scores import Scored, activated, name_of

#: Value of a mask where the model saw nothing: beyond what a center-crop keeps.
UNSEEN = 255


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Classes of the pixels of a frame's crop.

    Attributes:
        mask: Class of each pixel, uint8, (height, width); `UNSEEN` where the model saw nothing.
        labels: Names of the classes, empty when they have none.
    """

    mask: NDArray[np.uint8]
    labels: tuple[str, ...] = ()

    def shares(self) -> list[Scored]:
        """Return the classes that occur with their share of the pixels that the model saw, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=UNSEEN + 1)[:UNSEEN]
        seen = max(int(counts.sum()), 1)
        order = np.argsort(-counts, kind="stable")
        return [Scored(name_of(self.labels, int(i)), int(i), float(counts[i] / seen)) for i in order if counts[i]]


def class_map(scores: NDArray[Any], *, transposed: bool = False, activation: str = "none") -> NDArray[np.uint8]:
    """Return the class of each cell, (H, W), of scores [1, H, W, C], or [1, C, H, W].

    Of one score per cell, the class is 1 where it is above one half.
    """
    values = np.asarray(scores, np.float32)[0]
    values = np.moveaxis(values, 0, -1) if transposed else values
    if values.shape[2] == 1:
        return np.asarray(activated(values[..., 0], activation) > np.float32(0.5), np.uint8)
    return np.asarray(values.argmax(axis=2), np.uint8)


def segment(classes: NDArray[Any], mapping: FrameMapping, names: Sequence[str]) -> Segmentation:
    """Return the class of each pixel of a frame's crop: that of the cell in which its centre is.

    Args:
        classes: Class of each cell of the input: (H, W), [1, H, W] or [1, H, W, 1].
        mapping: How the frame became the input.
        names: Names of the classes.
    """
    rows, columns = classes.shape[-2:] if classes.ndim < 4 else classes.shape[1:3]
    x = mapping.left + np.arange(int(mapping.width)) + 0.5
    y = mapping.top + np.arange(int(mapping.height)) + 0.5
    turned = mapping.rotation in (90, 270)
    # Along an edge of the frame one fraction varies only, so each axis is computed once.
    across, _ = mapping.to_input(mapping.left if turned else x, y if turned else mapping.top)
    _, down = mapping.to_input(x if turned else mapping.left, mapping.top if turned else y)
    padded = np.full((rows + 1, columns + 1), UNSEEN, np.uint8)
    padded[:rows, :columns] = np.reshape(classes, (rows, columns))
    column, row = _cells(across, columns), _cells(down, rows)
    mask = padded[row][:, column]
    return Segmentation(np.ascontiguousarray(mask.T if turned else mask), tuple(names))


def _cells(fractions: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return the cell of each fraction; `count` for one outside."""
    cells = np.floor(np.asarray(fractions) * count).astype(np.int64)
    return np.where((cells < 0) | (cells >= count), count, cells)
