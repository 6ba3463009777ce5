"""Samples are read from every documented source and matched to the model; a mismatch is an error with a hint."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepack.errors import SamplesError
from edgepack.samples import InputSpec, Preprocess, load_samples

FLOAT = np.dtype(np.float32)
IMAGE = InputSpec("image", (1, 8, 6, 3), FLOAT)
VECTOR = InputSpec("features", (1, 4), FLOAT)


def test_npz_by_input_name(tmp_path: Path) -> None:
    """Arrays named like the inputs are matched by name; y contains the labels."""
    a, b = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones((3, 8, 6, 3), np.float32)
    np.savez(tmp_path / "s.npz", image=b, features=a, y=[2, 0, 1])
    samples = load_samples(str(tmp_path / "s.npz"), [VECTOR, IMAGE])
    assert len(samples) == 3
    np.testing.assert_array_equal(samples.sample(1)["features"], a[1:2])
    assert samples.sample(2)["image"].shape == (1, 8, 6, 3)
    assert samples.labels is not None
    assert samples.labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("name", ["x", "anything"])
def test_one_input_needs_no_name(tmp_path: Path, name: str) -> None:
    """With one input and one array, the array's name does not matter; a batch dimension per sample is accepted."""
    np.savez(tmp_path / "s.npz", **{name: np.zeros((5, 1, 4), np.float64)})
    samples = load_samples(str(tmp_path / "s.npz"), [VECTOR])
    assert (len(samples), samples.sample(0)["features"].shape, samples.sample(0)["features"].dtype) == (
        5,
        (1, 4),
        FLOAT,
    )


def test_npy(tmp_path: Path) -> None:
    """An .npy contains the samples of the only input."""
    np.save(tmp_path / "s.npy", np.zeros((2, 4), np.float32))
    assert len(load_samples(str(tmp_path / "s.npy"), [VECTOR])) == 2


def test_one_hot_labels_become_indices(tmp_path: Path) -> None:
    """One-hot labels become class indices."""
    np.savez(tmp_path / "s.npz", x=np.zeros((3, 4), np.float32), y=np.eye(3)[[2, 0, 1]])
    labels = load_samples(str(tmp_path / "s.npz"), [VECTOR]).labels
    assert labels is not None
    assert labels.tolist() == [2, 0, 1]


def test_raw_values_of_a_quantized_input_become_real(tmp_path: Path) -> None:
    """Integers of the input's own type are quantized values: real = scale * (quantized - zero point)."""
    np.savez(tmp_path / "s.npz", x=np.array([[0, 128, 255, 1]], np.uint8))
    spec = InputSpec("features", (1, 4), np.dtype(np.uint8), scale=0.5, zero_point=128)
    np.testing.assert_allclose(
        load_samples(str(tmp_path / "s.npz"), [spec]).sample(0)["features"], [[-64, 0, 63.5, -63.5]]
    )


def _images(folder: Path) -> None:
    for name, value in (("cat", 0), ("dog", 255)):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (20, 20), (value, value, value)).save(folder / name / f"{i}.png")


def test_folder_of_images(tmp_path: Path) -> None:
    """Class sub-folders are labels in sorted order; pixels are scaled to 0..1 by default, with a note."""
    _images(tmp_path / "set")
    samples = load_samples(str(tmp_path / "set"), [IMAGE])
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 0, 1, 1]
    assert samples.label_names == ("cat", "dog")
    assert samples.sample(3)["image"].max() == 1.0
    assert "0..1" in samples.notes[0]
    shifted = load_samples(str(tmp_path / "set"), [IMAGE], preprocess=Preprocess.parse("127.5,127.5"))
    assert (shifted.sample(0)["image"].min(), shifted.sample(3)["image"].max()) == (-1.0, 1.0)
    assert shifted.digest != samples.digest
    by_channel = load_samples(str(tmp_path / "set"), [IMAGE], preprocess=Preprocess.parse("255,0,0,1,255,51"))
    assert by_channel.sample(3)["image"][0, 0, 0].tolist() == [0.0, 1.0, 5.0]
    assert by_channel.preprocess.to_json() == {"mean": [255.0, 0.0, 0.0], "std": [1.0, 255.0, 51.0]}
    grey = InputSpec("image", (1, 8, 6, 1), np.dtype(np.float32))
    with pytest.raises(SamplesError, match="1 channel, got 3 means"):
        load_samples(str(tmp_path / "set"), [grey], preprocess=by_channel.preprocess)


def test_images_into_a_quantized_input_stay_pixels(tmp_path: Path) -> None:
    """For a uint8 model, samples have the real values that quantize back to the pixels."""
    _images(tmp_path / "set")
    spec = InputSpec("image", (1, 8, 6, 3), np.dtype(np.uint8), scale=1 / 128, zero_point=128)
    samples = load_samples(str(tmp_path / "set"), [spec])
    assert np.all(np.round(samples.sample(3)["image"] * 128 + 128) == 255)
    assert np.all(np.round(samples.sample(0)["image"] * 128 + 128) == 0)
    scaled = load_samples(str(tmp_path / "set"), [spec], preprocess=Preprocess.parse("127.5,127.5"))
    assert scaled.sample(3)["image"].max() == 1.0


def test_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """module:function yields arrays, dicts, or pairs with a label."""
    (tmp_path / "my_samples_a.py").write_text(
        "import numpy as np\n"
        "def plain():\n    for i in range(3): yield np.full((4,), i, 'f4')\n"
        "def labelled():\n    for i in range(3): yield {'features': np.full((1, 4), i, 'f4')}, i\n"
        "def broken():\n    raise RuntimeError('no disk')\n    yield\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_samples("my_samples_a:plain", [VECTOR]).sample(2)["features"].tolist() == [[2, 2, 2, 2]]
    labels = load_samples("my_samples_a:labelled", [VECTOR]).labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 2]
    with pytest.raises(SamplesError, match="no disk"):
        load_samples("my_samples_a:broken", [VECTOR])


def test_function_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FOLDER/module:function, as a project file gives it, works in any current folder and names no folder."""
    (tmp_path / "my_samples_b.py").write_text("def plain():\n    yield [1.0, 2.0, 3.0, 4.0]\n")
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    samples = load_samples(f"{tmp_path}/my_samples_b:plain", [VECTOR])
    assert samples.sample(0)["features"].tolist() == [[1, 2, 3, 4]]
    assert str(tmp_path) not in samples.source
    assert load_samples("../my_samples_b:plain", [VECTOR]).digest == samples.digest


def test_limited_keeps_the_spread(tmp_path: Path) -> None:
    """A limited set is evenly spaced, so that a file sorted by class keeps all its classes."""
    np.savez(tmp_path / "s.npz", x=np.zeros((100, 4), np.float32), y=np.repeat(np.arange(10), 10))
    samples = load_samples(str(tmp_path / "s.npz"), [VECTOR])
    few = samples.limited(10)
    assert few.labels is not None
    assert sorted(set(few.labels.tolist())) == list(range(10))
    assert few.digest != samples.digest


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": np.zeros((5, 3, 8, 6), np.float32)}, "NCHW"),
        ({"x": np.zeros((8, 6, 3), np.float32)}, "x[None]"),
        ({"x": np.zeros((0, 8, 6, 3), np.float32)}, "empty"),
        ({"x": np.zeros((2, 8, 6, 3), np.complex64)}, "complex64"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, "lack the input 'image'"),
        ({"x": np.zeros((2, 8, 6, 3), np.float32), "y": np.zeros((3,), int)}, "labels"),
        ({"x": np.zeros((2, 8, 6, 3), np.float32), "y": np.array([0.5, 1])}, "whole numbers"),
        ({"x": np.zeros((2, 8, 6, 3), np.float32), "y": np.array([-1, 1])}, "start at 0"),
    ],
)
def test_what_does_not_fit_says_why(tmp_path: Path, arrays: dict[str, np.ndarray], text: str) -> None:
    """A mismatch is an error that names the expected and the actual value, with a hint."""
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(SamplesError) as caught:
        load_samples(str(tmp_path / "s.npz"), [IMAGE])
    assert text in caught.value.message + caught.value.hint


@pytest.mark.parametrize("content", [b"", b"PK\3\4 not a zip", b"\x93NUMPY"])
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".txt"])
def test_broken_files_are_one_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    """A damaged file is a SamplesError, whatever its content."""
    (tmp_path / f"s{suffix}").write_bytes(content)
    with pytest.raises(SamplesError):
        load_samples(str(tmp_path / f"s{suffix}"), [VECTOR])


@pytest.mark.parametrize("source", ["nowhere.npz", "nowhere", "no.such.module:function", "os:nothing"])
def test_sources_that_do_not_exist(source: str) -> None:
    """A missing file, module or function is a SamplesError."""
    with pytest.raises(SamplesError):
        load_samples(source, [VECTOR])


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    """An .npz with Python objects is refused: reading it could run code."""
    np.savez(tmp_path / "s.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SamplesError):
        load_samples(str(tmp_path / "s.npz"), [VECTOR])


@pytest.mark.parametrize("text", ["", "1", "1,0", "a,b", "1,2,3", "1,nan", "1,2,3,4", "1,2,3,4,0,6"])
def test_preprocess_needs_two_numbers(text: str) -> None:
    """--preprocess accepts MEAN,STD or three of each, and nothing else."""
    with pytest.raises(SamplesError, match="MEAN,STD"):
        Preprocess.parse(text)
