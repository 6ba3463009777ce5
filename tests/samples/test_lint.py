"""Common mistakes in representative data give warnings; good data gives none."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.samples import InputSpec, SampleSet, lint, load_samples

SPEC = InputSpec("x", (1, 16), np.dtype(np.float32))


def samples(tmp_path: Path, array: np.ndarray, name: str = "s") -> SampleSet:
    np.savez(tmp_path / f"{name}.npz", x=array)
    return load_samples(str(tmp_path / f"{name}.npz"), [SPEC])


def noise(count: int = 100) -> np.ndarray:
    return np.random.default_rng(1).random((count, 16), np.float32)


def test_sound_samples_pass(tmp_path: Path) -> None:
    """A hundred different samples give no warning."""
    assert lint(samples(tmp_path, noise())) == []


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (noise(5), "only 5 samples"),
        (np.repeat(noise(1), 50, axis=0), "are the same"),
        (np.tile(noise(25), (4, 1)), "repeats"),
        (np.ones((50, 16), np.float32), "constant value"),
        (noise() * 255, "unnormalized"),
        (np.where(noise() > 0.99, np.nan, noise()).astype(np.float32), "NaN"),
    ],
    ids=["few", "same", "repeats", "constant", "pixels", "nan"],
)
def test_mistakes_are_named(tmp_path: Path, array: np.ndarray, text: str) -> None:
    """Each mistake gives a warning that names it."""
    assert any(text in warning for warning in lint(samples(tmp_path, array)))


def test_two_normalisations_are_noticed(tmp_path: Path) -> None:
    """Calibration samples in 0..1 and evaluation samples in 0..255 give a warning about normalization."""
    warnings = lint(samples(tmp_path, noise()), samples(tmp_path, noise() * 255, "e"))
    assert any("normalized twice" in warning for warning in warnings)
