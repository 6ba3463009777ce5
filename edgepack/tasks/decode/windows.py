"""Windows of a stream of audio samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Windows:
    """Cuts a stream into windows of the size that a model takes, which may overlap.

    Args:
        size: Samples of a window.
        hop: Samples from the start of one window to that of the next; as many as a window has without overlap.

    Raises:
        ValueError: A number is not positive, or `hop` is larger than `size`.
    """

    def __init__(self, size: int, hop: int) -> None:
        if not 1 <= hop <= size:
            raise ValueError(f"hop: expected 1 to {size} samples, got {hop}")
        self._window: NDArray[np.float32] = np.zeros(size, np.float32)
        self._hop = hop
        self._filled = 0

    def push(self, samples: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
        """Yield each window that the samples complete; it is valid until the next one.

        Args:
            samples: Any number of samples, as real values in the model's range.
        """
        rest = np.asarray(samples, np.float32).reshape(-1)
        size = len(self._window)
        while len(rest):
            taken = min(size - self._filled, len(rest))
            self._window[self._filled : self._filled + taken] = rest[:taken]
            self._filled += taken
            rest = rest[taken:]
            if self._filled == size:
                yield self._window
                self._window[: size - self._hop] = self._window[self._hop :].copy()
                self._filled = size - self._hop

    def reset(self) -> None:
        """Forget the samples of an incomplete window."""
        self._filled = 0
