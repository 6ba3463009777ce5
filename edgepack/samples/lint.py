"""Known mistakes in representative data, said before they cost accuracy."""

import hashlib

import numpy as np

from edgepack.samples.source import SampleSet

#: Below this many samples ranges are guesses; TensorFlow's guide asks for 100 to 500.
FEW_SAMPLES = 20
_LOOKED_AT = 500


def lint(samples: SampleSet, other: SampleSet | None = None) -> list[str]:
    """Return one sentence for each suspicious thing about calibration samples.

    Args:
        samples: The calibration samples.
        other: Evaluation samples of the same model; ranges that differ by much mean two different normalisations.
    """
    warnings: list[str] = []
    count = min(len(samples), _LOOKED_AT)
    if len(samples) < FEW_SAMPLES:
        warnings.append(
            f"only {len(samples)} samples in '{samples.source}': ranges need about 100 that look like real use"
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
        warnings.append(f"all {count} samples of '{samples.source}' looked at are the same")
    elif len(hashes) < count * 0.9:
        warnings.append(f"{count - len(hashes)} of {count} samples of '{samples.source}' looked at are repeats")
    for name, (low, high) in limits.items():
        if low == high:
            warnings.append(f"'{name}' has the constant value {low:g} in '{samples.source}'")
        elif samples.dtypes[name].kind == "f" and 100 < high <= 255 and low >= 0:
            warnings.append(
                f"'{name}' of '{samples.source}' runs over {low:g} to {high:g}, like pixels that were not normalised; "
                "right only if the model does it itself"
            )
    if other is not None:
        warnings.extend(_compare(limits, samples, other))
    return warnings


def _compare(limits: dict[str, tuple[float, float]], samples: SampleSet, other: SampleSet) -> list[str]:
    """Return warnings about inputs whose largest magnitude differs tenfold between two sets."""
    found = []
    for name, (low, high) in limits.items():
        values = [other.sample(i)[name] for i in range(min(len(other), 50))]
        theirs = max(float(np.abs(v).max()) for v in values)
        ours = max(abs(low), abs(high))
        if min(ours, theirs) > 0 and not 0.1 < ours / theirs < 10:
            found.append(
                f"'{name}' reaches {ours:g} in '{samples.source}' but {theirs:g} in '{other.source}': "
                "one of them looks normalised twice or not at all"
            )
    return found
