"""Images in the size of a model's input."""

from __future__ import annotations

from typing import Any


def fitted(image: Any, width: int, height: int, fit: str) -> Any:
    """Return an image of Pillow in the size of an input, by a bilinear filter that takes every pixel into account.

    Args:
        image: The image.
        width: Width of the input.
        height: Its height.
        fit: `stretch`; `letterbox`, in black borders, of an odd number of border pixels one more on the right or below;
            or `center-crop`, the largest part in the middle that has the input's aspect ratio, to fractions of a pixel.
    """
    from PIL import Image

    bilinear = Image.Resampling.BILINEAR
    if fit == "letterbox":
        ratio = min(width / image.width, height / image.height)
        inner = max(round(image.width * ratio), 1), max(round(image.height * ratio), 1)
        whole = Image.new(image.mode, (width, height))
        whole.paste(image.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return whole
    if fit == "center-crop":
        ratio = min(image.width / width, image.height / height)
        left, top = (image.width - width * ratio) / 2, (image.height - height * ratio) / 2
        # Rounding may exceed the image by the last bit, which Pillow refuses.
        right, bottom = min(left + width * ratio, image.width), min(top + height * ratio, image.height)
        return image.resize((width, height), bilinear, box=(left, top, right, bottom))
    return image.resize((width, height), bilinear)
