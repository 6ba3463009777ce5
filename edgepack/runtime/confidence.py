"""Confidence intervals of measured shares: on few samples, a small loss may be chance."""

import math

#: Two-sided 95 % quantile of the normal distribution.
Z = 1.959964


def wilson_interval(count: int, samples: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share, in percent.

    Wilson's score interval (Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference").

    Args:
        count: Samples that count.
        samples: All samples, at least one.
    """
    share = count / samples
    denominator = 1.0 + Z * Z / samples
    center = (share + Z * Z / (2 * samples)) / denominator
    half = Z / denominator * math.sqrt(share * (1 - share) / samples + Z * Z / (4 * samples * samples))
    return 100.0 * max(0.0, center - half), 100.0 * min(1.0, center + half)


def paired_interval(worsened: int, improved: int, samples: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a loss of accuracy between two models on the same samples, in points.

    Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions": the Wald interval
    of the difference of two paired shares, with half a sample added to each of the four cells.

    Args:
        worsened: Samples that only the first model classifies right.
        improved: Samples that only the second model classifies right.
        samples: All samples, at least one.
    """
    count = samples + 2.0
    first, second = (worsened + 0.5) / count, (improved + 0.5) / count
    difference = first - second
    half = Z * math.sqrt(max(0.0, first + second - difference * difference) / count)
    return 100.0 * max(-1.0, difference - half), 100.0 * min(1.0, difference + half)
