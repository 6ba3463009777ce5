"""Errors of layers are those of quantization, not of scales that the next layer undoes."""

import numpy as np
import pytest

from edgepack.runtime.layers import _Meter

RANDOM = np.random.default_rng(0)


def _snr(change, *, exact: bool) -> float:
    meter = _Meter(exact=exact)
    for _ in range(20):
        values = RANDOM.normal(size=(1, 6, 6, 4))
        meter.add(values, change(values + RANDOM.normal(scale=0.01, size=values.shape)))
    snr = meter.snr_db()
    assert snr is not None
    return snr


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_a_factor_and_an_offset_per_channel_are_no_error(offset: float) -> None:
    """An equalized or centered tensor has the SNR of its noise: 40 dB here."""
    factors = np.array([0.25, 1.0, 3.0, 8.0])
    assert _snr(lambda values: values * factors + offset, exact=False) == pytest.approx(40.0, abs=1.0)


def test_outputs_of_the_model_are_compared_as_they_are() -> None:
    """An output that is too large by half has lost its value, whatever undoes it elsewhere."""
    assert _snr(lambda values: values * 1.5, exact=True) == pytest.approx(6.0, abs=0.2)


def test_noise_is_not_explained_away() -> None:
    """Clipping and noise stay errors: with a third of the values clipped, and without any relation."""
    assert _snr(lambda values: np.minimum(values, 0.5), exact=False) < 15
    assert _snr(lambda values: RANDOM.normal(size=values.shape), exact=False) < 1


def test_equal_outputs_have_no_error() -> None:
    meter = _Meter(exact=False)
    for _ in range(3):
        values = RANDOM.normal(size=(1, 4, 4, 2))
        meter.add(values, values)
    assert meter.snr_db() is None
