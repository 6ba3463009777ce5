"""Embeddings and their similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def embed(values: NDArray[Any]) -> Floats:
    """Return a vector of length 1 in the same direction; a vector of zeros stays."""
    vector = np.asarray(values, np.float32).reshape(-1)
    length = np.float32(np.linalg.norm(vector))
    return vector if length == 0 else np.asarray(vector / length, np.float32)


def similarity(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the cosine of the angle between two embeddings: 1 for the same direction."""
    return float(np.dot(embed(a), embed(b)))
