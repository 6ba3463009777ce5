"""Inputs that accept images: those whose shape and preprocessing say how pixels become values."""

import math
from dataclasses import dataclass
from typing import Any

from edgepack.bundle.spec import BundleSpec
from edgepack.choices import Resize

#: Types that can store real values.
_REAL = frozenset({"FLOAT32", "INT8", "UINT8", "INT16"})


@dataclass(frozen=True)
class ImageView:
    """An input that accepts images: value = (pixel - mean) / std, pixel in 0..255.

    Attributes:
        index: Position among the inputs.
        height: In pixels.
        width: In pixels.
        mean: One per channel: red, green, blue, or grey alone.
        std: The same.
        fit: How an image gets the input's size: `stretch`, `letterbox` or `center-crop`.
    """

    index: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str = "stretch"


def image_views(spec: BundleSpec) -> tuple[ImageView, ...]:
    """Return the inputs of shape [1, height, width, 1 or 3] whose preprocessing is known."""
    views = []
    for index, tensor in enumerate(spec.inputs):
        preprocessing = tensor.preprocessing or {}
        real = tensor.quantized or tensor.dtype == "FLOAT32"
        if len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[3] not in {1, 3} or not real:
            continue
        mean, std = (_per_channel(preprocessing.get(key), tensor.shape[3]) for key in ("mean", "std"))
        if tensor.dtype in _REAL and mean and std and all(std):
            fit = Resize(preprocessing.get("resize", Resize.STRETCH))
            views.append(ImageView(index, tensor.shape[1], tensor.shape[2], mean, std, str(fit)))
    return tuple(views)


def _per_channel(value: Any, channels: int) -> tuple[float, ...]:
    """Return a number, or a list of numbers, as one number per channel; empty when the value is neither."""
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if any(isinstance(n, bool) or not isinstance(n, int | float) or not math.isfinite(n) for n in numbers):
        return ()
    if len(numbers) not in {1, channels}:
        return ()
    return tuple(float(number) for number in (numbers if len(numbers) == channels else numbers * channels))
