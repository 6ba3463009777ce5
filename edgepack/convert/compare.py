"""Holds a converted file against the model it came from: outputs on the same inputs, and the weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Model

Array = npt.NDArray[Any]

#: Largest difference of an output, relative to its largest absolute value, that counts as equal.
TOLERANCE = 1e-4

#: Part of the original's weights that has to be in the file. Below 1 because the converter fuses batch norm and folds
#: constants; a file that lost its variables has next to nothing.
_WEIGHTS_SHARE = 0.5


def probe_inputs(shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> list[list[Array]]:
    """Return deterministic pseudo-random inputs for the check.

    Floats are drawn from [0, 1), as images are, and from [-1, 1); integers are 0 or 1, valid as indices of any table.

    Args:
        shapes: Static shape of each input.
        dtypes: NumPy name of each input's type.

    Returns:
        Two sets of inputs, one array per input each.
    """
    random = np.random.default_rng(7)
    sets = []
    for low in (0.0, -1.0):
        arrays = []
        for shape, dtype in zip(shapes, dtypes, strict=True):
            if np.issubdtype(np.dtype(dtype), np.floating):
                arrays.append(random.uniform(low, 1.0, shape).astype(dtype))
            else:
                arrays.append(random.integers(0, 2, shape).astype(dtype))
        sets.append(arrays)
    return sets


def relative_difference(expected: Sequence[Array], got: Sequence[Array]) -> float:
    """Return the largest difference of any output, divided by that output's largest absolute value.

    Values that are not numbers count as equal when both sides have them in the same place, else as infinitely
    different.

    Args:
        expected: The original's outputs.
        got: The converted model's, the same shapes.

    Returns:
        0.0 for equal outputs, infinity when a shape or a NaN differs.
    """
    worst = 0.0
    for one, other in zip(expected, got, strict=True):
        if one.shape != other.shape:
            return float("inf")
        a, b = one.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return float("inf")
        if not finite.any():
            continue
        difference = float(np.abs(a[finite] - b[finite]).max())
        scale = float(np.abs(a[finite]).max())
        # An output of zeros has no scale: any difference is then absolute.
        worst = max(worst, difference / scale if scale > 0 else difference)
    return worst


def largest_difference(
    original: Callable[[Sequence[Array]], list[Array]],
    converted: Callable[[Sequence[Array]], list[Array]],
    inputs: Sequence[Sequence[Array]],
) -> float:
    """Return the largest `relative_difference` over several inputs."""
    return max((relative_difference(original(arrays), converted(arrays)) for arrays in inputs), default=0.0)


def is_telling(original: Callable[[Sequence[Array]], list[Array]], inputs: Sequence[Sequence[Array]]) -> bool:
    """True when the original answers its probes differently, so that equal outputs mean something.

    An untrained network's softmax gives the same probabilities for everything, and any conversion would agree with it.
    """
    first, *others = (original(arrays) for arrays in inputs)
    return any(relative_difference(first, other) > 10 * TOLERANCE for other in others)


def missing_weights(model: Model, variables: Mapping[str, tuple[int, ...]]) -> str:
    """Return how many weights are missing from a file, empty when it holds them.

    Only variables with two and more dimensions count: the vectors of batch norm are fused into them.

    Args:
        model: The converted file.
        variables: Shape of each variable the converted function reads.
    """
    expected = sum(int(np.prod(shape)) for shape in variables.values() if len(shape) >= 2)
    held = {t.buffer: t.elements for graph in model.graphs for t in graph.tensors if t.is_constant and t.is_float}
    found = sum(held.values())
    if found >= _WEIGHTS_SHARE * expected:
        return ""
    return f"it holds {found} weights, the original has {expected}"
