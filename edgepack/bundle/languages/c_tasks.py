"""The functions of the C and C++ loader that return a task's results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgepack.bundle import names
from edgepack.bundle.tasks import TaskView
from edgepack.bundle.views import TensorView, label_lines
from edgepack.choices import Task
from edgepack.tasks import TaskSpec, classes_of

_CLASSIFY = (
    "classify",
    "the classes with the highest scores, best first, and their number",
    ("edgepack_label *best", "size_t capacity", "size_t *count"),
)
#: Task -> name of the function, what it returns, parameters for the results of the C functions.
_FORMS: Mapping[Task, tuple[str, str, tuple[str, ...]]] = {
    Task.CLASSIFICATION: _CLASSIFY,
    Task.DETECTION: (
        "detect",
        "the objects, best first, and their number; null thresholds are those of the build",
        ("const edgepack_thresholds *thresholds", "edgepack_detection *found", "size_t capacity", "size_t *count"),
    ),
    Task.SEGMENTATION: (
        "segment",
        "the class of each pixel of the crop rectangle, row by row; 255 where the model saw nothing",
        ("uint8_t *mask", "size_t size"),
    ),
    Task.KEYPOINTS: ("keypoints", "all key points", ("edgepack_keypoint *points",)),
    Task.EMBEDDING: ("embed", "the embedding, a vector of length 1", ("float *vector",)),
    Task.AUDIO: _CLASSIFY,
}

_FILES: Mapping[Task, str] = {
    Task.CLASSIFICATION: "task_scores.c",
    Task.DETECTION: "task_boxes.c",
    Task.SEGMENTATION: "task_masks.c",
    Task.KEYPOINTS: "task_points.c",
    Task.EMBEDDING: "task_vectors.c",
    Task.AUDIO: "task_scores.c",
}


@dataclass(frozen=True)
class CppForm:
    """A task in the C++ API.

    Attributes:
        type: Type of the result.
        text: What is returned, for a comment.
        parameters: Parameters besides what is decoded.
        arguments: Their names.
        before: Statements that make room for the C function.
        passed: Arguments of the C function.
        after: Statements that return what it wrote.
    """

    type: str
    text: str
    parameters: tuple[str, ...]
    arguments: tuple[str, ...]
    before: tuple[str, ...]
    passed: tuple[str, ...]
    after: tuple[str, ...]


def _cpp_form(spec: TaskSpec, macro: str, values: int) -> CppForm:
    if spec.kind == Task.DETECTION:
        thresholds = f"{{{names.float32_literal(spec.score)}, {names.float32_literal(spec.iou)}}}"
        return CppForm(
            "std::vector<Detection>",
            "the objects, best first",
            (f"edgepack_thresholds thresholds = {thresholds}", f"std::size_t limit = {macro}_DETECTIONS"),
            ("thresholds", "limit"),
            ("std::vector<edgepack_detection> found(limit + 1);", "std::size_t count = 0;"),
            ("&thresholds", "found.data()", "limit", "&count"),
            (
                "std::vector<Detection> detections;",
                "for (std::size_t i = 0; i < count; ++i) {",
                "  const edgepack_detection &d = found[i];",
                "  const std::string label = name_of(d.label, d.index);",
                "  detections.push_back(Detection{label, d.index, d.score, d.left, d.top, d.right, d.bottom});",
                "}",
                "return detections;",
            ),
        )
    if spec.kind == Task.SEGMENTATION:
        return CppForm(
            "Mask",
            "the class of each pixel of its crop rectangle",
            (),
            (),
            (
                "Mask mask{mapping.crop.width, mapping.crop.height, {}};",
                "mask.classes.resize(mask.width * mask.height + 1);",
            ),
            ("mask.classes.data()", "mask.classes.size()"),
            ("mask.classes.pop_back();", "return mask;"),
        )
    if spec.kind == Task.KEYPOINTS:
        return CppForm(
            "std::vector<Keypoint>",
            "all key points",
            (),
            (),
            (f"std::vector<edgepack_keypoint> points({macro}_KEYPOINTS);",),
            ("points.data()",),
            (
                "std::vector<Keypoint> found;",
                "for (std::size_t i = 0; i < points.size(); ++i) {",
                "  found.push_back(Keypoint{name_of(points[i].name, i), points[i].x, points[i].y, points[i].score});",
                "}",
                "return found;",
            ),
        )
    if spec.kind == Task.EMBEDDING:
        return CppForm(
            "std::vector<float>",
            "the embedding, a vector of length 1",
            (),
            (),
            (f"std::vector<float> vector({values});",),
            ("vector.data()",),
            ("return vector;",),
        )
    return CppForm(
        "std::vector<Label>",
        "the classes with the highest scores, best first",
        ("std::size_t k = 5",),
        ("k",),
        ("std::vector<edgepack_label> best(k + 1);", "std::size_t count = 0;"),
        ("best.data()", "k", "&count"),
        ("return labels_of(best, count);",),
    )


@dataclass(frozen=True)
class CTask:
    """A task as the C templates see it.

    Attributes:
        kind: The task, `detection`.
        spec: The task and its facts.
        file: Source file that has the task's own code.
        method: Name of the function.
        text: What it writes, for comments.
        parameters: Its parameters for results.
        arguments: Their names.
        mapped: True when results are places in the frame.
        labels: Names of classes or key points; as many as there are, where that is known.
        count: Number of boxes, classes, key points or values.
        classes: Number of classes of a detection, background included.
        width: Numbers of an entry or of a key point.
        rows: Rows of cells of a segmentation or of heat maps.
        columns: Their columns.
        pixels: Width and height of the input where coordinates are its pixels, else empty.
        score: C literal of the smallest score.
        iou: C literal of the largest intersection over union.
        cpp: The same in C++.
    """

    kind: str
    spec: TaskSpec
    file: str
    method: str
    text: str
    parameters: tuple[str, ...]
    arguments: tuple[str, ...]
    mapped: bool
    labels: tuple[str, ...]
    count: int
    classes: int
    width: int
    rows: int
    columns: int
    pixels: tuple[int, ...]
    score: str
    iou: str
    cpp: CppForm


def c_task(task: TaskView, macro: str, inputs: Sequence[TensorView], outputs: Sequence[TensorView]) -> CTask:
    """Return the C view of a task.

    Args:
        task: The task.
        macro: Prefix of the model's macros.
        inputs: Inputs, in file order.
        outputs: Outputs, in file order.
    """
    spec = task.spec
    shapes = [view.public.shape for view in outputs]
    shape = shapes[spec.output]
    classes = classes_of(spec, shapes)
    method, text, parameters = _FORMS[spec.kind]
    count = {
        Task.DETECTION: shape[-1] if spec.transposed and spec.kind == Task.DETECTION else shape[min(1, len(shape) - 1)],
        Task.EMBEDDING: math.prod(shape),
    }.get(spec.kind, classes)
    labels = tuple(label_lines(task.labels))
    if spec.kind in (Task.CLASSIFICATION, Task.AUDIO, Task.KEYPOINTS) and (labels or spec.kind != Task.KEYPOINTS):
        labels = (*labels[:classes], *[""] * (classes - len(labels)))
    rows, columns = _cells(spec, shape)
    in_pixels = task.image is not None and spec.units == "pixel" and spec.layout != "postprocess"
    return CTask(
        kind=task.kind,
        spec=spec,
        file=_FILES[spec.kind],
        method=method,
        text=text,
        parameters=parameters,
        arguments=tuple(parameter.split()[-1].lstrip("*") for parameter in parameters),
        mapped=spec.mapped,
        labels=labels,
        count=count,
        classes=classes,
        width=shape[1] if spec.transposed else shape[-1] if shape else 1,
        rows=rows,
        columns=columns,
        pixels=(inputs[0].shape[2], inputs[0].shape[1]) if in_pixels else (),
        score=names.float32_literal(spec.score),
        iou=names.float32_literal(spec.iou),
        cpp=_cpp_form(spec, macro, count),
    )


def _cells(spec: TaskSpec, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns of the cells of a segmentation or of heat maps; zeros for another task."""
    if spec.kind == Task.SEGMENTATION:
        first = 2 if spec.transposed else 1
        return shape[first], shape[first + 1]
    return (shape[1], shape[2]) if spec.kind == Task.KEYPOINTS and spec.layout == "heatmaps" else (0, 0)
