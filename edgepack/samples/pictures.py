"""Samples as small pictures: the pixels that a model gets, as PNG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.samples.source import Preprocess, SampleSet

Array = npt.NDArray[Any]

#: Longest side of a picture in pixels: larger ones are reduced. Without compression a picture has at most 27,648 bytes.
LONGEST_SIDE = 96
#: Smallest side of an input that is drawn: a vector of a few values shows nothing.
_SHORTEST_SIDE = 4
#: Ranges of values that pixels usually have, with their conversion, by what people call them.
_RANGES = (("0..1", 0.0, 1.0), ("-1..1", -1.0, 1.0), ("0..255", 0.0, 255.0))
#: Distance from a range, as a share of its width, that rounding and resizing explain.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Picture:
    """One sample.

    Attributes:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        png: The file.
    """

    width: int
    height: int
    png: bytes


@dataclass(frozen=True)
class Pictures:
    """Samples of one set.

    Attributes:
        input: Name of the input that is drawn.
        shape: (height, width) of the input in pixels.
        pixels: How values became pixels, a phrase.
        pictures: One for each sample asked for, in that order.
    """

    input: str
    shape: tuple[int, int]
    pixels: str
    pictures: tuple[Picture, ...]


def picture_input(samples: SampleSet) -> str | None:
    """Return the only input of shape [1, height, width, 1 or 3] or [1, height, width], None without one."""
    names = [name for name, shape in samples.shapes.items() if _is_picture(shape)]
    return names[0] if len(names) == 1 else None


def draw_samples(samples: SampleSet, indices: Sequence[int], preprocess: Preprocess | None) -> Pictures | None:
    """Return samples as pictures, None when no input holds one.

    Args:
        samples: The samples.
        indices: Which of them.
        preprocess: Normalization of the values, where it is known; it is inverted. Without it the usual ranges of
            pixels are tried, and else the smallest value of a sample becomes black and the largest white.

    Raises:
        SamplesError: A sample cannot be read.
    """
    name = picture_input(samples)
    if name is None or not indices:
        return None
    values = [_plane(samples.sample(index)[name]) for index in indices]
    known = samples.preprocess if samples.images else preprocess
    if samples.images and samples.dtypes[name].kind != "f":
        known = Preprocess((0.0,), (1.0,))
    pixels, drawn = _to_pixels(values, known)
    height, width = values[0].shape[:2]
    return Pictures(name, (height, width), pixels, tuple(_picture(array) for array in drawn))


def _is_picture(shape: tuple[int, ...]) -> bool:
    flat = len(shape) == 3
    return (flat or (len(shape) == 4 and shape[3] in {1, 3})) and shape[0] == 1 and min(shape[1:3]) >= _SHORTEST_SIDE


def _plane(values: Array) -> npt.NDArray[np.float64]:
    """Return values of shape (1, height, width[, channels]) as (height, width[, 3]); what is not finite is black."""
    plane = np.asarray(values, np.float64)[0]
    flat = plane[..., 0] if plane.ndim == 3 and plane.shape[2] == 1 else plane
    return np.asarray(np.nan_to_num(flat, posinf=0.0, neginf=0.0), np.float64)


def _to_pixels(
    values: Sequence[npt.NDArray[np.float64]], preprocess: Preprocess | None
) -> tuple[str, list[npt.NDArray[np.uint8]]]:
    """Return how values become pixels, and the pixels."""
    if preprocess is not None:
        mean, std = (np.asarray(numbers, np.float64) for numbers in (preprocess.mean, preprocess.std))
        pixels = [array * std + mean for array in values]
        if all(_within(array, 0.0, 255.0) for array in pixels):
            return "the normalization is undone", [_bytes(array) for array in pixels]
    for text, low, high in _RANGES:
        if all(_within(array, low, high) for array in values):
            return f"values {text} are drawn from black to white", [
                _bytes((array - low) / (high - low) * 255.0) for array in values
            ]
    return "each from its smallest value, black, to its largest, white", [_bytes(_stretched(array)) for array in values]


def _within(values: npt.NDArray[np.float64], low: float, high: float) -> bool:
    margin = _TOLERANCE * (high - low)
    return bool(values.min() >= low - margin and values.max() <= high + margin)


def _stretched(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) * 255.0 if high > low else np.zeros_like(values)


def _bytes(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _picture(pixels: npt.NDArray[np.uint8]) -> Picture:
    """Return pixels as a PNG whose longest side is at most `LONGEST_SIDE`."""
    from PIL import Image

    image = Image.fromarray(pixels)
    longest = max(image.size)
    if longest > LONGEST_SIDE:
        width, height = (max(1, round(side * LONGEST_SIDE / longest)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return Picture(image.width, image.height, stream.getvalue())
