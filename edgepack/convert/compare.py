"""Comparison of a converted file with its original: outputs on the same inputs, and the number of weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Model

Array = npt.NDArray[Any]

#: Largest difference of an output, relative to its largest absolute value, that is accepted as equal.
TOLERANCE = 1e-4

#: Largest values of pixels and of 16-bit sound, for models that scale these themselves.
WIDE_MAGNITUDES = (255.0, 32768.0)

#: Fraction of the original's weights that the file must contain. Below 1 because the converter fuses batch
#: normalization and folds constants; a file that lost its variables contains almost none.
_WEIGHTS_SHARE = 0.5


def probe_inputs(shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str], magnitude: float = 1.0) -> list[list[Array]]:
    """Return deterministic pseudo-random inputs for the comparison.

    Floats are uniform in [0, magnitude), like images, and in [-magnitude, magnitude); integers are 0 or 1, valid
    indices of any table.

    Args:
        shapes: Static shape of each input.
        dtypes: NumPy name of each input's type.
        magnitude: Largest value of floats.

    Returns:
        Two sets of inputs, one array per input each.
    """
    random = np.random.default_rng(7)
    sets = []
    for low in (0.0, -1.0):
        arrays = []
        for shape, dtype in zip(shapes, dtypes, strict=True):
            if np.issubdtype(np.dtype(dtype), np.floating):
                arrays.append((magnitude * random.uniform(low, 1.0, shape)).astype(dtype))
            else:
                arrays.append(random.integers(0, 2, shape).astype(dtype))
        sets.append(arrays)
    return sets


def relative_difference(expected: Sequence[Array], actual: Sequence[Array]) -> float:
    """Return the largest difference of any output, divided by that output's largest absolute value.

    NaN and infinite values count as equal when both sides have the same one in the same place, else as infinitely
    different.

    Args:
        expected: The original's outputs.
        actual: The converted model's outputs, of the same shapes.

    Returns:
        0.0 for equal outputs, infinity when a shape or a NaN differs.
    """
    worst = 0.0
    for reference, output in zip(expected, actual, strict=True):
        if reference.shape != output.shape:
            return float("inf")
        a, b = reference.astype(np.float64), output.astype(np.float64)
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return float("inf")
        if not finite.any():
            continue
        difference = float(np.abs(a[finite] - b[finite]).max())
        scale = float(np.abs(a[finite]).max())
        # An output of zeros has no scale: its difference is absolute.
        worst = max(worst, difference / scale if scale > 0 else difference)
    return worst


def largest_difference(
    expected: Sequence[Sequence[Array]],
    converted: Callable[[Sequence[Array]], list[Array]],
    inputs: Sequence[Sequence[Array]],
) -> float:
    """Return the largest `relative_difference` over several inputs.

    Args:
        expected: The original's outputs for each of the inputs.
        converted: Runs the other model.
        inputs: Arrays of each run.
    """
    pairs = zip(expected, inputs, strict=True)
    return max((relative_difference(outputs, converted(arrays)) for outputs, arrays in pairs), default=0.0)


def outputs_vary(outputs: Sequence[Sequence[Array]]) -> bool:
    """Return whether outputs depend on the inputs, so that a comparison can detect a wrong conversion.

    The softmax of an untrained network gives the same probabilities for every input, and any conversion agrees with it.

    Args:
        outputs: The original's outputs for each of several inputs.
    """
    first, *others = outputs
    return any(relative_difference(first, other) > 10 * TOLERANCE for other in others)


def missing_weights(model: Model, variables: Mapping[str, tuple[int, ...]]) -> str:
    """Return a sentence about the weights that a file lacks, empty when it has them.

    Only variables with two or more dimensions count: the vectors of batch normalization are fused into them.

    Args:
        model: The converted file.
        variables: Shape of each variable that the converted function reads.
    """
    expected = sum(int(np.prod(shape)) for shape in variables.values() if len(shape) >= 2)
    sizes = {t.buffer: t.elements for graph in model.graphs for t in graph.tensors if t.is_constant and t.is_float}
    count = sum(sizes.values())
    if count >= _WEIGHTS_SHARE * expected:
        return ""
    return f"the file has {count} weights, the original has {expected}"
