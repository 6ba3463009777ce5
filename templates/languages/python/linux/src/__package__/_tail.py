"""Last steps of a model that are done here, because the accelerator does not take them.

Made by edgepack; the same file in every Linux bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        op: `SOFTMAX` or `ARG_MAX`.
        axis: Axis it works along.
        dtype: NumPy dtype of the result.
        beta: Factor in front of SOFTMAX's logits.
    """

    op: str
    axis: int
    dtype: str
    beta: float = 1.0

    def do(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what the step makes of real values."""
        if self.op == "ARG_MAX":
            return np.asarray(np.argmax(values, axis=self.axis), self.dtype)
        scaled = values.astype(np.float64) * self.beta
        powers = np.exp(scaled - scaled.max(axis=self.axis, keepdims=True))
        return np.asarray(powers / powers.sum(axis=self.axis, keepdims=True), self.dtype)


def finish(steps: Sequence[Step], values: NDArray[Any]) -> NDArray[Any]:
    """Return what all steps, in order, make of real values."""
    for step in steps:
        values = step.do(values)
    return values
