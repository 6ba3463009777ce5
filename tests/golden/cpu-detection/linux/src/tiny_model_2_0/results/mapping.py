"""From a model's input back to the frame that it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FrameMapping:
    """How a frame became the input of a model: cropped, turned upright, mirrored, then fitted to the input's size.

    Attributes:
        left: Left edge of the crop, in pixels of the frame.
        top: Its top edge.
        width: Its width.
        height: Its height.
        rotation: Degrees clockwise that turned the crop upright: 0, 90, 180 or 270.
        mirror: True when it was then mirrored, left to right.
        scale_x: Upright fraction = input fraction * scale + offset, horizontally.
        scale_y: The same, vertically.
        offset_x: The same, horizontally.
        offset_y: The same, vertically.
    """

    left: float
    top: float
    width: float
    height: float
    rotation: int = 0
    mirror: bool = False
    scale_x: float = 1.0
    scale_y: float = 1.0
    offset_x: float = 0.0
    offset_y: float = 0.0

    def to_original(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the place in the frame, in pixels, of fractions of the input's width and height."""
        u, v = x * self.scale_x + self.offset_x, y * self.scale_y + self.offset_y
        if self.mirror:
            u = 1 - u
        if self.rotation == 90:
            u, v = v, 1 - u
        elif self.rotation == 180:
            u, v = 1 - u, 1 - v
        elif self.rotation == 270:
            u, v = 1 - v, u
        return self.left + u * self.width, self.top + v * self.height

    def to_input(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return fractions of the input's width and height of a place in the frame: the inverse of `to_original`."""
        u, v = (x - self.left) / self.width, (y - self.top) / self.height
        if self.rotation == 90:
            u, v = 1 - v, u
        elif self.rotation == 180:
            u, v = 1 - u, 1 - v
        elif self.rotation == 270:
            u, v = v, 1 - u
        if self.mirror:
            u = 1 - u
        return (u - self.offset_x) / self.scale_x, (v - self.offset_y) / self.scale_y


def frame_mapping(
    crop: tuple[int, int, int, int],
    size: tuple[int, int],
    fit: str = "stretch",
    *,
    rotation: int = 0,
    mirror: bool = False,
) -> FrameMapping:
    """Return how a frame becomes an input.

    Args:
        crop: Left, top, width and height of the part of the frame that is used, in pixels.
        size: Width and height of the input.
        fit: `stretch`, `letterbox` (centred, in borders) or `center-crop` (the middle with the input's aspect ratio).
        rotation: Degrees clockwise that turn the frame upright: 0, 90, 180 or 270.
        mirror: Mirror the upright frame.
    """
    left, top, width, height = crop
    upright = (height, width) if rotation in (90, 270) else (width, height)
    scales, offsets = [1.0, 1.0], [0.0, 0.0]
    if fit == "letterbox":
        ratio = min(size[0] / upright[0], size[1] / upright[1])
        for axis in (0, 1):
            inner = max(round(upright[axis] * ratio), 1)
            scales[axis] = size[axis] / inner
            offsets[axis] = -((size[axis] - inner) // 2) / inner
    elif fit == "center-crop":
        ratio = min(upright[0] / size[0], upright[1] / size[1])
        for axis in (0, 1):
            scales[axis] = size[axis] * ratio / upright[axis]
            offsets[axis] = (1 - scales[axis]) / 2
    return FrameMapping(left, top, width, height, rotation, mirror, *scales, *offsets)
