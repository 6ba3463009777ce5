"""mAP is COCO's and mean IoU the definition's; intervals cover no loss where there is none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepack.choices import Task
from edgepack.errors import SamplesError
from edgepack.runtime.task_metrics import TaskMeter, class_categories
from edgepack.samples.source import SampleSet
from edgepack.samples.truth import TrueObject, Truth, find_masks
from edgepack.tasks import TaskSpec

SPEC = TaskSpec(Task.DETECTION, "separate", (0, 1), boxes="xyxy")
GENERATOR = np.random.default_rng(1)


def sample_set(truth: Truth) -> SampleSet:
    return SampleSet("truth", "", {}, {}, {}, truth=truth)


def scene(count: int = 30) -> tuple[Truth, list[list[np.ndarray]]]:
    """Return objects of images of 100 x 50 pixels, and the outputs of a model that finds all of them."""
    objects, outputs = [], []
    for _ in range(count):
        corner, size = GENERATOR.random((2, 2)) * 0.2, GENERATOR.random((2, 2)) * 0.2 + 0.1
        # One object in each half: duplicates of a class are dropped.
        corner[1, 0] += 0.5
        boxes = np.hstack([corner, corner + size]).astype(np.float32)
        classes = GENERATOR.integers(0, 2, 2)
        objects.append(
            tuple(
                TrueObject(int([4, 8][c]), (x * 100, y * 50, (r - x) * 100, (b - y) * 50))
                for c, (x, y, r, b) in zip(classes, boxes.tolist(), strict=True)
            )
        )
        outputs.append([boxes[None], np.eye(2, dtype=np.float32)[classes][None] * 0.9])
    return Truth(((100, 50),) * count, tuple(objects), {4: "a", 8: "b"}), outputs


def test_perfect_and_worse_detectors() -> None:
    """All objects found give 100, boxes that are moved by 40 % of their size little, half of the objects half."""
    truth, outputs = scene()
    meter = TaskMeter(SPEC, (), sample_set(truth), (10, 10))
    for number, (boxes, scores) in enumerate(outputs):
        size = boxes[..., 2:] - boxes[..., :2]
        meter.add("float", number, [boxes, scores])
        meter.add("moved", number, [boxes + np.concatenate([size, size], -1) * 0.4, scores])
        meter.add("half", number, [boxes, scores if number % 2 else scores * 0])
    perfect, moved, half = (meter.result("float", key) for key in ("float", "moved", "half"))
    assert (perfect.metric, perfect.value, perfect.strict, perfect.drop) == ("mAP@50", 100, 100, 0)
    assert perfect.interval == (0, 0)
    assert moved.value < 20
    assert half.value == pytest.approx(50, abs=5)
    assert half.interval is not None and 0 < half.interval[0] < half.drop < half.interval[1] <= 100


def test_nothing_found_is_zero() -> None:
    """A detector that finds nothing has 0 and no error."""
    truth, outputs = scene(3)
    meter = TaskMeter(SPEC, (), sample_set(truth), (10, 10))
    for number, (boxes, scores) in enumerate(outputs):
        meter.add("float", number, [boxes, scores])
        meter.add("blind", number, [boxes, scores * 0])
    assert meter.result("float", "blind").value == 0


def test_classes_are_matched_by_name() -> None:
    """Names decide where there are any; else the order of the ids, after the background, or COCO's ids less one."""
    truth = Truth(((1, 1),), ((),), {1: "Person", 3: "car"})
    assert class_categories(SPEC, ("car ", "person", "boat"), truth) == {0: 3, 1: 1}
    assert class_categories(SPEC, (), truth) == {0: 1, 1: 3}
    assert class_categories(TaskSpec(Task.DETECTION, "separate", (0, 1), background=True), (), truth) == {1: 1, 2: 3}
    assert class_categories(TaskSpec(Task.DETECTION, "postprocess", (0, 1, 2, 3)), (), truth) == {0: 1, 2: 3}
    with pytest.raises(SamplesError, match="no category"):
        class_categories(SPEC, ("boat",), truth)


def test_mean_overlap_is_the_definition(tmp_path: Path) -> None:
    """Mean over the classes that occur of intersection by union, without the pixels that do not count."""
    spec = TaskSpec(Task.SEGMENTATION, "classes")
    true = GENERATOR.integers(0, 3, (4, 12, 16)).astype(np.uint8)
    true[:, 0] = 255
    found = np.where(GENERATOR.random(true.shape) < 0.8, true, 1).astype(np.uint8)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number, mask in enumerate(true):
        Image.new("L", (16, 12)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    truth = find_masks(tmp_path, sorted((tmp_path / "images").iterdir()))
    meter = TaskMeter(spec, (), sample_set(truth), (16, 12))
    for number in range(4):
        meter.add("float", number, [true[number : number + 1]])
        meter.add("other", number, [found[number : number + 1]])
    counted = true != 255
    expected = []
    for c in range(3):
        a, b = (true == c) & counted, (found == c) & counted
        expected.append((a & b).sum() / (a | b).sum())
    result = meter.result("float", "other")
    assert (result.metric, result.value_float) == ("mIoU", 100)
    assert result.value == pytest.approx(100 * np.mean(expected))
    assert result.interval is not None and 0 < result.interval[0] < result.drop < result.interval[1]


def test_truth_of_another_task_is_refused() -> None:
    """Objects are no truth of a segmentation."""
    truth, _ = scene(2)
    with pytest.raises(SamplesError, match="segmentation"):
        TaskMeter(TaskSpec(Task.SEGMENTATION), (), sample_set(truth), (10, 10))
