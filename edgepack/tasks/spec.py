"""What the outputs of a model mean, as data: parsed from `--task`, written into manifests, read by templates."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from edgepack.choices import Task, alternatives
from edgepack.errors import UsageError

Shape = tuple[int, ...]

#: Value of `--task` for a model whose outputs stay numbers.
NO_TASK = "none"
#: Layouts of each task; the first is the usual one.
LAYOUTS: Mapping[Task, tuple[str, ...]] = {
    Task.CLASSIFICATION: ("scores",),
    Task.DETECTION: ("joined", "separate", "postprocess"),
    Task.SEGMENTATION: ("scores", "classes"),
    Task.KEYPOINTS: ("points", "heatmaps"),
    Task.EMBEDDING: ("vector",),
    Task.AUDIO: ("scores",),
}
#: A mask has 8 bits, of which one value stands for what the model did not see.
_MOST_CLASSES = 255
#: Facts that may be given with a task, and their values; flags are `yes` or `no`.
_WORDS: Mapping[str, tuple[str, ...]] = {
    "boxes": ("cxcywh", "xywh", "xyxy", "yxyx"),
    "units": ("fraction", "pixel"),
    "points": ("yx", "xy"),
    "activation": ("none", "sigmoid", "softmax"),
}
_FLAGS = ("transposed", "objectness", "background")
_NUMBERS = {"score": (0.0, 1.0), "iou": (0.0, 1.0), "limit": (1.0, 100_000.0), "rate": (1.0, 1e6)}
_ALLOWED: Mapping[Task, tuple[str, ...]] = {
    Task.CLASSIFICATION: ("output", "activation"),
    Task.DETECTION: (
        *("layout", "output", "outputs", "boxes", "units", "activation", "transposed", "objectness", "background"),
        *("score", "iou", "limit"),
    ),
    Task.SEGMENTATION: ("layout", "output", "activation", "transposed"),
    Task.KEYPOINTS: ("layout", "output", "points", "units"),
    Task.EMBEDDING: ("output",),
    Task.AUDIO: ("output", "activation", "rate"),
}
#: Sides of the outputs of each layout of a detection, in the order of `TaskSpec.outputs`.
ROLES: Mapping[str, tuple[str, ...]] = {
    "joined": ("entries",),
    "separate": ("boxes", "scores"),
    "postprocess": ("boxes", "classes", "scores", "count"),
}


@dataclass(frozen=True)
class TaskSpec:
    """What a model's outputs mean.

    Attributes:
        kind: The task.
        layout: Form of the outputs, one of `LAYOUTS`. `joined`: [1, N, 4 + C] or [1, N, 5 + C] of one output.
            `separate`: boxes [1, N, 4] and scores [1, N, C]. `postprocess`: the four outputs of
            TFLite_Detection_PostProcess. `classes`: class numbers instead of scores. `heatmaps`: [1, H, W, K] instead
            of [1, K, 2 or 3] or [1, 1, K, 3].
        outputs: Positions of the outputs, for a detection in the order of `ROLES`.
        boxes: Order of a box's numbers: `cxcywh` (centre and size), `xywh` (corner and size), `xyxy` or `yxyx`.
        units: Whether coordinates are fractions of the input's size or its pixels.
        points: Order of a key point's coordinates.
        activation: What makes probabilities of the scores.
        transposed: The entries' axis is the last one: [1, 4 + C, N]; of a segmentation [1, C, H, W].
        objectness: Each entry has a fifth number, with which the scores are multiplied.
        background: The first class is no class, and is dropped.
        score: Results with a lower score are dropped.
        iou: Of two boxes of a class whose intersection over union is larger, the one with the lower score is dropped.
        limit: Largest number of results.
        rate: Samples of audio per second, 0 when unknown.
    """

    kind: Task
    layout: str = "scores"
    outputs: tuple[int, ...] = (0,)
    boxes: str = "cxcywh"
    units: str = "fraction"
    points: str = "yx"
    activation: str = "none"
    transposed: bool = False
    objectness: bool = False
    background: bool = False
    score: float = 0.25
    iou: float = 0.45
    limit: int = 100
    rate: int = 0

    @property
    def output(self) -> int:
        """Position of the first output."""
        return self.outputs[0]

    @property
    def mapped(self) -> bool:
        """True when results are places in a frame."""
        return self.kind in (Task.DETECTION, Task.SEGMENTATION, Task.KEYPOINTS)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's `task`: the facts that matter for the kind."""
        known = {name.removesuffix("s") if name == "outputs" else name for name in _ALLOWED[self.kind]}
        facts = {key: value for key, value in asdict(self).items() if key in known}
        return {"kind": str(self.kind), "layout": self.layout, "outputs": list(self.outputs), **facts}


def parse(text: str) -> TaskSpec | None:
    """Parse `--task`: a kind, then facts such as `detection,boxes=cxcywh,units=pixel`.

    Returns:
        The task; None for `none`.

    Raises:
        UsageError: An unknown kind, fact or value.
    """
    kind_text, *facts = (part.strip() for part in text.split(","))
    if kind_text == NO_TASK and not facts:
        return None
    try:
        kind = Task(kind_text)
    except ValueError:
        raise UsageError(
            f"--task: expected {alternatives([*Task, NO_TASK])}, got '{kind_text[:40]}'",
            hint="facts come after the task: detection,boxes=cxcywh,units=pixel",
        ) from None
    values: dict[str, Any] = {"layout": LAYOUTS[kind][0]}
    for fact in facts:
        key, separator, value = (part.strip() for part in fact.partition("="))
        if not separator or key not in _ALLOWED[kind]:
            raise UsageError(
                f"--task: unknown fact '{fact[:40]}' of {kind}",
                hint=f"its facts are {', '.join(_ALLOWED[kind])}, each as NAME=VALUE",
            )
        values.update(_value(kind, key, value))
    spec = TaskSpec(kind, **values)
    if kind == Task.DETECTION and len(spec.outputs) != len(ROLES[spec.layout]):
        if "outputs" in values or len(ROLES[spec.layout]) == 1:
            raise UsageError(
                f"--task: the layout {spec.layout} has {len(ROLES[spec.layout])} outputs, got {len(spec.outputs)}",
                hint=f"give outputs={'+'.join(str(n) for n in range(len(ROLES[spec.layout])))}: the positions of "
                f"{', '.join(ROLES[spec.layout])}",
            )
        spec = replace(spec, outputs=tuple(range(len(ROLES[spec.layout]))))
    return spec


def _value(kind: Task, key: str, text: str) -> dict[str, Any]:
    """Return the field that a fact sets.

    Raises:
        UsageError: The value has another form.
    """
    words = LAYOUTS[kind] if key == "layout" else _WORDS.get(key)
    if words is not None:
        if text not in words:
            raise UsageError(f"--task: {key}: expected {alternatives(words)}, got '{text[:40]}'")
        return {key: text}
    if key in _FLAGS:
        if text not in ("yes", "no"):
            raise UsageError(f"--task: {key}: expected yes or no, got '{text[:40]}'")
        return {key: text == "yes"}
    if key in ("output", "outputs"):
        parts = text.split("+")
        if not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in parts):
            raise UsageError(f"--task: {key}: expected positions such as 0 or 0+1, got '{text[:40]}'")
        return {"outputs": tuple(int(part) for part in parts)}
    low, high = _NUMBERS[key]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    whole = key in ("limit", "rate")
    if not low <= number <= high or (whole and not number.is_integer()):
        raise UsageError(f"--task: {key}: expected a number from {low:g} to {high:g}, got '{text[:40]}'")
    return {key: int(number) if whole else number}


def from_json(document: Mapping[str, Any]) -> TaskSpec:
    """Return the task of a manifest: the inverse of `TaskSpec.to_json`.

    Args:
        document: A `task` that the manifest's schema accepts.

    Raises:
        ValueError: A word that no task has.
    """
    for key, words in {**_WORDS, "layout": LAYOUTS[Task(document["kind"])]}.items():
        if document.get(key, words[0]) not in words:
            raise ValueError(f"{key}: expected {alternatives(words)}, got '{document[key][:40]}'")
    known = {one.name for one in fields(TaskSpec)}
    facts = {key: value for key, value in document.items() if key in known and key not in ("kind", "outputs")}
    return TaskSpec(Task(document["kind"]), outputs=tuple(document["outputs"]), **facts)


def fault_of(spec: TaskSpec, shapes: Sequence[Shape]) -> str:
    """Return why the outputs of a model cannot have this meaning, empty when they can.

    Args:
        spec: The task.
        shapes: Shapes of the outputs.
    """
    expected_outputs = len(ROLES[spec.layout]) if spec.kind == Task.DETECTION else 1
    if len(spec.outputs) != expected_outputs:
        return f"expected {expected_outputs} positions of outputs, got {len(spec.outputs)}"
    if max(spec.outputs) >= len(shapes):
        return f"there is no output {max(spec.outputs)}: the model has {len(shapes)}"
    chosen = [shapes[position] for position in spec.outputs]
    expected = _EXPECTED[spec.kind](spec, *chosen)
    found = ", ".join(str(list(shape)) for shape in chosen)
    return f"expected {expected}, got {found}" if expected else ""


def classes_of(spec: TaskSpec, shapes: Sequence[Shape]) -> int:
    """Return the number of classes or key points that the outputs have values for, background included; 0 if unknown.

    Args:
        spec: The task.
        shapes: Shapes of the outputs.
    """
    shape = shapes[spec.output]
    if spec.kind == Task.DETECTION:
        if spec.layout == "postprocess":
            return 0
        if spec.layout == "separate":
            return shapes[spec.outputs[1]][-1]
        return shape[1 if spec.transposed else 2] - 4 - int(spec.objectness)
    if spec.kind == Task.SEGMENTATION:
        return 0 if spec.layout == "classes" else shape[1 if spec.transposed else 3]
    if spec.kind == Task.KEYPOINTS:
        return shape[3] if spec.layout == "heatmaps" else shape[-2]
    return math.prod(shape) if spec.kind in (Task.CLASSIFICATION, Task.AUDIO) else 0


def _vector(_: TaskSpec, shape: Shape) -> str:
    return "" if shape and math.prod(shape) == max(shape) and math.prod(shape) > 1 else "a vector of scores"


def _detection(spec: TaskSpec, *shapes: Shape) -> str:
    if spec.layout == "postprocess":
        boxes, classes, scores, count = shapes
        fits = len(boxes) == 3 and boxes[0] == 1 and boxes[2] == 4 and math.prod(count) == 1
        entries = boxes[1] if len(boxes) == 3 else 0
        return "" if fits and classes == scores == (1, entries) else "boxes [1, N, 4], classes and scores [1, N], count"
    if spec.layout == "separate":
        boxes, scores = shapes
        fits = len(boxes) == len(scores) == 3 and boxes[0] == 1 and boxes[2] == 4 and boxes[:2] == scores[:2]
        return "" if fits and scores[2] > int(spec.background) else "boxes [1, N, 4] and scores [1, N, classes]"
    (shape,) = shapes
    first = 5 if spec.objectness else 4
    fits = len(shape) == 3 and shape[0] == 1 and shape[1 if spec.transposed else 2] > first + int(spec.background)
    order = f"[1, {first} + classes, N]" if spec.transposed else f"[1, N, {first} + classes]"
    return "" if fits else order


def _segmentation(spec: TaskSpec, shape: Shape) -> str:
    if spec.layout == "classes":
        fits = len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)
        return "" if fits and shape[0] == 1 else "class numbers [1, height, width]"
    order = "[1, classes, height, width]" if spec.transposed else "[1, height, width, classes]"
    fits = len(shape) == 4 and shape[0] == 1 and shape[1 if spec.transposed else 3] <= _MOST_CLASSES
    return "" if fits else f"{order} of at most {_MOST_CLASSES} classes"


def _keypoints(spec: TaskSpec, shape: Shape) -> str:
    if spec.layout == "heatmaps":
        return "" if len(shape) == 4 and shape[0] == 1 else "[1, height, width, points]"
    fits = len(shape) in (3, 4) and set(shape[:-2]) == {1} and shape[-1] in (2, 3)
    return "" if fits else "[1, points, 2 or 3]"


def _embedding(_: TaskSpec, shape: Shape) -> str:
    return "" if shape and math.prod(shape) == max(shape) and math.prod(shape) > 1 else "a vector"


_EXPECTED: Mapping[Task, Callable[..., str]] = {
    Task.CLASSIFICATION: _vector,
    Task.DETECTION: _detection,
    Task.SEGMENTATION: _segmentation,
    Task.KEYPOINTS: _keypoints,
    Task.EMBEDDING: _embedding,
    Task.AUDIO: _vector,
}
