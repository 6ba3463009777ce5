"""What a frame becomes as a model's input, with NumPy and Pillow: the reference of the loaders' conversions."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

MEAN = np.array([123.7, 116.3, 103.5], np.float32)
STD = np.array([58.4, 57.1, 57.4], np.float32)


@dataclass(frozen=True)
class Input:
    """An input that accepts images.

    Attributes:
        width: In pixels.
        height: In pixels.
        channels: 1 or 3.
        dtype: TFLite type.
        scale: Of quantized values.
        zero_point: Of quantized values.
        fit: `stretch`, `letterbox` or `center-crop`.
    """

    width: int = 16
    height: int = 12
    channels: int = 3
    dtype: str = "UINT8"
    scale: float = 0.0187
    zero_point: int = 114
    fit: str = "stretch"


@dataclass(frozen=True)
class Case:
    """A frame and the input that it becomes.

    Attributes:
        format: `yuv`, `image`, `nv21`, `nv12`, `rgba`, `rgba-image`, or the configuration of a Bitmap.
        width: In pixels.
        height: In pixels.
        stride: Bytes of a row of Y or RGBA, 0 for no gap.
        uv_stride: Bytes of a row of U and V, 0 for no gap.
        uv_pixel: Bytes from one U to the next.
        crop: left, top, right, bottom; None for the whole frame.
        rotation: Degrees clockwise.
        mirror: True for a mirrored frame.
        input: The input.
    """

    format: str = "yuv"
    width: int = 64
    height: int = 48
    stride: int = 0
    uv_stride: int = 0
    uv_pixel: int = 1
    crop: tuple[int, int, int, int] | None = None
    rotation: int = 0
    mirror: bool = False
    input: Input = Input()

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The crop, or the whole frame."""
        return self.crop or (0, 0, self.width, self.height)

    @property
    def is_yuv(self) -> bool:
        """True for a frame of Y, U and V."""
        return self.format in {"yuv", "image", "nv21", "nv12"}

    def words(self) -> str:
        """Return the case as a line for `FrameCases.java`, without its number."""
        columns = (self.width + 1) // 2
        stride = self.stride or self.width * (1 if self.is_yuv else 4)
        place = self.input
        return " ".join(map(str, [
            self.format, self.width, self.height, stride, self.uv_stride or columns * self.uv_pixel, self.uv_pixel,
            *self.box, self.rotation, int(self.mirror), place.width, place.height, place.channels, place.dtype,
            place.scale, place.zero_point, place.fit,
        ]))  # fmt: skip


def scene(width: int, height: int, seed: int = 5) -> Pixels:
    """Return a picture with edges, a gradient and noise, red, green and blue."""
    generator = np.random.default_rng(seed)
    down, across = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(across / 3 + down / 7), np.cos(across / 5), np.sin(down / 2)], -1)
    ramp = (across + down)[..., None] / max(width + height - 2, 1)
    return np.clip(255 * ramp + 60 * waves + generator.normal(0, 30, (height, width, 3)), 0, 255).astype(np.uint8)


def planes_of(case: Case, seed: int = 5) -> list[Pixels]:
    """Return the values of the frame: Y, U and V, or red, green, blue and alpha together."""
    if not case.is_yuv:
        alpha = np.full((case.height, case.width, 1), 255, np.uint8)
        return [np.concatenate([scene(case.width, case.height, seed), alpha], axis=2)]
    columns, rows = (case.width + 1) // 2, (case.height + 1) // 2
    luma = scene(case.width, case.height, seed)[..., 0]
    # Wider than the colors of real pictures, so that many results leave 0..255 and are clipped.
    chroma = scene(columns, rows, seed + 1)
    return [luma, chroma[..., 1], chroma[..., 2]]


def memory_of(case: Case, planes: list[Pixels]) -> list[bytes]:
    """Return the frame's buffers; gaps have values that would be noticed, and the last row ends with its last value."""
    if case.format in {"nv21", "nv12"}:
        pair = planes[1:] if case.format == "nv12" else planes[:0:-1]
        return [planes[0].tobytes() + np.stack(pair, axis=-1).tobytes()]
    first = planes[0].reshape(case.height, -1)
    buffers = [_with_gaps(first, case.stride or first.shape[1], 1)]
    for plane in planes[1:]:
        buffers.append(_with_gaps(plane, case.uv_stride or plane.shape[1] * case.uv_pixel, case.uv_pixel))
    return buffers


def _with_gaps(plane: Pixels, row_stride: int, pixel_stride: int) -> bytes:
    rows, columns = plane.shape
    spread = np.full((rows, row_stride), 77, np.uint8)
    spread[:, : columns * pixel_stride : pixel_stride] = plane
    return spread.tobytes()[: (rows - 1) * row_stride + (columns - 1) * pixel_stride + 1]


def reference(case: Case, planes: list[Pixels]) -> NDArray[np.generic]:
    """Return the input as the loader must write it."""
    pixels = resized(case, planes)
    turned = np.rot90(pixels, -case.rotation // 90)
    if case.mirror:
        turned = turned[:, ::-1]
    place = case.input
    whole = np.zeros((place.height, place.width, place.channels), np.uint8)
    top, left = (place.height - turned.shape[0]) // 2, (place.width - turned.shape[1]) // 2
    whole[top : top + turned.shape[0], left : left + turned.shape[1]] = turned
    values = (whole.astype(np.float32) - MEAN[: place.channels]) / STD[: place.channels]
    if place.dtype == "FLOAT32":
        return values
    limits = np.iinfo(place.dtype.lower())
    steps = np.rint(values * (np.float32(1) / np.float32(place.scale)))
    return np.clip(steps.astype(np.int64) + place.zero_point, limits.min, limits.max).astype(limits.dtype)


def resized(case: Case, planes: list[Pixels]) -> Pixels:
    """Return the part of the frame that the input shows, as it lies in memory, with the size that it has there."""
    place = case.input
    left, top, right, bottom = case.box
    size = (place.width, place.height) if case.rotation % 180 == 0 else (place.height, place.width)
    wide, high = right - left, bottom - top
    box = (0.0, 0.0, float(wide), float(high))
    if place.fit == "letterbox":
        ratio = min(size[0] / wide, size[1] / high)
        size = max(round(wide * ratio), 1), max(round(high * ratio), 1)
    if place.fit == "center-crop":
        ratio = min(wide / size[0], high / size[1])
        kept = size[0] * ratio, size[1] * ratio
        box = ((wide - kept[0]) / 2, (high - kept[1]) / 2, (wide + kept[0]) / 2, (high + kept[1]) / 2)

    def resize(plane: Pixels, every: int) -> Pixels:
        part = plane[top // every : -(-bottom // every), left // every : -(-right // every)]
        shift = (left % every / every, top % every / every) * 2
        inside = tuple(float(np.float32(edge / every + more)) for edge, more in zip(box, shift, strict=True))
        image = Image.fromarray(np.ascontiguousarray(part))
        if every == 1 and part.ndim == 3 and place.channels == 1:
            image = image.convert("L")
        # Along the rows first: where an image is much higher than wide, Pillow 13 begins with the columns, which rounds
        # some results the other way.
        bilinear, (first, above, last, below) = Image.Resampling.BILINEAR, inside
        image = image.resize((size[0], image.height), bilinear, box=(first, 0, last, image.height))
        return np.asarray(image.resize(size, bilinear, box=(0, above, size[0], below)))

    if not case.is_yuv:
        return resize(planes[0][..., :3], 1).reshape(size[1], size[0], place.channels)
    if place.channels == 1:
        return resize(planes[0], 1)[..., None]
    return to_rgb(resize(planes[0], 1), resize(planes[1], 2), resize(planes[2], 2))


def to_rgb(luma: Pixels, u: Pixels, v: Pixels) -> Pixels:
    """Convert as JFIF 1.02 defines it (ITU-R BT.601, all 256 values), in 16 bits, rounded."""
    y, blue, red = luma.astype(np.int64), u.astype(np.int64) - 128, v.astype(np.int64) - 128
    colors = [
        y + ((91881 * red + 32768) >> 16),
        y + ((32768 - 22554 * blue - 46802 * red) >> 16),
        y + ((116130 * blue + 32768) >> 16),
    ]
    return np.clip(np.stack(colors, axis=-1), 0, 255).astype(np.uint8)


def with_input(case: Case, **changes: object) -> Case:
    """Return the case with another input."""
    return replace(case, input=replace(case.input, **changes))
