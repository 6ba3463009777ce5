"""The task of a bundle as templates see it."""

from dataclasses import dataclass

from edgepack.bundle.images import ImageView, image_views
from edgepack.bundle.spec import BundleSpec
from edgepack.choices import Task
from edgepack.resources import package_source
from edgepack.tasks import TaskSpec

#: File in the data folder with the names of the task's classes, where they are no output's labels.
TASK_LABELS = "task_labels.txt"


@dataclass(frozen=True)
class TaskParameter:
    """What callers may set when they ask for a task's results.

    Attributes:
        name: Its name.
        default: Its default, a whole number or a threshold.
        text: Its meaning, a sentence.
    """

    name: str
    default: int | float
    text: str


@dataclass(frozen=True)
class TaskView:
    """What the outputs of a bundle's model mean.

    Attributes:
        spec: The task and its facts.
        labels: Names of its classes or key points, in the order of their numbers; empty without names.
        labels_file: File in the data folder with one of them per line, empty without names.
        image: The model's only input where it accepts images, else None: a task on frames needs it.
    """

    spec: TaskSpec
    labels: tuple[str, ...]
    labels_file: str
    image: ImageView | None

    @property
    def kind(self) -> str:
        """The task, `detection`."""
        return str(self.spec.kind)

    @property
    def parameters(self) -> tuple[TaskParameter, ...]:
        """What callers may set, in order."""
        spec = self.spec
        if spec.kind in (Task.CLASSIFICATION, Task.AUDIO):
            return (TaskParameter("k", 5, "Largest number of classes."),)
        if spec.kind != Task.DETECTION:
            return ()
        score = TaskParameter("score", spec.score, "Objects with a lower one are dropped.")
        overlap = "Of two objects of a class that overlap more, the worse one is dropped."
        # TFLite_Detection_PostProcess has dropped duplicates already.
        iou = () if spec.layout == "postprocess" else (TaskParameter("iou", spec.iou, overlap),)
        return (score, *iou, TaskParameter("limit", spec.limit, "Largest number of objects."))


def task_view(spec: BundleSpec) -> TaskView | None:
    """Return the view of a bundle's task, None without one."""
    if spec.task is None:
        return None
    image = next(iter(image_views(spec)), None) if len(spec.inputs) == 1 else None
    return TaskView(spec.task, spec.task_labels, task_labels_file(spec) if spec.task_labels else "", image)


def task_labels_file(spec: BundleSpec) -> str:
    """Return the file with the names of a task's classes: an output's own where that has the same."""
    if spec.task is not None:
        for position in spec.task.outputs:
            if position < len(spec.outputs) and spec.outputs[position].labels == spec.task_labels:
                return f"labels_{position}.txt"
    return TASK_LABELS


def decoder_source(module: str) -> str:
    """Return the source of a module of `edgepack.tasks.decode` as Python packages carry it, with relative imports."""
    source = package_source("tasks", "decode", f"{module}.py")
    return source.replace("from edgepack.tasks.decode.", "from .")
