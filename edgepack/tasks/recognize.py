"""Which task a model performs, from what its file says: a shape that several tasks have is no evidence."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgepack.choices import Task
from edgepack.graph import Graph, Model
from edgepack.graph.op_layout import MOVEMENT_OPS, TYPE_CONVERSIONS
from edgepack.tasks.spec import Shape, TaskSpec, fault_of

#: Custom op of TensorFlow's Object Detection API: boxes, class numbers, scores and count, in this order.
_POSTPROCESS = "TFLite_Detection_PostProcess"
#: Strides of the three maps of the detectors of the YOLO family; N is the number of their cells.
_STRIDES = (8, 16, 32)
#: Number of anchors per cell of those with an objectness (YOLOv5, v7); later ones have one entry per cell.
_ANCHORS = 3
#: MoveNet's output (single pose): 17 points with y, x and score.
_MOVENET = (1, 1, 17, 3)
#: Fewest values of an input that is a waveform: half a second at 8 kHz.
_WAVEFORM = 4000
#: The 17 key points of the COCO data set, in its order.
COCO_KEYPOINTS = (
    *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder"),
    *("left elbow", "right elbow", "left wrist", "right wrist", "left hip", "right hip"),
    *("left knee", "right knee", "left ankle", "right ankle"),
)


@dataclass(frozen=True)
class Recognized:
    """A task that the file shows.

    Attributes:
        spec: The task.
        why: The evidence, one sentence.
        units_unknown: True for boxes of which only a run shows whether they are fractions or pixels.
    """

    spec: TaskSpec
    why: str
    units_unknown: bool = False


def recognize(
    model: Model,
    inputs: Sequence[Shape],
    outputs: Sequence[Shape],
    *,
    classes: int | None,
    labels: int = 0,
    labelled: Collection[int] = (),
) -> Recognized | None:
    """Return the task of a model, None when the file does not show it.

    Args:
        model: The float model.
        inputs: Shapes of its inputs.
        outputs: Shapes of its outputs.
        classes: Position of the output with class scores (`class_scores.output_kinds`), None without one.
        labels: Number of class names that are known, 0 for none.
        labelled: Positions of outputs for which the file has class names.
    """
    found = _postprocess(model.main)
    if found is not None and not fault_of(found, outputs):
        return Recognized(found, f"the model ends in {_POSTPROCESS}")
    image = next((shape for shape in inputs if _is_image(shape)), None)
    if len(outputs) == 1 and image is not None:
        recognized = _of_image(model.main, image, outputs[0], labels or None, labelled)
        if recognized is not None:
            return recognized
    if len(outputs) == 1 and _ends_in(model.main, 0, {"L2_NORMALIZATION"}):
        return Recognized(TaskSpec(Task.EMBEDDING, "vector"), "the model ends in L2_NORMALIZATION")
    if classes is None:
        return None
    if len(inputs) == 1 and _is_waveform(inputs[0]):
        return Recognized(
            TaskSpec(Task.AUDIO, outputs=(classes,)), f"one input of {max(inputs[0])} samples, and scores of classes"
        )
    return Recognized(TaskSpec(Task.CLASSIFICATION, outputs=(classes,)), "an output has scores of classes")


def _is_image(shape: Shape) -> bool:
    return len(shape) == 4 and shape[0] == 1 and shape[3] in (1, 3) and min(shape[1:3]) > 1


def _is_waveform(shape: Shape) -> bool:
    return 1 <= len(shape) <= 2 and max(shape, default=0) >= _WAVEFORM and shape[:-1] in ((), (1,))


def _postprocess(graph: Graph) -> TaskSpec | None:
    """Return the detection whose four results the custom op computes, None where one of them is no output."""
    for op in graph.ops:
        if op.custom_code == _POSTPROCESS and set(op.outputs[:4]) <= set(graph.outputs):
            places = tuple(graph.outputs.index(tensor) for tensor in op.outputs[:4])
            return TaskSpec(Task.DETECTION, "postprocess", places, boxes="yxyx")
    return None


def _of_image(
    graph: Graph, image: Shape, shape: Shape, labels: int | None, labelled: Collection[int]
) -> Recognized | None:
    if shape == _MOVENET:
        return Recognized(TaskSpec(Task.KEYPOINTS, "points"), "17 points with y, x and score, as MoveNet has them")
    if _ends_in(graph, 0, {"ARG_MAX"}) and len(shape) in (3, 4) and _covers(image, shape):
        return Recognized(
            TaskSpec(Task.SEGMENTATION, "classes"), f"ARG_MAX gives class numbers at {shape[1]} x {shape[2]} places"
        )
    if len(shape) == 3 and shape[0] == 1:
        return _entries(image, shape, labels)
    if len(shape) != 4 or shape[0] != 1 or shape[3] < 2 or not _covers(image, shape):
        return None
    if shape[3] == labels or 0 in labelled or _ends_in(graph, 0, {"SOFTMAX"}):
        return Recognized(
            TaskSpec(Task.SEGMENTATION, "scores"), f"scores of {shape[3]} classes at {shape[1]} x {shape[2]} places"
        )
    return None


def _covers(image: Shape, shape: Shape) -> bool:
    """Return whether an output has a cell for each pixel, or for each square of pixels, of the input."""
    height, width = shape[1:3]
    if min(height, width) < 2 or image[1] % height or image[2] % width:
        return False
    return image[1] // height == image[2] // width


def _entries(image: Shape, shape: Shape, labels: int | None) -> Recognized | None:
    """Return the detection of [1, N, 4 + C] or the like, where N is the number of cells of an input of this size."""
    cells = sum((image[1] // stride) * (image[2] // stride) for stride in _STRIDES)
    for objectness, count in ((False, cells), (True, _ANCHORS * cells)):
        for transposed in (True, False):
            entries, size = (shape[2], shape[1]) if transposed else (shape[1], shape[2])
            classes = size - (5 if objectness else 4)
            if entries == count and classes >= 1 and labels in (None, classes):
                spec = TaskSpec(Task.DETECTION, "joined", transposed=transposed, objectness=objectness)
                why = f"{count} entries of {size} numbers, as many as an input of this size has cells"
                return Recognized(spec, why, units_unknown=True)
    return None


def _ends_in(graph: Graph, output: int, names: Collection[str]) -> bool:
    """Return whether one of these ops computes an output's values, before ops that only move or convert them."""
    tensor = graph.outputs[output]
    while (producer := graph.producers.get(tensor)) is not None:
        op = graph.ops[producer]
        moved = 0 if op.name in TYPE_CONVERSIONS else MOVEMENT_OPS.get(op.name)
        if moved is None:
            return op.name in names
        tensor = op.inputs[moved]
    return False
