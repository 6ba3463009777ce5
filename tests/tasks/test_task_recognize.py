"""A task is recognized only where the file shows it."""

from collections.abc import Callable

import pytest
from builders import Net

from edgepack.choices import Task
from edgepack.graph import read_model
from edgepack.tasks import TaskSpec
from edgepack.tasks.recognize import recognize

Shape = tuple[int, ...]
IMAGE: Shape = (1, 64, 96, 3)
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def model(output: Shape, last: str = "RELU", source: Shape = IMAGE) -> bytes:
    """A model whose output has a shape and comes from an op; it is read, never run."""
    net = Net()
    x, y = net.tensor("x", source), net.tensor("y", output)
    net.op(last, [x], [y])
    return net.build([x], [y])


@pytest.mark.parametrize(
    ("output", "last", "labels", "expected"),
    [
        ((1, 9, CELLS), "RELU", 0, TaskSpec(Task.DETECTION, "joined", transposed=True)),
        ((1, CELLS, 9), "RELU", 5, TaskSpec(Task.DETECTION, "joined")),
        ((1, 3 * CELLS, 9), "RELU", 4, TaskSpec(Task.DETECTION, "joined", objectness=True)),
        ((1, 1, 17, 3), "RELU", 0, TaskSpec(Task.KEYPOINTS, "points")),
        ((1, 64, 96, 4), "SOFTMAX", 0, TaskSpec(Task.SEGMENTATION, "scores")),
        ((1, 32, 48, 4), "RELU", 4, TaskSpec(Task.SEGMENTATION, "scores")),
        ((1, 64, 96), "ARG_MAX", 0, TaskSpec(Task.SEGMENTATION, "classes")),
        ((1, 128), "L2_NORMALIZATION", 0, TaskSpec(Task.EMBEDDING, "vector")),
        # No evidence: entries of another number, an image, a mask or depth, unlabelled maps, a vector.
        ((1, CELLS - 1, 9), "RELU", 0, None),
        ((1, CELLS, 9), "RELU", 7, None),
        ((1, 64, 96, 3), "RELU", 0, None),
        ((1, 64, 96, 1), "LOGISTIC", 0, None),
        ((1, 20, 48, 4), "SOFTMAX", 0, None),
        ((1, 10), "RELU", 0, None),
    ],
)
def test_task_of_images(output: Shape, last: str, labels: int, expected: TaskSpec | None) -> None:
    """The last op, the shapes and the number of labels decide; a shape alone that several tasks have does not."""
    found = recognize(read_model(model(output, last)), [IMAGE], [output], classes=None, labels=labels)
    assert (None if found is None else found.spec) == expected


@pytest.mark.parametrize(
    ("source", "kind"),
    [(IMAGE, Task.CLASSIFICATION), ((1, 16000), Task.AUDIO), ((15600,), Task.AUDIO), ((1, 40), Task.CLASSIFICATION)],
)
def test_scores_of_classes(source: Shape, kind: Task) -> None:
    """Scores of classes are a classification, of a waveform one of audio."""
    found = recognize(read_model(model((1, 5), "SOFTMAX", source)), [source], [(1, 5)], classes=0)
    assert found is not None and found.spec.kind == kind


def test_postprocess_is_read_from_the_custom_op(custom: Callable[[list[int]], bytes]) -> None:
    """The four results of TFLite_Detection_PostProcess are found in whatever order the file lists them."""
    data = custom([2, 0, 3, 1])
    shapes = [(1, 10), (1, 10, 4), (1,), (1, 10)]
    found = recognize(read_model(data), [IMAGE], shapes, classes=None)
    assert found is not None
    assert found.spec == TaskSpec(Task.DETECTION, "postprocess", (1, 3, 0, 2), boxes="yxyx")


@pytest.fixture
def custom() -> Callable[[list[int]], bytes]:
    """A model that ends in the custom op; the argument is the order of its outputs in the file."""
    from edgepack.graph.edit import pack, unpack
    from edgepack.graph.read import schema

    def build(order: list[int]) -> bytes:
        net = Net()
        x = net.tensor("x", IMAGE)
        results = [net.tensor(f"r{n}", shape) for n, shape in enumerate([(1, 10, 4), (1, 10), (1, 10), (1,)])]
        net.op("RELU", [x], results)
        whole = unpack(net.build([x], [results[n] for n in order]))
        code = whole.operatorCodes[0]
        code.builtinCode, code.deprecatedBuiltinCode = schema().BuiltinOperator.CUSTOM, 32
        code.customCode = b"TFLite_Detection_PostProcess"
        return pack(whole)

    return build
