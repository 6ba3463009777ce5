"""Objects and masks are read strictly, and go with their images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepack.errors import SamplesError
from edgepack.samples import load_samples
from edgepack.samples.source import InputSpec

INPUT = [InputSpec("image", (1, 8, 8, 3), np.dtype(np.float32))]


def coco(folder: Path, place: str = "images", **changes: Any) -> Path:
    """Write three images and a COCO JSON."""
    (folder / place).mkdir(parents=True, exist_ok=True)
    for number in range(3):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(folder / place / f"{number}.png")
    document = {
        "images": [{"id": 5 - n, "file_name": f"{n}.png", "width": 20, "height": 10} for n in range(3)],
        "annotations": [
            {"image_id": 5, "category_id": 9, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"image_id": 3, "category_id": 2, "bbox": [0, 0, 5.5, 5]},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
        **changes,
    }
    path = folder / "annotations" / "instances_val2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("images", ["annotations", "annotations/images", "images", "val2017"])
def test_objects_belong_to_their_images(tmp_path: Path, images: str) -> None:
    """Images are found where COCO and its users put them, and a part of the samples keeps its own objects."""
    samples = load_samples(str(coco(tmp_path, images)), INPUT)
    assert samples.truth is not None
    assert (len(samples), samples.label_names, samples.truth.sizes) == (3, ("cat", "dog"), ((20, 10),) * 3)
    assert [[(one.category, one.box, one.crowd) for one in objects] for objects in samples.truth.objects] == [
        [(9, (1, 2, 3, 4), True)],
        [],
        [(2, (0, 0, 5.5, 5), False)],
    ]
    part = samples.take([2, 0])
    assert part.truth is not None
    assert [len(objects) for objects in part.truth.objects] == [1, 1]
    assert part.truth.objects[0][0].category == 2
    assert part.sample(0)["image"][0, 0, 0, 0] == pytest.approx(2 / 255)


def test_other_objects_are_other_samples(tmp_path: Path) -> None:
    """The digest, which keys the cache, covers the objects."""
    first = load_samples(str(coco(tmp_path)), INPUT).digest
    assert load_samples(str(coco(tmp_path)), INPUT).digest == first
    changed = [{"image_id": 5, "category_id": 9, "bbox": [1, 2, 3, 5]}]
    assert load_samples(str(coco(tmp_path, annotations=changed)), INPUT).digest != first


@pytest.mark.parametrize(
    "changes",
    [
        {"images": []},
        {"images": 3},
        {"images": [{"id": 1, "file_name": "0.png"}]},
        {"images": [{"id": 1, "file_name": "../../x.png", "width": 20, "height": 10}], "annotations": []},
        {"images": [{"id": 1, "file_name": "/etc/hostname", "width": 20, "height": 10}], "annotations": []},
        {"images": [{"id": 1, "file_name": "missing.png", "width": 20, "height": 10}], "annotations": []},
        {"images": [{"id": 1, "file_name": "0.png", "width": 0, "height": 10}], "annotations": []},
        {"annotations": [{"image_id": 99, "category_id": 9, "bbox": [1, 2, 3, 4]}]},
        {"annotations": [{"image_id": 5, "category_id": 9, "bbox": [1, 2, 3]}]},
        {"annotations": [{"image_id": 5, "category_id": 9, "bbox": [1, 2, -3, 4]}]},
        {"annotations": [{"image_id": 5, "category_id": 9, "bbox": [1, 2, float("nan"), 4]}]},
        {"categories": None},
    ],
)
def test_broken_coco_is_one_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A file that is not as COCO JSON is, or names files elsewhere, is refused with its name."""
    with pytest.raises(SamplesError) as caught:
        load_samples(str(coco(tmp_path, **changes)), INPUT)
    assert "instances_val2017.json" in caught.value.message


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100000, "\x00"])
def test_other_json_is_one_error(tmp_path: Path, text: str) -> None:
    """Whatever else stands in the file, the error names it."""
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(SamplesError, match=r"truth\.json"):
        load_samples(str(path), INPUT)


def masks(folder: Path, mode: str = "L") -> Path:
    """Write two images with masks."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(2):
        Image.new("RGB", (6, 4), (9, 9, 9)).save(folder / "images" / f"{number}.jpg")
        Image.fromarray(np.full((4, 6), number, np.uint8)).convert(mode).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.mark.parametrize("mode", ["L", "P"])
def test_masks_have_class_numbers(tmp_path: Path, mode: str) -> None:
    """Grey values and positions in a palette are class numbers; a changed file is refused."""
    samples = load_samples(str(masks(tmp_path, "L")), INPUT)
    assert samples.truth is not None and samples.labels is None
    if mode == "P":
        image = Image.fromarray(np.ones((4, 6), np.uint8), "L").convert("P")
        image.putdata([1] * 24)
        image.save(tmp_path / "masks" / "1.png")
        samples = load_samples(str(tmp_path), INPUT)
        assert samples.truth is not None
    assert samples.truth.mask(1).tolist() == [[1] * 6] * 4
    Image.new("L", (6, 4), 3).save(tmp_path / "masks" / "1.png")
    with pytest.raises(SamplesError, match="changed"):
        samples.truth.mask(1)


def test_masks_with_colours_or_missing_are_refused(tmp_path: Path) -> None:
    """Colours are no class numbers, and every image needs a mask."""
    samples = load_samples(str(masks(tmp_path, "RGB")), INPUT)
    assert samples.truth is not None
    with pytest.raises(SamplesError, match="mode RGB"):
        samples.truth.mask(0)
    (tmp_path / "masks" / "0.png").unlink()
    with pytest.raises(SamplesError, match=r"0\.jpg"):
        load_samples(str(tmp_path), INPUT)
