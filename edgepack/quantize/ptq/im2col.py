"""im2col: the sliding windows of convolutions and pools, as one view per kernel tap and as rows of a matrix."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.graph import Op
from edgepack.graph.op_layout import dilated_size, padding_amounts
from edgepack.quantize.ptq.layers import Floats


@dataclass(frozen=True)
class SlidingWindow:
    """The geometry of a kernel that slides over a batch of images (n, height, width, channels).

    Attributes:
        padded: The images with zero padding.
        kernel: Kernel height and width.
        strides: Vertical and horizontal stride.
        dilations: Vertical and horizontal dilation.
        output_shape: Shape of the result without channels: (n, rows, columns).
        padding_before: Padding at the top and at the left.
        input_size: Height and width of the images without padding.
    """

    padded: Floats
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    output_shape: tuple[int, int, int]
    padding_before: tuple[int, int]
    input_size: tuple[int, int]

    def taps(self, padded: Floats) -> Iterator[tuple[int, int, Any]]:
        """Yield (row, column, view) of each tap of the kernel on an array shaped as `padded`."""
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                rows, columns = (
                    slice(tap * dilation, tap * dilation + (count - 1) * stride + 1, stride)
                    for tap, dilation, count, stride in zip(
                        (i, j), self.dilations, self.output_shape[1:], self.strides, strict=True
                    )
                )
                yield i, j, padded[:, rows, columns]

    def cropped(self, padded: Floats) -> Floats:
        """Return an array shaped as `padded` without the padding."""
        (top, left), (height, width) = self.padding_before, self.input_size
        return padded[:, top : top + height, left : left + width]


def sliding_window(op: Op, x: Floats, kernel: tuple[int, int]) -> SlidingWindow:
    """Return the geometry of an op's kernel on its input.

    Args:
        op: CONV_2D, DEPTHWISE_CONV_2D or a pool.
        x: (n, height, width, channels).
        kernel: Kernel height and width.
    """
    strides = (int(op.options["stride_h"]), int(op.options["stride_w"]))
    dilations = (int(op.options.get("dilation_h", 1)), int(op.options.get("dilation_w", 1)))
    counts, pads = [], []
    for size, taps, stride, dilation in zip(x.shape[1:3], kernel, strides, dilations, strict=True):
        extent = dilated_size(taps, dilation)
        pads.append(padding_amounts(op.options["padding"], size, extent, stride))
        counts.append((size + sum(pads[-1]) - extent) // stride + 1)
    padded = np.pad(x, ((0, 0), *pads, (0, 0))) if any(sum(pad) for pad in pads) else x
    return SlidingWindow(
        padded, (int(kernel[0]), int(kernel[1])), strides, dilations, (len(x), counts[0], counts[1]),
        (pads[0][0], pads[1][0]), (x.shape[1], x.shape[2]),
    )  # fmt: skip


def im2col(window: SlidingWindow) -> Floats:
    """Return the matrix that is multiplied with the kernel: (positions, height * width * channels)."""
    channels = window.padded.shape[3]
    if window.kernel == (1, 1):
        ((_, _, view),) = window.taps(window.padded)
        return np.ascontiguousarray(view).reshape(-1, channels)
    rows = np.empty((*window.output_shape, *window.kernel, channels), np.float32)
    for i, j, view in window.taps(window.padded):
        rows[:, :, :, i, j] = view
    return rows.reshape(-1, window.kernel[0] * window.kernel[1] * channels)


def col2im(window: SlidingWindow, rows: Floats) -> Floats:
    """Add rows back to the image positions that they came from: the transpose of `im2col`."""
    padded = np.zeros_like(window.padded)
    parts = rows.reshape(*window.output_shape, *window.kernel, -1)
    for i, j, view in window.taps(padded):
        view += parts[:, :, :, i, j]
    return window.cropped(padded)
