"""Objects with their boxes, in pixels of the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .mapping import FrameMapping
from .scores import Floats, activated, name_of


@dataclass(frozen=True)
class Detection:
    """An object in a frame.

    Attributes:
        label: Name of its class, the number as text where it has no name.
        index: Number of its class.
        score: Score.
        left: Left edge, in pixels of the frame.
        top: Top edge.
        right: Right edge.
        bottom: Bottom edge.
    """

    label: str
    index: int
    score: float
    left: float
    top: float
    right: float
    bottom: float


def joined_entries(
    entries: NDArray[Any], *, transposed: bool, objectness: bool, activation: str = "none"
) -> tuple[Floats, Floats]:
    """Return the boxes (N, 4) and the scores (N, C) of an output [1, N, 4 + C], or [1, 4 + C, N].

    Args:
        entries: The output.
        transposed: The second form.
        objectness: The fifth number of an entry is one with which its scores are multiplied.
        activation: What makes probabilities of scores and objectness.
    """
    rows = np.asarray(entries, np.float32)[0]
    rows = rows.T if transposed else rows
    scores = activated(rows[:, 5 if objectness else 4 :], activation)
    if objectness:
        scores = scores * activated(rows[:, 4:5], "sigmoid" if activation == "sigmoid" else "none")
    return rows[:, :4], scores


def box_corners(boxes: NDArray[Any], order: str = "cxcywh", size: tuple[int, int] | None = None) -> Floats:
    """Return boxes as left, top, right and bottom in fractions of the input's size, (N, 4).

    Args:
        boxes: (N, 4) numbers.
        order: `cxcywh` (centre and size), `xywh` (left, top and size), `xyxy` or `yxyx`.
        size: Width and height of the input for boxes in its pixels, None for fractions.
    """
    values: Floats = np.asarray(boxes, np.float32).reshape(-1, 4)
    if order == "yxyx":
        values = values[:, [1, 0, 3, 2]]
    elif order in ("cxcywh", "xywh"):
        start, extent = values[:, :2], values[:, 2:]
        start = start - extent / np.float32(2) if order == "cxcywh" else start
        values = np.hstack([start, start + extent])
    return values if size is None else np.asarray(values / np.asarray([*size, *size], np.float32), np.float32)


def detect(
    boxes: Floats,
    scores: NDArray[Any],
    mapping: FrameMapping,
    names: Sequence[str],
    *,
    background: bool = False,
    score: float = 0.25,
    iou: float = 0.45,
    limit: int = 100,
) -> list[Detection]:
    """Return the objects in a frame: each box with its best class, without duplicates of a class.

    Args:
        boxes: (N, 4) left, top, right and bottom in fractions of the input's size.
        scores: (N, C) probabilities.
        mapping: How the frame became the input.
        names: Names of the classes.
        background: The first class stands for no object.
        score: Objects with a lower score are dropped.
        iou: Of two boxes of a class whose intersection over union is larger, the one with the lower score is dropped.
        limit: Largest number of objects.
    """
    values = np.asarray(scores, np.float32)[:, int(background) :]
    classes = values.argmax(axis=1)
    best = np.take_along_axis(values, classes[:, None], axis=1)[:, 0]
    # Not `best < score`: NaN is dropped.
    places = np.flatnonzero((best >= np.float32(score)) & np.isfinite(boxes).all(axis=1))
    places = places[np.argsort(-best[places].astype(np.float64), kind="stable")]
    kept = _without_duplicates(boxes[places], classes[places], np.float32(iou), limit)
    shift = int(background)
    return [_detection(boxes[i], int(classes[i]) + shift, float(best[i]), mapping, names) for i in places[kept]]


def postprocessed(
    boxes: NDArray[Any],
    classes: NDArray[Any],
    scores: NDArray[Any],
    count: NDArray[Any],
    mapping: FrameMapping,
    names: Sequence[str],
    *,
    score: float = 0.25,
    limit: int = 100,
) -> list[Detection]:
    """Return the objects of the outputs of TFLite_Detection_PostProcess, which has dropped duplicates already.

    Args:
        boxes: [1, N, 4] top, left, bottom and right in fractions of the input's size.
        classes: [1, N] class numbers.
        scores: [1, N] scores.
        count: How many of the N are objects.
        mapping: How the frame became the input.
        names: Names of the classes.
        score: Objects with a lower score are dropped.
        limit: Largest number of objects.
    """
    corners = box_corners(boxes, "yxyx")
    found = max(min(int(np.ravel(count)[0]), len(corners)), 0)
    values, numbers = np.ravel(scores)[:found], np.ravel(classes)[:found]
    order = np.argsort(-values.astype(np.float64), kind="stable")
    usable = [i for i in order if values[i] >= score and np.isfinite(corners[i]).all()]
    return [_detection(corners[i], int(numbers[i]), float(values[i]), mapping, names) for i in usable[:limit]]


def _without_duplicates(boxes: Floats, classes: NDArray[Any], iou: np.float32, limit: int) -> list[int]:
    """Return the positions of the boxes that stay, of boxes that are sorted by score."""
    areas = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    kept: list[int] = []
    dropped = np.zeros(len(boxes), bool)
    for i in range(len(boxes)):
        if dropped[i]:
            continue
        kept.append(i)
        if len(kept) == limit:
            break
        start, end = np.maximum(boxes[i, :2], boxes[i + 1 :, :2]), np.minimum(boxes[i, 2:], boxes[i + 1 :, 2:])
        common = np.prod(np.maximum(end - start, 0), axis=1)
        union = areas[i] + areas[i + 1 :] - common
        # A product instead of a quotient: boxes without an area have a union of 0.
        dropped[i + 1 :] |= (common > iou * union) & (classes[i + 1 :] == classes[i])
    return kept


def _detection(box: Floats, index: int, score: float, mapping: FrameMapping, names: Sequence[str]) -> Detection:
    """Return an object with its box in pixels of the frame, inside the crop."""
    across, down = zip(*(mapping.to_original(float(box[n]), float(box[n + 1])) for n in (0, 2)), strict=True)
    left, right = (min(max(x, mapping.left), mapping.left + mapping.width) for x in sorted(across))
    top, bottom = (min(max(y, mapping.top), mapping.top + mapping.height) for y in sorted(down))
    return Detection(name_of(names, index), index, score, left, top, right, bottom)
