"""A task is parsed strictly, fits the outputs or is refused, and survives the manifest."""

import pytest

from edgepack.choices import Task
from edgepack.errors import UsageError
from edgepack.tasks import TaskSpec, classes_of, fault_of, from_json, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("classification", TaskSpec(Task.CLASSIFICATION)),
        ("detection", TaskSpec(Task.DETECTION, "joined")),
        (
            "detection, boxes=xyxy ,units=pixel,score=0.5,limit=7",
            TaskSpec(Task.DETECTION, "joined", boxes="xyxy", units="pixel", score=0.5, limit=7),
        ),
        ("detection,layout=separate", TaskSpec(Task.DETECTION, "separate", (0, 1))),
        ("detection,layout=postprocess,outputs=3+2+1+0", TaskSpec(Task.DETECTION, "postprocess", (3, 2, 1, 0))),
        ("segmentation,layout=classes,output=2", TaskSpec(Task.SEGMENTATION, "classes", (2,))),
        ("keypoints,layout=heatmaps", TaskSpec(Task.KEYPOINTS, "heatmaps")),
        ("audio,rate=16000", TaskSpec(Task.AUDIO, rate=16000)),
        ("none", None),
    ],
)
def test_task_is_parsed(text: str, expected: TaskSpec | None) -> None:
    """A kind and facts become a task, and the manifest's form gives the same one again."""
    spec = parse(text)
    assert spec == expected
    if spec is not None:
        assert from_json({**spec.to_json(), "labels": []}) == spec


@pytest.mark.parametrize(
    "text",
    [
        *("", "detect", "none,score=1", "detection,", "detection,boxes", "detection,boxes=wh", "detection,score=nan"),
        *("detection,score=2", "detection,limit=1.5", "detection,limit=0", "detection,transposed=true"),
        *("detection,output=-1", "detection,output=²", "detection,output=1000000", "classification,iou=0.5"),
        *("detection,layout=separate,outputs=0", "detection,outputs=0+1", "audio,rate=inf", "detection,layout=scores"),
    ],
)
def test_wrong_task_is_refused(text: str) -> None:
    """An unknown kind, fact or value is one error that names what is expected."""
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "--task" in caught.value.message


@pytest.mark.parametrize(
    ("text", "shapes", "classes"),
    [
        ("classification", [(1, 10)], 10),
        ("classification", [(1, 1, 1, 10)], 10),
        ("detection", [(1, 100, 9)], 5),
        ("detection,transposed=yes", [(1, 9, 100)], 5),
        ("detection,objectness=yes", [(1, 100, 9)], 4),
        ("detection,layout=separate,outputs=1+0", [(1, 100, 3), (1, 100, 4)], 3),
        ("detection,layout=postprocess", [(1, 10, 4), (1, 10), (1, 10), (1,)], 0),
        ("segmentation", [(1, 8, 8, 21)], 21),
        ("segmentation,transposed=yes", [(1, 21, 8, 8)], 21),
        ("segmentation,layout=classes", [(1, 8, 8, 1)], 0),
        ("keypoints", [(1, 1, 17, 3)], 17),
        ("keypoints,layout=heatmaps", [(1, 8, 8, 5)], 5),
        ("embedding", [(1, 128)], 0),
    ],
)
def test_task_fits_the_outputs(text: str, shapes: list[tuple[int, ...]], classes: int) -> None:
    """Outputs of the right shapes are accepted, and the number of classes is read from them."""
    spec = parse(text)
    assert spec is not None
    assert (fault_of(spec, shapes), classes_of(spec, shapes)) == ("", classes)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("classification", [(1, 5, 2)]),
        ("classification", [()]),
        ("classification", [(1, 1)]),
        ("classification,output=1", [(1, 10)]),
        ("detection", [(1, 100, 4)]),
        ("detection", [(2, 100, 9)]),
        ("detection,objectness=yes", [(1, 100, 5)]),
        ("detection,background=yes", [(1, 100, 5)]),
        ("detection,layout=separate", [(1, 100, 4), (1, 99, 3)]),
        ("detection,layout=postprocess", [(1, 10, 4), (1, 10), (1, 10), (2,)]),
        ("segmentation", [(1, 8, 8)]),
        ("segmentation,layout=classes", [(1, 8, 8, 2)]),
        ("segmentation", [(1, 8, 8, 256)]),
        ("keypoints", [(1, 17, 4)]),
        ("keypoints", [(2, 17, 3)]),
        ("keypoints,layout=heatmaps", [(1, 8, 8)]),
        ("embedding", [(2, 64)]),
    ],
)
def test_task_that_does_not_fit_is_said(text: str, shapes: list[tuple[int, ...]]) -> None:
    """Outputs that cannot have the meaning are named with what is expected."""
    spec = parse(text)
    assert spec is not None
    assert fault_of(spec, shapes)
