"""Inputs without a batch dimension, and labels that are names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepack.errors import SamplesError
from edgepack.samples import load_samples
from edgepack.samples.load import InputSpec

FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize(
    ("shape", "given", "sample"),
    [
        ((), (6,), ()),
        ((), (6, 1), ()),
        ((1,), (6,), (1,)),
        ((15600,), (6, 15600), (15600,)),
        ((4, 8), (6, 4, 8), (4, 8)),
        ((1, 8), (6, 8), (1, 8)),
        ((1, 8), (6, 1, 8), (1, 8)),
    ],
)
def test_samples_have_the_shape_of_the_input(
    tmp_path: Path, shape: tuple[int, ...], given: tuple[int, ...], sample: tuple[int, ...]
) -> None:
    """A number, a waveform of rank 1 and a fixed batch are read as samples; each sample has the input's own shape."""
    values = np.arange(np.prod(given), dtype=np.float32).reshape(given)
    np.savez(tmp_path / "s.npz", x=values)
    loaded = load_samples(str(tmp_path / "s.npz"), [InputSpec("x", shape, FLOAT)])
    assert len(loaded) == 6
    second = loaded.sample(1)["x"]
    assert second.shape == sample
    np.testing.assert_array_equal(second.reshape(-1), values[1].reshape(-1))


def test_a_wrong_rank_is_told_with_the_expected_shape(tmp_path: Path) -> None:
    """The message has the shape that the array of samples should have, also for an input without dimensions."""
    np.savez(tmp_path / "s.npz", x=np.zeros((6, 3), np.float32))
    with pytest.raises(SamplesError, match=r"expected shape \[samples\], got \[6, 3\]"):
        load_samples(str(tmp_path / "s.npz"), [InputSpec("x", (), FLOAT)])


def test_labels_by_name(tmp_path: Path) -> None:
    """Names count in the order of the model's classes, in alphabetical order where that is unknown."""
    np.savez(tmp_path / "s.npz", x=np.zeros((3, 2), np.float32), y=np.array(["dog", "cat", "dog"]))
    spec = [InputSpec("x", (1, 2), FLOAT)]
    source = str(tmp_path / "s.npz")
    plain, ordered = load_samples(source, spec), load_samples(source, spec, classes=["dog", "horse", "cat"])
    assert plain.labels is not None and plain.labels.tolist() == [1, 0, 1]
    assert ordered.labels is not None and ordered.labels.tolist() == [0, 2, 0]
    with pytest.raises(SamplesError, match="'dog' is not among the 2 class names"):
        load_samples(source, spec, classes=["cat", "horse"])


def test_folders_are_matched_with_the_classes_by_name(tmp_path: Path) -> None:
    """The folders of a picture set have an order of their own: with the model's class names, each finds its output."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.png")
    spec = [InputSpec("x", (1, 4, 4, 3), FLOAT)]
    ordered = load_samples(str(tmp_path), spec, classes=["horse", "dog", "cat"])
    assert ordered.labels is not None and ordered.labels.tolist() == [2, 1]
    assert ordered.label_names == ("horse", "dog", "cat")
    unknown = load_samples(str(tmp_path), spec, classes=["a", "b"])
    assert unknown.labels is not None and unknown.labels.tolist() == [0, 1]
