"""The results of a task from a model's outputs, for measuring: what the generated loaders of bundles return."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.tasks.decode.boxes import Detection, box_corners, detect, joined_entries, postprocessed
from edgepack.tasks.decode.mapping import FrameMapping
from edgepack.tasks.decode.masks import class_map, segment
from edgepack.tasks.decode.scores import activated
from edgepack.tasks.spec import TaskSpec

Array = npt.NDArray[Any]


def detections(
    spec: TaskSpec,
    outputs: Sequence[Array],
    mapping: FrameMapping,
    size: tuple[int, int],
    *,
    score: float,
    limit: int,
) -> list[Detection]:
    """Return the objects in a frame.

    Args:
        spec: A detection.
        outputs: All outputs of the model, as real values.
        mapping: How the frame became the input.
        size: Width and height of the input.
        score: Objects with a lower score are dropped.
        limit: Largest number of objects.
    """
    own = [outputs[position] for position in spec.outputs]
    if spec.layout == "postprocess":
        boxes, classes, scores, count = own
        return postprocessed(boxes, classes, scores, count, mapping, (), score=score, limit=limit)
    if spec.layout == "joined":
        boxes, scores = joined_entries(
            own[0], transposed=spec.transposed, objectness=spec.objectness, activation=spec.activation
        )
    else:
        boxes, scores = own[0], activated(own[1][0], spec.activation)
    corners = box_corners(boxes, spec.boxes, size if spec.units == "pixel" else None)
    return detect(corners, scores, mapping, (), background=spec.background, score=score, iou=spec.iou, limit=limit)


def class_mask(spec: TaskSpec, outputs: Sequence[Array], mapping: FrameMapping) -> npt.NDArray[np.uint8]:
    """Return the class of each pixel of a frame, (height, width); `masks.UNSEEN` where the model saw nothing.

    Args:
        spec: A segmentation.
        outputs: All outputs of the model, as real values.
        mapping: How the frame became the input.
    """
    values = outputs[spec.output]
    if spec.layout != "classes":
        values = class_map(values, transposed=spec.transposed, activation=spec.activation)
    return segment(values, mapping, ()).mask
