"""The methods of the Kotlin and Java loaders that return a task's results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgepack.bundle import names
from edgepack.bundle.languages.jvm_tensor import JvmTensor
from edgepack.bundle.tasks import TaskParameter, TaskView
from edgepack.choices import Task
from edgepack.tasks import classes_of

#: Classes of the tasks, which no model's class may be named like.
TASK_CLASSES = names.word_set("""
    AudioStream Candidate Classes Detection Detections Embeddings Keypoint Keypoints Names Scored Segmentation
""")
#: Task -> method, what it returns for Kotlin and for Java, and in words.
_FORMS: Mapping[Task, tuple[str, str, str, str]] = {
    Task.CLASSIFICATION: (
        "classify",
        "List<Scored>",
        "List<Scored>",
        "the classes with the highest scores, best first",
    ),
    Task.DETECTION: ("detect", "List<Detection>", "List<Detection>", "the objects, best first, in pixels of the frame"),
    Task.SEGMENTATION: ("segment", "Segmentation", "Segmentation", "the class of each pixel of the frame"),
    Task.KEYPOINTS: ("keypoints", "List<Keypoint>", "List<Keypoint>", "the key points in pixels of the frame"),
    Task.EMBEDDING: ("embed", "FloatArray", "float[]", "the embedding of length 1"),
    Task.AUDIO: ("classify", "List<Scored>", "List<Scored>", "the classes with the highest scores, best first"),
}


@dataclass(frozen=True)
class JvmParameter:
    """A parameter of a task's methods that has a default.

    Attributes:
        name: Its name.
        type: Its type in Kotlin.
        default: Literal of its default.
        text: Its meaning.
    """

    name: str
    type: str
    default: str
    text: str

    @property
    def kotlin(self) -> str:
        """Name, type and default in Kotlin."""
        return f"{self.name}: {self.type} = {self.default}"

    @property
    def java(self) -> str:
        """Type and name in Java."""
        return f"{self.type.lower()} {self.name}"


@dataclass(frozen=True)
class JvmTask:
    """A task as the Kotlin and Java templates see it.

    Attributes:
        method: Name of the methods.
        kotlin_type: Type of the result.
        java_type: The same in Java.
        text: What is returned, a noun phrase.
        outputs: The task's outputs.
        parameters: Parameters with defaults.
        mapped: True when results are places in a frame.
        frames: True when the model takes frames.
        classes: Number of classes or key points; 0 for a model that returns their numbers.
    """

    method: str
    kotlin_type: str
    java_type: str
    text: str
    outputs: tuple[JvmTensor, ...]
    parameters: tuple[JvmParameter, ...]
    mapped: bool
    frames: bool
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.outputs[0].public.shape


def jvm_task(task: TaskView | None, outputs: Sequence[JvmTensor]) -> JvmTask | None:
    """Return the view of a bundle's task, None without one that the loaders can decode.

    Args:
        task: The bundle's task.
        outputs: All outputs, in file order.
    """
    if task is None:
        return None
    own = tuple(outputs[position] for position in task.spec.outputs)
    # Whole numbers that stand for themselves are the results of a model that ends with ARG_MAX, and of no other.
    if task.spec.layout != "classes" and any(tensor.array != "FloatArray" for tensor in own):
        return None
    kind = task.spec.kind
    method, kotlin_type, java_type, text = _FORMS[kind]
    shapes = [tensor.public.shape for tensor in outputs]
    return JvmTask(
        method=method,
        kotlin_type=kotlin_type,
        java_type=java_type,
        text=text,
        outputs=own,
        parameters=tuple(map(_parameter, task.parameters)),
        mapped=task.spec.mapped,
        frames=task.image is not None,
        classes=classes_of(task.spec, shapes),
    )


def _parameter(parameter: TaskParameter) -> JvmParameter:
    whole = isinstance(parameter.default, int)
    default = str(parameter.default) if whole else names.float32_literal(parameter.default)
    return JvmParameter(parameter.name, "Int" if whole else "Float", default, parameter.text)
