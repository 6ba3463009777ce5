"""Checks of representative data for common mistakes that cost accuracy."""

import hashlib

import numpy as np

from edgepack.samples.source import SampleSet

#: Fewer samples give unreliable ranges; TensorFlow's guide recommends 100 to 500.
FEW_SAMPLES = 20

#: Most samples that are read for the checks.
_CHECKED = 500

#: Most evaluation samples that are read to compare magnitudes.
_COMPARED = 50


def lint(samples: SampleSet, other: SampleSet | None = None, *, scales_itself: bool = False) -> list[str]:
    """Return one warning for each likely mistake in calibration samples.

    Args:
        samples: The calibration samples.
        other: Evaluation samples of the same model; a tenfold difference in magnitude suggests two normalizations.
        scales_itself: True when the model's first ops scale its input, so that unscaled pixels are right.
    """
    warnings: list[str] = []
    count = min(len(samples), _CHECKED)
    if len(samples) < FEW_SAMPLES:
        warnings.append(
            f"only {len(samples)} samples in '{samples.source}': calibration needs about 100 typical of real use"
        )
    limits: dict[str, tuple[float, float]] = {}
    hashes: set[bytes] = set()
    for position in range(count):
        sample = samples.sample(position)
        digest = hashlib.sha256()
        for name, array in sample.items():
            digest.update(array.tobytes())
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                warnings.append(f"sample {position} of '{samples.source}' has NaN or infinity in '{name}'")
                return warnings
            low, high = limits.get(name, (np.inf, -np.inf))
            limits[name] = (min(low, float(array.min())), max(high, float(array.max())))
        hashes.add(digest.digest())
    if count > 1 and len(hashes) == 1:
        warnings.append(f"all {count} checked samples of '{samples.source}' are the same")
    elif len(hashes) < count * 0.9:
        warnings.append(f"{count - len(hashes)} of {count} checked samples of '{samples.source}' are repeats")
    for name, (low, high) in limits.items():
        if low == high:
            warnings.append(f"'{name}' has the constant value {low:g} in '{samples.source}'")
        elif not scales_itself and samples.dtypes[name].kind == "f" and 100 < high <= 255 and low >= 0:
            warnings.append(
                f"'{name}' of '{samples.source}' ranges from {low:g} to {high:g}, like unnormalized pixels; "
                "correct only if the model normalizes them itself"
            )
    if other is not None:
        warnings.extend(_compare(limits, samples, other))
    return warnings


def _compare(limits: dict[str, tuple[float, float]], samples: SampleSet, other: SampleSet) -> list[str]:
    """Return warnings about inputs whose largest magnitude differs tenfold between two sets."""
    warnings = []
    for name, (low, high) in limits.items():
        values = [other.sample(i)[name] for i in range(min(len(other), _COMPARED))]
        other_magnitude = max(float(np.abs(v).max()) for v in values)
        magnitude = max(abs(low), abs(high))
        if min(magnitude, other_magnitude) > 0 and not 0.1 < magnitude / other_magnitude < 10:
            warnings.append(
                f"'{name}' reaches {magnitude:g} in '{samples.source}' but {other_magnitude:g} in '{other.source}': "
                "one of them is probably normalized twice or not at all"
            )
    return warnings
