"""Samples as pictures: the pixels that the model gets, small and without guessing more than the range."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepack.samples import Preprocess, SampleSet, load_samples
from edgepack.samples.pictures import LONGEST_SIDE, draw_samples
from edgepack.samples.source import InputSpec


def sample_set(values: np.ndarray) -> SampleSet:  # type: ignore[type-arg]
    return SampleSet("x", "0", {"x": values}, {"x": (1, *values.shape[1:])}, {"x": values.dtype})


def pixels(png: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize(("scale", "shift"), [(1 / 255, 0.0), (1 / 127.5, -1.0), (1.0, 0.0)])
def test_usual_ranges_become_the_pixels_again(scale: float, shift: float) -> None:
    """0..1, -1..1 and 0..255 give back the pixels that they were made from."""
    original = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3))
    original[:, 0, 0], original[:, 0, 1] = 0, 255
    drawn = draw_samples(sample_set((original * scale + shift).astype(np.float32)), [1, 0], None)
    assert drawn is not None
    assert [(picture.width, picture.height) for picture in drawn.pictures] == [(6, 8)] * 2
    assert np.array_equal(pixels(drawn.pictures[0].png), original[1])
    assert drawn.shape == (8, 6)


def test_a_known_normalization_is_undone() -> None:
    """Mean and deviation by channel; values that do not fit them are stretched, and the phrase says which."""
    original = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3))
    rule = Preprocess((123.0, 116.0, 103.0), (58.0, 57.0, 56.0))
    values = (original - np.array(rule.mean)) / np.array(rule.std)
    drawn = draw_samples(sample_set(values.astype(np.float32)), [0], rule)
    assert drawn is not None
    assert np.array_equal(pixels(drawn.pictures[0].png), original[0])
    assert drawn.pixels == "the normalization is undone"
    other = draw_samples(sample_set((values * 40).astype(np.float32)), [0], rule)
    assert other is not None
    assert "smallest value" in other.pixels


def test_folders_show_what_the_model_gets(tmp_path: Path) -> None:
    """A photograph is shown as it was resized for the model, not as it is on the disk, and large inputs are reduced."""
    Image.fromarray(np.full((300, 200, 3), 200, np.uint8)).save(tmp_path / "a.png")
    spec = InputSpec("x", (1, 224, 112, 3), np.dtype(np.float32), 0.0, 0)
    samples = load_samples(str(tmp_path), [spec], preprocess=Preprocess((127.5,), (127.5,)))
    drawn = draw_samples(samples, [0], None)
    assert drawn is not None
    (picture,) = drawn.pictures
    assert (picture.width, picture.height) == (LONGEST_SIDE // 2, LONGEST_SIDE)
    assert np.all(pixels(picture.png) == 200)


def test_other_inputs_are_not_drawn() -> None:
    """Vectors, stacks and two pictures at once are none; spectrograms are; values that are not finite are black."""
    assert draw_samples(sample_set(np.zeros((1, 40), np.float32)), [0], None) is None
    assert draw_samples(sample_set(np.zeros((1, 8, 8, 4), np.float32)), [0], None) is None
    values = np.full((1, 49, 10), np.nan, np.float32)
    values[0, 0, 0] = 300
    drawn = draw_samples(sample_set(values), [0], None)
    assert drawn is not None
    assert pixels(drawn.pictures[0].png).sum() == 255
