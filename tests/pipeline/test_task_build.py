"""A build with a task measures it, records it, and its Python package returns the same results."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import Net
from PIL import Image

from edgepack.bundle.verify import verify
from edgepack.errors import EdgepackError, UsageError
from edgepack.pipeline.build import build
from edgepack.pipeline.options import BuildOptions
from edgepack.pipeline.verify import verify as verify_quality

GENERATOR = np.random.default_rng(4)


def segmentation() -> bytes:
    """Scores of background, red, green, blue for each pixel: a 1 x 1 convolution with known weights."""
    net = Net()
    x, y, z = net.tensor("image", (1, 16, 24, 3)), net.tensor("scores", (1, 16, 24, 4)), net.tensor("p", (1, 16, 24, 4))
    kernel = np.zeros((4, 1, 1, 3), np.float32)
    kernel[1:, 0, 0] = np.eye(3) * 20
    weights = net.constant("kernel", kernel), net.constant("bias", [8, 0, 0, 0])
    net.op("CONV_2D", [x, *weights], [y], strideW=1, strideH=1)
    net.op("SOFTMAX", [y], [z], beta=1.0)
    return net.build([x], [z], (["image"], ["classes"]))


def write_scenes(folder: Path) -> Path:
    """Images with a rectangle each, masks and a COCO JSON."""
    document: dict[str, Any] = {"images": [], "annotations": []}
    document["categories"] = [{"id": n, "name": name} for n, name in enumerate(("red", "green", "blue"))]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(12):
        width, height, color = 48 + number, 40, number % 3
        pixels, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
        left, top = int(GENERATOR.integers(0, 20)), int(GENERATOR.integers(0, 20))
        pixels[top : top + 18, left : left + 22, color] = 255
        mask[top : top + 18, left : left + 22] = color + 1
        Image.fromarray(pixels).save(folder / "images" / f"{number:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02d}.png")
        document["images"].append({"id": number, "file_name": f"{number:02d}.png", "width": width, "height": height})
        document["annotations"].append({"image_id": number, "category_id": color, "bbox": [left, top, 22, 18]})
    (folder / "truth.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "colors.tflite"
    path.write_bytes(segmentation())
    return path


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_segmentation_is_measured_and_returned(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize: str
) -> None:
    """The mIoU of the manifest is that of the masks which the bundle's own package returns for the same images."""
    scenes = write_scenes(tmp_path / "scenes")
    options = BuildOptions(
        out=tmp_path / "out",
        samples=str(scenes / "images"),
        eval=str(scenes),
        preprocess="0,255",
        resize=resize,  # type: ignore[arg-type]
        platform="linux",  # type: ignore[arg-type]
    )
    (result,) = build(model, ["cpu"], options).results
    assert result.error is None and result.bundle is not None
    manifest = json.loads((result.bundle / "manifest.json").read_bytes())
    assert manifest["task"]["kind"] == "segmentation"
    assert manifest["inputs"][0]["preprocessing"].get("resize", "stretch") == resize
    assert verify(result.bundle).ok
    checked = verify_quality(result.bundle, evaluation=str(scenes))
    assert checked.ok and any("as in the manifest" in note for note in checked.notes)

    # Packages of other bundles have the same name.
    for name in [name for name in sys.modules if name.partition(".")[0] == "colors"]:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(result.bundle / "linux" / "src"))
    package = importlib.import_module("colors")
    overlaps = np.zeros((2, 4))
    with package.Colors() as loaded:
        for image in sorted((scenes / "images").iterdir()):
            frame = np.asarray(Image.open(image).convert("RGB"))
            true = np.asarray(Image.open(scenes / "masks" / image.name))
            mask = loaded.segment(frame).mask
            for c in range(4):
                overlaps += np.eye(4)[c] * [[((mask == c) & (true == c)).sum()], [((mask == c) | (true == c)).sum()]]
    percent = 100 * float((overlaps[0] / overlaps[1]).mean())
    assert manifest["quality"]["task"]["metric"] == "mIoU"
    assert manifest["quality"]["task"]["value"] == pytest.approx(percent, abs=0.01)
    assert percent > 80


@pytest.mark.parametrize(
    ("task", "labels", "words"),
    [
        ("detection", "", "expected"),
        ("segmentation,output=3", "", "no output 3"),
        ("segmentation", "one\ntwo\n", "4 classes, got 2"),
        ("painting", "", "painting"),
    ],
)
def test_wrong_task_is_refused(model: Path, tmp_path: Path, task: str, labels: str, words: str) -> None:
    """A task that the outputs cannot have, or with other labels, is one error of usage and nothing is written."""
    names = None
    if labels:
        names = tmp_path / "labels.txt"
        names.write_text(labels)
    options = BuildOptions(out=tmp_path / "out", task=task, labels=names, scheme="float32")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=words):
        build(model, ["cpu"], options)
    assert not (tmp_path / "out").exists()


def test_objects_need_a_detector(model: Path, tmp_path: Path) -> None:
    """Samples with objects are no truth of a segmentation, and the error says what to do."""
    scenes = write_scenes(tmp_path / "scenes")
    options = BuildOptions(out=tmp_path / "out", eval=str(scenes / "truth.json"), preprocess="0,255")
    with pytest.raises(EdgepackError, match="detection") as caught:
        build(model, ["cpu"], options)
    assert "--task" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "detection"},
        {"outputs": [7]},
        {"outputs": []},
        {"labels": ["a"]},
        {"layout": "boxes"},
    ],
)
def test_false_task_in_a_manifest_is_found(model: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    """`verify` compares the task with the outputs; whatever stands there is a problem and no crash."""
    options = BuildOptions(out=tmp_path, preprocess="0,255", scheme="float32")  # type: ignore[arg-type]
    (result,) = build(model, ["cpu"], options).results
    assert result.bundle is not None
    path = result.bundle / "manifest.json"
    document = json.loads(path.read_bytes())
    document["task"] |= change
    path.write_text(json.dumps(document))
    assert any("task" in problem.what for problem in verify(result.bundle).problems)
