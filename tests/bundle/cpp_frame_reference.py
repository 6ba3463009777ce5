"""Frames as an image input gets them, by NumPy and Pillow: the reference of the loaders' own conversions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXELS = ("rgb", "bgr", "rgba", "bgra", "grey", "nv12", "nv21", "i420")
FITS = ("stretch", "letterbox", "center-crop")
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """A frame of random pixels in a buffer with padding.

    Attributes:
        pixels: Format, one of PIXELS.
        width: Of the buffer, in pixels.
        height: The same.
        planes: Bytes of each plane: the last row has no padding.
        strides: Bytes from one row of a plane to the next.
        crop: left, top, width, height.
        rotation: Degrees clockwise.
        mirror: From left to right, after the rotation.
        fit: One of FITS.
    """

    pixels: str
    width: int
    height: int
    planes: tuple[Pixels, ...]
    strides: tuple[int, ...]
    crop: tuple[int, int, int, int]
    rotation: int
    mirror: bool
    fit: str


def plane_sizes(pixels: str, width: int, height: int) -> list[tuple[int, int]]:
    """Return rows and bytes per row of each plane."""
    packed = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
    half = (width + 1) // 2, (height + 1) // 2
    sizes = [(height, width * packed.get(pixels, 1))]
    if pixels in {"nv12", "nv21"}:
        sizes.append((half[1], half[0] * 2))
    if pixels == "i420":
        sizes += [(half[1], half[0])] * 2
    return sizes


def random_frame(
    generator: np.random.Generator, pixels: str, rotation: int, mirror: bool, fit: str, most: int
) -> Frame:
    """Return a frame of a random size of at most `most` pixels, with a random crop rectangle, strides and contents."""
    width, height = (int(generator.integers(1, most, endpoint=True)) for _ in range(2))
    planes, strides = [], []
    for rows, least in plane_sizes(pixels, width, height):
        strides.append(least + int(generator.integers(0, 9)))
        planes.append(generator.integers(0, 256, (rows - 1) * strides[-1] + least, np.uint8))
    inner = [int(generator.integers(1, size, endpoint=True)) for size in (width, height)]
    corner = [
        int(generator.integers(0, size - part, endpoint=True))
        for size, part in zip((width, height), inner, strict=True)
    ]
    crop = (0, 0, width, height) if generator.random() < 0.4 else (*corner, *inner)
    return Frame(pixels, width, height, tuple(planes), tuple(strides), crop, rotation, mirror, fit)


def upright(frame: Frame) -> Pixels:
    """Return the frame as (height, width, 3) in red, green and blue, cropped, rotated and mirrored."""
    rows = []
    sizes = plane_sizes(frame.pixels, frame.width, frame.height)
    for (count, least), data, stride in zip(sizes, frame.planes, frame.strides, strict=True):
        padded = np.concatenate([data, np.zeros(stride - least, np.uint8)]).reshape(count, stride)
        rows.append(padded[:, :least])
    if frame.pixels in {"nv12", "nv21", "i420"}:
        colors = _from_yuv(frame, rows)
    else:
        channels = {"grey": 1, "rgba": 4, "bgra": 4}.get(frame.pixels, 3)
        order = {"grey": [0, 0, 0], "bgr": [2, 1, 0], "bgra": [2, 1, 0]}.get(frame.pixels, [0, 1, 2])
        colors = rows[0].reshape(frame.height, frame.width, channels)[..., order]
    left, top, width, height = frame.crop
    turned = np.rot90(colors[top : top + height, left : left + width], -frame.rotation // 90)
    return np.ascontiguousarray(turned[:, ::-1] if frame.mirror else turned)


def _from_yuv(frame: Frame, rows: list[Pixels]) -> Pixels:
    """Return colors of BT.601 in full range, as JFIF defines it."""
    if frame.pixels == "i420":
        blue, red = rows[1], rows[2]
    else:
        blue, red = rows[1][:, 0::2], rows[1][:, 1::2]
        if frame.pixels == "nv21":
            blue, red = red, blue
    luma = rows[0].astype(int)
    cb, cr = (plane.astype(int).repeat(2, 0).repeat(2, 1)[: frame.height, : frame.width] - 128 for plane in (blue, red))
    real = [luma + 1.402 * cr, luma - 0.344136286 * cb - 0.714136286 * cr, luma + 1.772 * cb]
    # In 16.16 fixed point, rounded: only sums close to a half differ from the equations.
    scaled = [91881 * cr, -22554 * cb - 46802 * cr, 116130 * cb]
    fixed = [(luma * 65536 + part + 32768) >> 16 for part in scaled]
    assert max(np.abs(one - other).max() for one, other in zip(real, fixed, strict=True)) < 0.502
    return np.clip(np.stack(fixed, -1), 0, 255).astype(np.uint8)


def fitted(frame: Frame, width: int, height: int, channels: int) -> Pixels:
    """Return the pixels of an input of this size: (height, width, channels)."""
    image: Any = Image.fromarray(upright(frame))
    if channels == 1:
        image = image.convert("L")
        if frame.pixels in {"nv12", "nv21", "i420"}:
            # Luma in full range is grey.
            whole = Frame("grey", frame.width, frame.height, frame.planes[:1], frame.strides[:1], frame.crop,
                          frame.rotation, frame.mirror, frame.fit)  # fmt: skip
            image = Image.fromarray(upright(whole)[..., 0])
    if frame.fit == "letterbox":
        ratio = min(width / image.width, height / image.height)
        inner = max(round(image.width * ratio), 1), max(round(image.height * ratio), 1)
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        pixels = np.zeros((height, width, channels), np.uint8)
        shown = _resized(image, inner, (0, 0, image.width, image.height))
        pixels[top : top + inner[1], left : left + inner[0]] = shown.reshape(*inner[::-1], channels)
        return pixels
    box: tuple[float, float, float, float] = (0, 0, image.width, image.height)
    if frame.fit == "center-crop":
        ratio = min(image.width / width, image.height / height)
        left, top = (image.width - width * ratio) / 2, (image.height - height * ratio) / 2
        box = (left, top, left + width * ratio, top + height * ratio)
    return _resized(image, (width, height), box).reshape(height, width, channels)


def _resized(image: Any, size: tuple[int, int], box: tuple[float, float, float, float]) -> Pixels:
    """Return the part of the image in the box in another size, rows before columns.

    Pillow before 13 resizes in this order; later ones begin with the columns where the height shrinks much more than
    the width, and round differently then: by one level at most.
    """
    bilinear = Image.Resampling.BILINEAR
    whole = np.asarray(image.resize(size, bilinear, box=box)).astype(int)
    columns = image.resize((size[0], image.height), bilinear, box=(box[0], 0, box[2], image.height))
    pixels = np.asarray(columns.resize(size, bilinear, box=(0, box[1], size[0], box[3])))
    assert np.abs(pixels - whole).max() <= 1
    return pixels


def originals(frame: Frame, width: int, height: int, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the positions in the buffer of points in fractions of the input's width and height, both (n, 2)."""
    left, top, crop_width, crop_height = frame.crop
    size = (crop_height, crop_width) if frame.rotation in {90, 270} else (crop_width, crop_height)
    u, v = points[:, 0] * width, points[:, 1] * height
    if frame.fit == "letterbox":
        ratio = min(width / size[0], height / size[1])
        inner = [max(round(side * ratio), 1) for side in size]
        u = (u - (width - inner[0]) // 2) / inner[0] * size[0]
        v = (v - (height - inner[1]) // 2) / inner[1] * size[1]
    elif frame.fit == "center-crop":
        ratio = min(size[0] / width, size[1] / height)
        u = u * ratio + (size[0] - width * ratio) / 2
        v = v * ratio + (size[1] - height * ratio) / 2
    else:
        u, v = u / width * size[0], v / height * size[1]
    if frame.mirror:
        u = size[0] - u
    x, y = {
        0: (u, v),
        90: (v, crop_height - u),
        180: (crop_width - u, crop_height - v),
        270: (crop_width - v, u),
    }[frame.rotation]
    return np.stack([x + left, y + top], axis=-1)
