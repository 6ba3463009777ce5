"""The methods of a Python loader that return a task's results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgepack.bundle.tasks import TaskView
from edgepack.choices import Task


@dataclass(frozen=True)
class Parameter:
    """A keyword of the methods.

    Attributes:
        name: Its name.
        type: Its type.
        default: Literal of its default.
        text: Its meaning, a sentence.
    """

    name: str
    type: str
    default: str
    text: str


@dataclass(frozen=True)
class PythonTask:
    """A task as the Python templates see it.

    Attributes:
        title: Title of the module.
        method: Name of the method that takes a frame.
        returns: Type of the result.
        summary: First sentence of that method's docstring.
        summary_of_result: The same of `decode`.
        parameters: Keywords of both.
        mapped: True when results are places in the frame.
        imports: Names that the package takes from `_task`.
        module_imports: Imports of `_task` from `results`, in order.
        fields: Fields of the result with the task's outputs.
        example: What the method returns, for a comment.
    """

    title: str
    method: str
    returns: str
    summary: str
    summary_of_result: str
    parameters: tuple[Parameter, ...]
    mapped: bool
    imports: tuple[str, ...]
    module_imports: tuple[str, ...]
    fields: tuple[str, ...]
    example: str


#: Task -> title, method, type of the result, and what is returned.
_FORMS: Mapping[Task, tuple[str, str, str, str]] = {
    Task.CLASSIFICATION: ("Classes with their scores", "classify", "list[Scored]", "the classes, best first"),
    Task.DETECTION: ("Objects with their boxes", "detect", "list[Detection]", "the objects, best first"),
    Task.SEGMENTATION: ("Classes of pixels", "segment", "Segmentation", "the class of each pixel"),
    Task.KEYPOINTS: ("Key points", "keypoints", "list[Keypoint]", "the key points"),
    Task.EMBEDDING: ("Embeddings", "embed", "NDArray[Any]", "the embedding, a vector of length 1"),
    Task.AUDIO: ("Classes of a sound", "classify", "list[Scored]", "the classes, best first"),
}


def python_task(task: TaskView, fields: Sequence[str]) -> PythonTask:
    """Return the Python view of a task.

    Args:
        task: The task.
        fields: Names of all outputs of the loader's result, in order.
    """
    kind = task.spec.kind
    title, method, returns, what = _FORMS[kind]
    mapped = task.spec.mapped
    where = ", in the frame's own pixels" if kind in (Task.DETECTION, Task.KEYPOINTS) else ""
    own = {
        Task.CLASSIFICATION: {"Scored"},
        Task.DETECTION: {"Detection"},
        Task.SEGMENTATION: {"Segmentation"},
        Task.KEYPOINTS: {"Keypoint"},
        Task.EMBEDDING: {"similarity"},
        Task.AUDIO: {"Listener", "Scored"},
    }[kind] | {"decode"}
    places = {"FrameMapping", "frame_mapping"} if mapped else set()
    return PythonTask(
        title=title,
        method=method,
        returns=returns,
        summary=f"Run the model on a frame and return {what}{where}.",
        summary_of_result=f"Return {what}{where}.",
        parameters=tuple(
            Parameter(one.name, type(one.default).__name__, str(one.default), one.text) for one in task.parameters
        ),
        mapped=mapped,
        # Classes before functions, as tools that sort names have it.
        imports=tuple(sorted(own | places, key=lambda name: (name.islower(), name))),
        module_imports=_module_imports(task),
        fields=tuple(fields[position] for position in task.spec.outputs),
        example=f"{what}{where}",
    )


def _module_imports(task: TaskView) -> tuple[str, ...]:
    """Return the imports from `results`; mapping comes first, as tools that sort imports have it."""
    spec = task.spec
    if spec.kind == Task.DETECTION:
        names = {
            "postprocess": "Detection, postprocessed",
            "joined": "Detection, box_corners, detect, joined_entries",
            "separate": "Detection, box_corners, detect",
        }[spec.layout]
        boxes = f"from .results.boxes import {names}"
        return (boxes, _MAPPING, _ACTIVATED) if spec.layout == "separate" else (boxes, _MAPPING)
    if spec.kind == Task.SEGMENTATION:
        names = "Segmentation, segment" if spec.layout == "classes" else "Segmentation, class_map, segment"
        return (_MAPPING, f"from .results.masks import {names}")
    if spec.kind == Task.KEYPOINTS:
        function = "keypoints_of_heatmaps" if spec.layout == "heatmaps" else "keypoints"
        return (_MAPPING, f"from .results.points import Keypoint, {function}")
    if spec.kind == Task.EMBEDDING:
        return ("from .results.vectors import embed, similarity",)
    scores = "from .results.scores import Scored, classify"
    return (scores, "from .results.windows import Windows") if spec.kind == Task.AUDIO else (scores,)


_ACTIVATED = "from .results.scores import activated"
_MAPPING = "from .results.mapping import FrameMapping, frame_mapping"

#: Names of the package that a model's class may not have.
EXPORTS = frozenset({"Detection", "FrameMapping", "Keypoint", "Listener", "Scored", "Segmentation"})
