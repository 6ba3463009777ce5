"""Results are what a plain reading of the definitions gives, and places come back to the frame."""

import itertools

import numpy as np
import pytest

from edgepack.tasks.decode.boxes import box_corners, detect, joined_entries, postprocessed
from edgepack.tasks.decode.mapping import FrameMapping, frame_mapping
from edgepack.tasks.decode.masks import UNSEEN, class_map, segment
from edgepack.tasks.decode.points import keypoints, keypoints_of_heatmaps
from edgepack.tasks.decode.scores import activated, classify
from edgepack.tasks.decode.vectors import embed, similarity
from edgepack.tasks.decode.windows import Windows

WAYS = list(itertools.product(("stretch", "letterbox", "center-crop"), (0, 90, 180, 270), (False, True)))
WHOLE = FrameMapping(0, 0, 100, 50)


@pytest.mark.parametrize(("fit", "rotation", "mirror"), WAYS)
def test_places_return_to_the_frame(fit: str, rotation: int, mirror: bool) -> None:
    """A bright pixel of the frame, followed through crop, rotation, mirror and fit, is mapped back to where it was."""
    from PIL import Image

    frame = np.zeros((60, 90), np.uint8)
    frame[28:32, 48:52] = 255
    crop = (10, 6, 72, 48)
    pixels = np.rot90(frame[6:54, 10:82], -rotation // 90)
    pixels = pixels[:, ::-1] if mirror else pixels
    size = (40, 30)
    height, width = pixels.shape
    whole = np.zeros((30, 40), np.float32)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if fit == "letterbox":
        ratio = min(40 / width, 30 / height)
        inner = round(width * ratio), round(height * ratio)
        left, top = (40 - inner[0]) // 2, (30 - inner[1]) // 2
        whole[top : top + inner[1], left : left + inner[0]] = np.asarray(image.resize(inner, Image.Resampling.BILINEAR))
    else:
        ratio = min(width / 40, height / 30)
        half = ((width - 40 * ratio) / 2, (height - 30 * ratio) / 2) if fit == "center-crop" else (0, 0)
        box = (half[0], half[1], width - half[0], height - half[1])
        whole[:] = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
    rows, columns = np.indices(whole.shape)
    x = float((whole * (columns + 0.5)).sum() / whole.sum()) / 40
    y = float((whole * (rows + 0.5)).sum() / whole.sum()) / 30
    mapping = frame_mapping(crop, size, fit, rotation=rotation, mirror=mirror)
    place = mapping.to_original(x, y)
    # The centre of the bright square; the resized image has 8 bits.
    assert place == pytest.approx((50, 30), abs=0.3)
    assert mapping.to_input(*place) == pytest.approx((x, y))


@pytest.mark.parametrize(("fit", "rotation", "mirror"), WAYS)
def test_mask_is_the_cell_of_each_pixel(fit: str, rotation: int, mirror: bool) -> None:
    """Each pixel of the mask has the class of the cell in which its centre is, and none outside what the model saw."""
    classes = np.random.default_rng(3).integers(0, 5, (1, 6, 8)).astype(np.int32)
    mapping = frame_mapping((3, 5, 33, 21), (80, 60), fit, rotation=rotation, mirror=mirror)
    mask = segment(classes, mapping, ()).mask
    assert mask.shape == (21, 33)
    for y, x in itertools.product(range(21), range(33)):
        u, v = mapping.to_input(3 + x + 0.5, 5 + y + 0.5)
        row, column = int(np.floor(v * 6)), int(np.floor(u * 8))
        inside = 0 <= row < 6 and 0 <= column < 8
        assert mask[y, x] == (classes[0, row, column] if inside else UNSEEN)


def test_duplicates_are_dropped_by_class() -> None:
    """Greedy non-maximum suppression by class, equal to one written with loops."""
    generator = np.random.default_rng(5)
    centres = generator.random((60, 2)) * 0.3 + 0.3
    boxes = np.hstack([centres, generator.random((60, 2)) * 0.3 + 0.05]).astype(np.float32)
    scores = generator.random((60, 3)).astype(np.float32)
    corners = box_corners(boxes)
    found = detect(corners, scores, WHOLE, ("a", "b"), score=0.5, iou=0.4, limit=40)

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        common = max(width, 0) * max(height, 0)
        return float(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common))

    kept: list[int] = []
    for i in sorted(range(60), key=lambda n: (-float(scores[n].max()), n)):
        same = [k for k in kept if scores[k].argmax() == scores[i].argmax()]
        if scores[i].max() >= 0.5 and all(overlap(corners[i], corners[k]) <= 0.4 for k in same):
            kept.append(i)
    assert 5 < len(kept) < 60
    assert [one.score for one in found] == [float(scores[i].max()) for i in kept[:40]]
    assert [one.index for one in found] == [int(scores[i].argmax()) for i in kept[:40]]
    assert {one.label for one in found} == {"a", "b", "2"}
    for one, i in zip(found, kept, strict=False):
        assert (one.left, one.right) == pytest.approx(np.clip(corners[i, [0, 2]] * 100, 0, 100))
        assert (one.top, one.bottom) == pytest.approx(np.clip(corners[i, [1, 3]] * 50, 0, 50))


def test_layouts_of_detections_agree() -> None:
    """The same objects in the joined, transposed, objectness and postprocessed layouts give the same results."""
    boxes = np.array([[0.5, 0.5, 0.2, 0.4], [0.2, 0.2, 0.1, 0.1]], np.float32)
    scores = np.array([[0.1, 0.9], [0.8, 0.3]], np.float32)
    joined = np.hstack([boxes, scores])[None]
    expected = detect(box_corners(boxes), scores, WHOLE, ())
    assert [one.index for one in expected] == [1, 0]
    assert [(one.left, one.top) for one in expected] == [pytest.approx((40, 15)), pytest.approx((15, 7.5))]
    for entries, transposed in ((joined, False), (joined.transpose(0, 2, 1), True)):
        got, values = joined_entries(entries, transposed=transposed, objectness=False)
        assert detect(box_corners(got), values, WHOLE, ()) == expected
    with_objectness = np.hstack([boxes, np.full((2, 1), 0.5, np.float32), scores * 2])[None]
    got, values = joined_entries(with_objectness, transposed=False, objectness=True)
    assert detect(box_corners(got), values, WHOLE, ()) == expected
    corners = box_corners(boxes)[:, [1, 0, 3, 2]]
    found = postprocessed(
        corners[None], np.array([[1.0, 0.0]]), np.array([[0.9, 0.8]], np.float32), np.array([2.0]), WHOLE, ()
    )
    assert [(one.index, one.left, one.top) for one in found] == [(one.index, one.left, one.top) for one in expected]
    pixels = box_corners(boxes * np.float32([80, 60, 80, 60]), size=(80, 60))
    assert pixels == pytest.approx(box_corners(boxes))


def test_broken_numbers_are_no_objects() -> None:
    """NaN and infinite boxes or scores, and a wrong count, give no object and no error."""
    boxes = np.array([[np.nan, 0, 1, 1], [0, 0, np.inf, 1], [0, 0, 1, 1]], np.float32)
    scores = np.array([[0.9], [0.9], [np.nan]], np.float32)
    assert detect(boxes, scores, WHOLE, ()) == []
    for count in (-3, 0):
        assert postprocessed(boxes[None], scores.T, scores.T, np.array([count]), WHOLE, ()) == []
    assert detect(boxes[:0], scores[:0], WHOLE, ()) == []


def test_classes_points_and_vectors() -> None:
    """Ties keep the lower class, activations are the usual ones, heat maps peak at a cell's centre."""
    assert [one.index for one in classify(np.array([[0.2, 0.5, 0.5]]), ("a", "b", "c"), 2)] == [1, 2]
    logits = np.array([[1.0, 2.0, 4.0]], np.float32)
    assert activated(logits, "softmax").sum() == pytest.approx(1)
    assert activated(logits, "sigmoid")[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
    points = keypoints(np.array([[[[0.5, 0.25, 0.9]]]], np.float32), WHOLE, ("nose",))
    assert (points[0].name, points[0].x, points[0].y, points[0].score) == ("nose", 25, 25, pytest.approx(0.9))
    maps = np.zeros((1, 4, 5, 2), np.float32)
    maps[0, 1, 2, 0] = maps[0, 3, 4, 1] = 2
    assert [(p.x, p.y) for p in keypoints_of_heatmaps(maps, WHOLE, ())] == [(50, 18.75), (90, 43.75)]
    assert class_map(np.array([[[[0.4], [0.6]]]])).tolist() == [[0, 1]]
    assert class_map(np.array([[[[1, 3, 3], [5, 1, 1]]]])).tolist() == [[1, 0]]
    assert np.linalg.norm(embed(np.array([3.0, 4.0]))) == pytest.approx(1)
    assert similarity(np.array([1.0, 0.0]), np.array([2.0, 2.0])) == pytest.approx(np.sqrt(0.5))
    assert embed(np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("hop", [1, 3, 8])
@pytest.mark.parametrize("chunk", [1, 5, 20])
def test_windows_are_those_of_the_whole_stream(hop: int, chunk: int) -> None:
    """Chunks of any length give the windows that the whole stream has."""
    stream = np.arange(50, dtype=np.float32)
    windows = Windows(8, hop)
    got = [window.tolist() for start in range(0, 50, chunk) for window in windows.push(stream[start : start + chunk])]
    assert got == [stream[start : start + 8].tolist() for start in range(0, 43, hop)]
    windows.reset()
    assert list(windows.push(stream[:7])) == []


@pytest.mark.parametrize("hop", [0, 9])
def test_wrong_hop_is_refused(hop: int) -> None:
    """A hop that is not positive or skips samples is an error."""
    with pytest.raises(ValueError, match="hop"):
        Windows(8, hop)
