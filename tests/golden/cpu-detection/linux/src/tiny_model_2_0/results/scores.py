"""Classes with their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """A class with its score.

    Attributes:
        label: Name of the class, its number as text where it has no name.
        index: Number of the class.
        score: Score.
    """

    label: str
    index: int
    score: float


def name_of(names: Sequence[str], index: int) -> str:
    """Return the name of a class or point, its number as text where it has none."""
    return names[index] if 0 <= index < len(names) else str(index)


def activated(scores: NDArray[Any], activation: str, axis: int = -1) -> Floats:
    """Return scores after `sigmoid`, after `softmax` along an axis, or as they are (`none`)."""
    values = np.asarray(scores, np.float32)
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-values)), np.float32)
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=axis, keepdims=True))
        return np.asarray(powers / powers.sum(axis=axis, keepdims=True), np.float32)
    return values


def classify(scores: NDArray[Any], names: Sequence[str], k: int = 5, *, activation: str = "none") -> list[Scored]:
    """Return the `k` classes with the highest scores, best first; of equal scores the lower class number."""
    values = activated(np.asarray(scores).reshape(-1), activation)
    order = np.argsort(-values.astype(np.float64), kind="stable")[:k]
    return [Scored(name_of(names, int(i)), int(i), float(values[i])) for i in order]
