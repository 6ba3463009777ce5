"""Results in the C and C++ loader: the same outputs give the same results as the decoder of the Python package."""

import itertools
from pathlib import Path
from typing import Any

import cpp_tools
import numpy as np
import pytest
from bundle_specs import write_tree
from cpp_tools import link, loader_of, run_bytes
from test_bundle_render import with_task

from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.tasks.decode.boxes import box_corners, detect, joined_entries, postprocessed
from edgepack.tasks.decode.mapping import FrameMapping, frame_mapping
from edgepack.tasks.decode.masks import class_map, segment
from edgepack.tasks.decode.points import keypoints, keypoints_of_heatmaps
from edgepack.tasks.decode.scores import activated, classify
from edgepack.tasks.decode.vectors import embed, similarity

pytestmark = pytest.mark.slow

LABELS = ("person", "größe", 'a "b"', "dog")
MAPPINGS = [
    frame_mapping((3, 5, 33, 21), (2, 2), fit, rotation=rotation, mirror=mirror)
    for fit, rotation, mirror in itertools.product(
        ("stretch", "letterbox", "center-crop"), (0, 90, 180, 270), (False, True)
    )
]


@pytest.fixture(autouse=True)
def _compilers() -> None:
    cpp_tools.needs_compilers()


def task_of(text: str, *shapes: tuple[int, ...]) -> BundleSpec:
    """Return a spec on images of 2 by 2 pixels whose float outputs have these shapes and a task."""
    return with_task(text, *shapes, labels=LABELS)


def decoded(spec: BundleSpec, folder: Path, mappings: list[FrameMapping], outputs: list[np.ndarray], body: str) -> str:
    """Return what a C program prints: `body` after the outputs and each mapping are read.

    Args:
        spec: The bundle's values.
        folder: Folder for the bundle and the program.
        mappings: How frames became the input.
        outputs: Float outputs.
        body: Statements in C that decode `values` with `mapping`, and print.
    """
    loader = loader_of(write_tree(render(spec), folder / "bundle"))
    source = folder / "main.c"
    arrays = "".join(f"static float output_{n}[{max(values.size, 1)}];\n" for n, values in enumerate(outputs))
    reads = "".join(f"  read(output_{n}, sizeof output_{n});\n" for n in range(len(outputs)))
    values = ", ".join(f"{{output_{n}, ENGINE_FLOAT32}}" for n in range(len(outputs)))
    source.write_text(f"""
#include <stdio.h>
#include <stdlib.h>
#include "edgepack/frame.h"
#include "task.h"
{arrays}
static void read(void *to, size_t size) {{
  if (fread(to, 1, size, stdin) != size) {{ exit(3); }}
}}
int main(void) {{
{reads}
  const task_values values[] = {{ {values} }};
  double numbers[10];
  while (fread(numbers, sizeof numbers, 1, stdin) == 1) {{
    const edgepack_mapping mapping = {{
      {{(size_t)numbers[0], (size_t)numbers[1], (size_t)numbers[2], (size_t)numbers[3]}},
      (int)numbers[4], (int)numbers[5], numbers[6], numbers[7], numbers[8], numbers[9]}};
    (void)mapping;
{body}
  }}
  return 0;
}}
""")
    numbers = [
        [m.left, m.top, m.width, m.height, m.rotation, m.mirror, m.scale_x, m.scale_y, m.offset_x, m.offset_y]
        for m in mappings
    ]
    stream = b"".join(np.asarray(values, np.float32).tobytes() for values in outputs)
    program = link(folder / "program", [source], [loader])
    done = run_bytes(program, given=stream + np.asarray(numbers, np.float64).tobytes())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "replace")


def numbers_of(text: str) -> list[list[Any]]:
    return [
        [float(part) if index else part for index, part in enumerate(line.split("\t"))] for line in text.splitlines()
    ]


# -- detection ---------------------------------------------------------------------------------------------------------

DETECTIONS = {
    "joined": "detection,score=0.3",
    "sigmoid": "detection,activation=sigmoid,objectness=yes,boxes=xywh,score=0.6",
    "pixels": "detection,units=pixel,boxes=xyxy,transposed=yes,score=0.5,iou=0.2",
    "separate": "detection,layout=separate,boxes=yxyx,activation=softmax,background=yes,score=0.2",
    "postprocess": "detection,layout=postprocess,score=0.5,limit=7",
}


def detection_outputs(name: str, generator: np.random.Generator) -> list[np.ndarray]:
    """Return random outputs with boxes that overlap, equal scores and numbers that are none."""
    count = 60
    boxes = generator.uniform(0.1, 0.6, (count, 4))
    if name in ("pixels", "separate", "postprocess"):
        boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] / 2
    boxes = boxes * 2 if name == "pixels" else boxes
    scores = generator.normal(0, 2, (count, 5)) if name in ("sigmoid", "separate") else generator.random((count, 5))
    scores[20:24] = scores[24:28]
    scores[3, 2], boxes[5, 1] = np.nan, np.inf
    if name == "postprocess":
        classes = generator.integers(0, 6, (1, count))
        return [boxes[None], classes, scores[None, :, 0], np.array([55.0])]
    if name == "separate":
        return [boxes[None], scores[None]]
    entries = np.hstack([boxes, *([generator.normal(0, 2, (count, 1))] if name == "sigmoid" else []), scores])[None]
    return [entries.transpose(0, 2, 1) if name == "pixels" else entries]


def detections(name: str, outputs: list[np.ndarray], mapping: FrameMapping) -> list[Any]:
    """Return the same by the decoder of the Python package."""
    given = [np.asarray(values, np.float32) for values in outputs]
    if name == "postprocess":
        return postprocessed(*given, mapping, LABELS, score=0.5, limit=7)
    if name == "separate":
        scores = activated(given[1][0], "softmax")
        return detect(box_corners(given[0], "yxyx"), scores, mapping, LABELS, background=True, score=0.2)
    activation = "sigmoid" if name == "sigmoid" else "none"
    boxes, scores = joined_entries(
        given[0], transposed=name == "pixels", objectness=name == "sigmoid", activation=activation
    )
    order, size = {"joined": ("cxcywh", None), "sigmoid": ("xywh", None), "pixels": ("xyxy", (2, 2))}[name]
    limits = {"joined": (0.3, 0.45), "sigmoid": (0.6, 0.45), "pixels": (0.5, 0.2)}[name]
    return detect(box_corners(boxes, order, size), scores, mapping, LABELS, score=limits[0], iou=limits[1])


@pytest.mark.parametrize("name", DETECTIONS)
def test_objects_are_those_of_python(tmp_path: Path, name: str) -> None:
    """Labels, numbers, scores and boxes of every layout, activation, order and mapping."""
    outputs = detection_outputs(name, np.random.default_rng(len(name)))
    spec = task_of(DETECTIONS[name], *(values.shape for values in outputs))
    assert spec.task is not None
    text = decoded(
        spec, tmp_path, MAPPINGS, outputs,
        f"""
    static task_candidate candidates[kTaskBoxes];
    static edgepack_detection found[100];
    size_t count = 0;
    const edgepack_thresholds thresholds = {{{spec.task.score}F, {spec.task.iou}F}};
    task_decode(values, candidates, &mapping, thresholds, found, {spec.task.limit}, &count);
    for (size_t i = 0; i < count; ++i) {{
      const edgepack_detection *one = &found[i];
      printf("%s\\t%zu\\t%.9g\\t%.9g\\t%.9g\\t%.9g\\t%.9g\\n", one->label, one->index, (double)one->score,
             (double)one->left, (double)one->top, (double)one->right, (double)one->bottom);
    }}
""",
    )  # fmt: skip
    actual = numbers_of(text)
    expected = [one for mapping in MAPPINGS for one in detections(name, outputs, mapping)]
    assert len(actual) == len(expected) > len(MAPPINGS)
    for line, one in zip(actual, expected, strict=True):
        assert line[:2] == [one.label if one.index < len(LABELS) else "", one.index]
        assert line[2:] == pytest.approx([one.score, one.left, one.top, one.right, one.bottom], rel=1e-6, abs=2e-5)


# -- the other tasks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
def test_classes_are_those_of_python(tmp_path: Path, activation: str) -> None:
    """Best first, equal ones in order, numbers that are none last."""
    scores = np.random.default_rng(1).normal(0, 2, (1, 7))
    scores[0, 2] = scores[0, 5]
    spec = task_of(f"classification,activation={activation}", scores.shape)
    body = """
    static float work[kTaskClasses];
    edgepack_label best[5];
    const size_t count = task_decode(values, work, best, 5);
    for (size_t i = 0; i < count; ++i) {
      printf("%s\\t%zu\\t%.9g\\n", best[i].label, best[i].index, (double)best[i].score);
    }
"""
    actual = numbers_of(decoded(spec, tmp_path, MAPPINGS[:1], [scores], body))
    expected = classify(np.asarray(scores, np.float32), LABELS, activation=activation)
    assert [line[:2] for line in actual] == [[one.label if one.index < 4 else "", one.index] for one in expected]
    assert [line[2] for line in actual] == pytest.approx([one.score for one in expected], rel=1e-6)


SEGMENTATIONS = {
    "scores": ("segmentation", (1, 6, 8, 4)),
    "transposed": ("segmentation,transposed=yes", (1, 4, 6, 8)),
    "one": ("segmentation,activation=sigmoid", (1, 6, 8, 1)),
    "classes": ("segmentation,layout=classes", (1, 6, 8)),
}


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_masks_are_those_of_python(tmp_path: Path, name: str) -> None:
    """The class of each pixel of the crop, for every layout and mapping."""
    text, shape = SEGMENTATIONS[name]
    values = np.random.default_rng(2).normal(0, 1, shape).astype(np.float32)
    if name == "classes":
        values = np.random.default_rng(2).integers(0, 4, shape).astype(np.float32)
    body = """
    static task_memory memory;
    static uint8_t mask[33 * 21];
    task_decode(values, &memory, &mapping, mask);
    for (size_t i = 0; i < sizeof mask; ++i) {
      printf("%d ", (int)mask[i]);
    }
"""
    actual = np.array(decoded(task_of(text, shape), tmp_path, MAPPINGS, [values], body).split(), int)
    if name != "classes":
        values = class_map(values, transposed=name == "transposed", activation="sigmoid" if name == "one" else "none")
    expected = [segment(values, mapping, LABELS).mask.ravel() for mapping in MAPPINGS]
    assert np.array_equal(actual, np.concatenate(expected))


KEYPOINTS = {
    "yx": ("keypoints", (1, 5, 3)),
    "xy": ("keypoints,points=xy,units=pixel", (1, 5, 2)),
    "movenet": ("keypoints", (1, 1, 5, 3)),
    "heatmaps": ("keypoints,layout=heatmaps", (1, 6, 8, 5)),
}


@pytest.mark.parametrize("name", KEYPOINTS)
def test_key_points_are_those_of_python(tmp_path: Path, name: str) -> None:
    """Names, places and scores for every layout and mapping."""
    text, shape = KEYPOINTS[name]
    values = np.random.default_rng(3).random(shape).astype(np.float32)
    body = """
    edgepack_keypoint points[5];
    task_decode(values, &mapping, points);
    for (size_t i = 0; i < 5; ++i) {
      printf("%s\\t%.9g\\t%.9g\\t%.9g\\n", points[i].name, (double)points[i].x, (double)points[i].y,
             (double)points[i].score);
    }
"""
    actual = numbers_of(decoded(task_of(text, shape), tmp_path, MAPPINGS, [values], body))
    for mapping, lines in zip(MAPPINGS, [actual[at : at + 5] for at in range(0, len(actual), 5)], strict=True):
        if name == "heatmaps":
            expected = keypoints_of_heatmaps(values, mapping, LABELS)
        else:
            order, size = ("xy", (2, 2)) if name == "xy" else ("yx", None)
            expected = keypoints(values, mapping, LABELS, order=order, size=size)
        assert [line[0] for line in lines] == [*LABELS, ""]
        places = [number for one in expected for number in (one.x, one.y, one.score)]
        assert [number for line in lines for number in line[1:]] == pytest.approx(places, rel=1e-6, abs=2e-5)


def test_embeddings_are_those_of_python(tmp_path: Path) -> None:
    """Vectors of length 1; their similarity is the cosine."""
    values = np.random.default_rng(4).normal(0, 3, (1, 9)).astype(np.float32)
    other = np.arange(9, dtype=np.float32)
    body = """
    float similarity(const float *, const float *);
    float vector[9];
    float other[9];
    task_decode(values, vector);
    for (int i = 0; i < 9; ++i) {
      printf("%.9g ", (double)vector[i]);
      other[i] = (float)i;
    }
    printf("%.9g ", (double)similarity(output_0, other));
    for (int i = 0; i < 9; ++i) {
      other[i] = 0.0F;
    }
    printf("%.9g", (double)similarity(output_0, other));
""".replace("similarity", "tiny_model_2_0_similarity")
    text = decoded(task_of("embedding", values.shape), tmp_path, MAPPINGS[:1], [values], body)
    actual = [float(part) for part in text.split()]
    assert actual == pytest.approx([*embed(values), similarity(values, other), 0.0], rel=1e-5)
