"""The values that a model gets are those it was trained with, or the build says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import Net
from PIL import Image

from edgepack.convert import FloatModel
from edgepack.graph import read_model
from edgepack.pipeline.build import build
from edgepack.pipeline.compare import compare
from edgepack.pipeline.input_values import pixels_by_arithmetic
from edgepack.pipeline.options import BuildOptions, ModelOptions
from edgepack.samples import Preprocess

SIZE = (1, 8, 8, 3)
#: Four classes of pictures: dark or bright, and red or blue.
COLORS = {"0": (70, 50, 30), "1": (30, 50, 70), "2": (220, 200, 180), "3": (180, 200, 220)}


def recognizer(mean: float, std: float, *, reverse: bool = False, scales: tuple[float, float] | None = None) -> bytes:
    """Return a model that tells the colors of pixels scaled to (pixel - mean) / std, perhaps behind arithmetic."""
    net = Net()
    x = net.tensor("picture", SIZE)
    y = x
    if scales is not None:
        y = net.tensor("scaled", SIZE)
        net.op("MUL", [x, net.constant("factor", [scales[0]])], [y])
        z = net.tensor("shifted", SIZE)
        net.op("ADD", [y, net.constant("summand", [scales[1]])], [z])
        y = z
    color = net.tensor("color", (1, 3))
    net.op("MEAN", [y, net.constant("axes", [1, 2], "INT32")], [color])
    red = np.array([1.0, 0.0, -1.0]) * (-1 if reverse else 1)
    middle = (125.0 - mean) / std
    kernel = [std / 20 * (bright * np.ones(3) / 3 + hue * red) for bright in (-1, 1) for hue in (1, -1)]
    bias = [-std / 20 * bright * middle for bright in (-1, 1) for _ in (1, -1)]
    logits = net.tensor("logits", (1, 4))
    net.op("FULLY_CONNECTED", [color, net.constant("kernel", kernel), net.constant("bias", bias)], [logits])
    out = net.tensor("classes", (1, 4))
    net.op("SOFTMAX", [logits], [out], beta=1.0)
    return net.build([x], [out], (["picture"], ["classes"]))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 15 pictures of each class."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3)
    for name, color in COLORS.items():
        (folder / name).mkdir()
        for number in range(15):
            pixels = np.clip(np.array(color) + random.normal(0, 12, SIZE[1:]), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def warnings_of(model: bytes, folder: Path, tmp_path: Path, **options: object) -> tuple[str, ...]:
    """Build for the CPU; return the warnings of the target and the notes of the build."""
    (tmp_path / "m.tflite").write_bytes(model)
    result = build(
        tmp_path / "m.tflite",
        ["cpu"],
        replace(BuildOptions(samples=str(folder), scheme="float32", dry_run=True), **options),
    )
    assert result.error is None
    return (*result.results[0].warnings, *result.notes)


@pytest.mark.parametrize(
    ("mean", "std", "flag", "name"),
    [(127.5, 127.5, "127.5,127.5", "-1..1"), (0.0, 1.0, "0,1", "0..255")],
)
def test_guessing_is_told_with_the_flag_that_helps(
    pictures: Path, tmp_path: Path, mean: float, std: float, flag: str, name: str
) -> None:
    """Without the right normalization a warning names it; with it, or with `auto`, there is none."""
    model = recognizer(mean, std)
    (warning,) = [w for w in warnings_of(model, pictures, tmp_path) if "top-1" in w]
    assert f"it is 100.0 % with pixels scaled to {name}: pass --preprocess {flag}" in warning
    assert "no better than guessing (25.0 %)" in warning or "is 50.0 %" in warning
    assert not [w for w in warnings_of(model, pictures, tmp_path, preprocess=flag) if "top-1" in w]
    (note,) = [w for w in warnings_of(model, pictures, tmp_path, preprocess="auto") if "top-1" in w]
    assert note.startswith(f"--preprocess auto took {flag}")


def test_a_model_that_works_has_no_warning(pictures: Path, tmp_path: Path) -> None:
    """The default normalization is not doubted where the model recognizes the pictures."""
    assert not [w for w in warnings_of(recognizer(0.0, 255.0), pictures, tmp_path) if "top-1" in w]


def test_exchanged_channels_are_told(pictures: Path, tmp_path: Path) -> None:
    """A model that was trained with BGR is recognized, and the way out is named."""
    (warning,) = [w for w in warnings_of(recognizer(0.0, 255.0, reverse=True), pictures, tmp_path) if "top-1" in w]
    assert "BGR" in warning and "x[..., ::-1]" in warning


def test_labels_that_are_one_off_are_told(pictures: Path, tmp_path: Path) -> None:
    """Labels that count from 1 are recognized, in an .npz as well."""
    files = sorted(pictures.rglob("*.png"))
    x = np.stack([np.asarray(Image.open(file), np.float32) / 255 for file in files])
    np.savez(tmp_path / "s.npz", picture=x, y=[int(file.parent.name) + 1 for file in files])
    (warning,) = [w for w in warnings_of(recognizer(0.0, 255.0), tmp_path / "s.npz", tmp_path) if "top-1" in w]
    assert "it is 100.0 % when -1 is added to each label" in warning


def test_arrays_in_the_wrong_range_are_told(pictures: Path, tmp_path: Path) -> None:
    """Arrays have no flag: the warning says how to write them."""
    files = sorted(pictures.rglob("*.png"))
    x = np.stack([np.asarray(Image.open(file), np.float32) for file in files])
    np.savez(tmp_path / "s.npz", picture=x, y=[int(file.parent.name) for file in files])
    (warning,) = [w for w in warnings_of(recognizer(127.5, 127.5), tmp_path / "s.npz", tmp_path) if "top-1" in w]
    assert "write the samples as (pixel - MEAN) / STD of 127.5,127.5" in warning


def test_labels_in_disorder_are_told(pictures: Path, tmp_path: Path) -> None:
    """Where nothing helps, the warning says what was tried."""
    files = sorted(pictures.rglob("*.png"))
    x = np.stack([np.asarray(Image.open(file), np.float32) / 255 for file in files])
    labels = np.random.default_rng(0).permutation([int(file.parent.name) for file in files])
    np.savez(tmp_path / "s.npz", picture=x, y=labels)
    (warning,) = [w for w in warnings_of(recognizer(0.0, 255.0), tmp_path / "s.npz", tmp_path) if "top-1" in w]
    assert "check the order of the labels" in warning and "do not help" in warning


def test_the_first_ops_decide(pictures: Path, tmp_path: Path) -> None:
    """A model that scales pixels itself gets pixels of 0..255; scaling them twice is told."""
    model = recognizer(127.5, 127.5, scales=(1 / 127.5, -1.0))
    texts = warnings_of(model, pictures, tmp_path)
    assert not [w for w in texts if "top-1" in w or "unnormalized" in w]
    assert [w for w in texts if "pixels are given as 0..255" in w]
    twice = warnings_of(model, pictures, tmp_path, preprocess="127.5,127.5")
    assert [w for w in twice if "probably normalized twice; --preprocess 0,1" in w]
    (tmp_path / "m.tflite").write_bytes(model)
    comparison = compare(tmp_path / "m.tflite", ["cpu"], ModelOptions(), samples=str(pictures), preprocess="0,255")
    assert [note for note in comparison.notes if "pass --preprocess 0,1" in note]


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ((1 / 255, 0.0), Preprocess((0.0,), (1.0,))),
        ((1 / 127.5, -1.0), Preprocess((0.0,), (1.0,))),
        ((1.0, -118.0), Preprocess((0.0,), (1.0,))),
        ((1 / 58.0, -2.1), Preprocess((0.0,), (1.0,))),
        ((2.0, -1.0), Preprocess((0.0,), (255.0,))),
        ((1 / 0.229, -2.1), Preprocess((0.0,), (255.0,))),
        ((1e-6, 0.0), None),
        (None, None),
    ],
)
def test_what_arithmetic_means(scales: tuple[float, float] | None, expected: Preprocess | None) -> None:
    """The span that the first layer gets tells which pixels the model takes."""
    data = recognizer(0.0, 255.0, scales=scales)
    assert pixels_by_arithmetic(FloatModel(data, "tflite", False, None), read_model(data)) == expected
