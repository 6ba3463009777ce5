"""Pictures as input values, made as they were when the model was built. Made by edgepack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Position of the input -> mean and std of its pixels, one for each channel: value = (pixel - mean) / std.
_PIXELS = {
    0: ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
}


def read_picture(path: Path, position: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a picture as real values of an input: stretched to its size, red, green and blue or grey.

    Args:
        path: Any format that Pillow reads.
        position: Position of the input.
        shape: Its shape, (1, height, width, channels).

    Raises:
        ValueError: The input takes no pictures, or the file is none.
        ImportError: Pillow is not installed.
    """
    if position not in _PIXELS:
        raise ValueError(f"{path}: this input takes .npy files, no pictures")
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading pictures needs Pillow: pip install tiny-model-2-0[image]") from error
    _, height, width, channels = shape
    try:
        with Image.open(path) as opened:
            picture = opened.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: no picture that can be read: {type(error).__name__}") from error
    mean, std = (np.asarray(values, np.float32) for values in _PIXELS[position])
    return (np.asarray(picture, np.float32).reshape(shape) - mean) / std
