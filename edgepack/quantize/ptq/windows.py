"""Windows of convolutions and pools: the taps of a kernel as views, and as rows of a matrix."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.graph import Op
from edgepack.graph.op_layout import dilated_size, padding_amounts
from edgepack.quantize.ptq.layers import Floats


@dataclass(frozen=True)
class Windows:
    """How a kernel lies on a batch of pictures (n, height, width, channels).

    Attributes:
        padded: The pictures with their padding of zeros.
        window: Kernel height and width.
        steps: Strides.
        spread: Dilations.
        out: Shape of the result without channels: (n, rows, columns).
        pads: Padding before, by axis.
        inner: Height and width of the pictures.
    """

    padded: Floats
    window: tuple[int, int]
    steps: tuple[int, int]
    spread: tuple[int, int]
    out: tuple[int, int, int]
    pads: tuple[int, int]
    inner: tuple[int, int]

    def views(self, padded: Floats) -> Iterator[tuple[int, int, Any]]:
        """Yield (row, column, view) of each tap of the kernel on an array shaped as `padded`."""
        for i in range(self.window[0]):
            for j in range(self.window[1]):
                at = [slice(p * d, p * d + (n - 1) * s + 1, s)
                      for p, d, n, s in zip((i, j), self.spread, self.out[1:], self.steps, strict=True)]  # fmt: skip
                yield i, j, padded[:, at[0], at[1]]

    def cropped(self, padded: Floats) -> Floats:
        """Return an array shaped as `padded` without the padding."""
        (top, left), (height, width) = self.pads, self.inner
        return padded[:, top : top + height, left : left + width]


def windows(op: Op, x: Floats, window: tuple[int, int]) -> Windows:
    """Return how an op's kernel lies on its input.

    Args:
        op: CONV_2D, DEPTHWISE_CONV_2D or a pool.
        x: (n, height, width, channels).
        window: Kernel height and width.
    """
    steps = (int(op.options["stride_h"]), int(op.options["stride_w"]))
    spread = (int(op.options.get("dilation_h", 1)), int(op.options.get("dilation_w", 1)))
    out, pads = [], []
    for size, kernel, step, wide in zip(x.shape[1:3], window, steps, spread, strict=True):
        reach = dilated_size(kernel, wide)
        pads.append(padding_amounts(op.options["padding"], size, reach, step))
        out.append((size + sum(pads[-1]) - reach) // step + 1)
    padded = np.pad(x, ((0, 0), *pads, (0, 0))) if any(sum(p) for p in pads) else x
    return Windows(
        padded, (int(window[0]), int(window[1])), steps, spread, (len(x), out[0], out[1]),
        (pads[0][0], pads[1][0]), (x.shape[1], x.shape[2]),
    )  # fmt: skip


def into_rows(place: Windows) -> Floats:
    """Return what a kernel is multiplied with: (positions, height * width * channels)."""
    channels = place.padded.shape[3]
    if place.window == (1, 1):
        ((_, _, only),) = place.views(place.padded)
        return np.ascontiguousarray(only).reshape(-1, channels)
    rows = np.empty((*place.out, *place.window, channels), np.float32)
    for i, j, tap in place.views(place.padded):
        rows[:, :, :, i, j] = tap
    return rows.reshape(-1, place.window[0] * place.window[1] * channels)


def from_rows(place: Windows, rows: Floats) -> Floats:
    """Add rows back into the pictures they came from: the transpose of `into_rows`."""
    back = np.zeros_like(place.padded)
    split = rows.reshape(*place.out, *place.window, -1)
    for i, j, tap in place.views(back):
        tap += split[:, :, :, i, j]
    return place.cropped(back)
