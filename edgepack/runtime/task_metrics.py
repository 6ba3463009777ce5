"""Accuracy of detections and segmentations against the truth: mAP@50 by COCO's own code, and mean IoU."""

import contextlib
import copy
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.choices import Task
from edgepack.distribution import require_module
from edgepack.errors import SamplesError
from edgepack.runtime.confidence import Z
from edgepack.samples.source import SampleSet
from edgepack.samples.truth import IGNORED, Truth
from edgepack.tasks import TaskSpec
from edgepack.tasks.decode.mapping import frame_mapping
from edgepack.tasks.decode.masks import UNSEEN
from edgepack.tasks.results import class_mask, detections

Array = npt.NDArray[Any]

#: Objects per image that COCO's metric takes, and the score from which they are collected: precision is integrated over
#: all scores, so a threshold for an app does not belong here (YOLOv5's validation has the same).
_OBJECTS, _LOWEST_SCORE = 100, 0.001
#: Groups of images that are left out one after another for the confidence interval.
_GROUPS = 20
#: A mask has 8 bits.
_CLASSES = 256


@dataclass(frozen=True)
class TaskQuality:
    """Accuracy of a converted model at its task, in percent.

    Attributes:
        metric: `mAP@50` (mean over the categories of the average precision at an intersection over union of 0.5, as
            COCO computes it) or `mIoU` (mean intersection over union of the classes that occur).
        value: Of the converted model.
        value_float: Of the float model.
        interval: 95 % confidence interval of the loss in percentage points, by leaving out groups of images; None with
            one image.
        strict: Of detections, the mean over the thresholds 0.5 to 0.95 (mAP@50-95); None for masks.
        strict_float: The same of the float model.
    """

    metric: str
    value: float
    value_float: float
    interval: tuple[float, float] | None = None
    strict: float | None = None
    strict_float: float | None = None

    @property
    def drop(self) -> float:
        """Loss in percentage points."""
        return self.value_float - self.value

    def to_json(self) -> dict[str, Any]:
        """Return `quality.task` of JSON documents, with rounded figures."""
        return {
            "metric": self.metric,
            "value": round(self.value, 3),
            "value_float": round(self.value_float, 3),
            "interval": None if self.interval is None else [round(value, 2) for value in self.interval],
            "strict": None if self.strict is None else round(self.strict, 3),
            "strict_float": None if self.strict_float is None else round(self.strict_float, 3),
        }


class TaskMeter:
    """Collects the results of the float model and of converted ones, sample by sample.

    Args:
        spec: The task, a detection or a segmentation.
        labels: Names of its classes, empty when they are unknown.
        samples: Samples with their truth.
        size: Width and height of the model's input.

    Raises:
        SamplesError: The truth is of another task, or none of its categories is a class.
    """

    def __init__(self, spec: TaskSpec, labels: Sequence[str], samples: SampleSet, size: tuple[int, int]) -> None:
        assert samples.truth is not None
        self._spec, self._truth, self._size, self._resize = spec, samples.truth, size, str(samples.resize)
        wanted = Task.DETECTION if samples.truth.objects else Task.SEGMENTATION
        if spec.kind != wanted:
            raise SamplesError(
                f"the samples have {'objects' if samples.truth.objects else 'masks'}, and the task is {spec.kind}",
                hint=f"give --task {wanted}, or samples for {spec.kind}",
            )
        self._categories = class_categories(spec, labels, samples.truth) if samples.truth.objects else {}
        self._found: dict[str, list[Array]] = {}

    def add(self, key: str, number: int, outputs: Sequence[Array]) -> None:
        """Add the outputs of a model for a sample, as real values.

        Args:
            key: Names the model.
            number: Position of the sample; samples come in their order.
            outputs: All outputs.
        """
        results = self._found.setdefault(key, [])
        assert len(results) == number
        if self._truth.objects:
            results.append(self._objects(number, outputs))
        else:
            results.append(self._overlaps(number, outputs))

    def result(self, reference: str, key: str) -> TaskQuality:
        """Return the accuracy of a model beside that of the reference."""
        if self._truth.objects:
            return _average_precision(self._truth, self._found[reference], self._found[key])
        return _mean_overlap(self._found[reference], self._found[key])

    def _objects(self, number: int, outputs: Sequence[Array]) -> Array:
        """Return COCO's rows of an image's objects: left, top, width, height, score, category."""
        width, height = self._truth.sizes[number]
        mapping = frame_mapping((0, 0, width, height), self._size, self._resize)
        found = detections(self._spec, outputs, mapping, self._size, score=_LOWEST_SCORE, limit=_OBJECTS)
        rows = [
            (one.left, one.top, one.right - one.left, one.bottom - one.top, one.score, self._categories[one.index])
            for one in found
            if one.index in self._categories
        ]
        return np.asarray(rows, np.float64).reshape(-1, 6)

    def _overlaps(self, number: int, outputs: Sequence[Array]) -> Array:
        """Return the intersection and the union of each class in an image, in pixels, (2, classes)."""
        truth = self._truth.mask(number)
        mapping = frame_mapping((0, 0, truth.shape[1], truth.shape[0]), self._size, self._resize)
        mask = class_mask(self._spec, outputs, mapping)
        counted = (truth != IGNORED) & (mask != UNSEEN)
        true, found = truth[counted], mask[counted]
        both = np.bincount(true[true == found], minlength=_CLASSES)
        sums = np.bincount(true, minlength=_CLASSES) + np.bincount(found, minlength=_CLASSES)
        return np.stack([both, sums - both])


def class_categories(spec: TaskSpec, labels: Sequence[str], truth: Truth) -> dict[int, int]:
    """Return the id of the category of each class that has one: by name, else in the order of the ids.

    The class numbers of TFLite_Detection_PostProcess are COCO's ids less one, which leaves gaps.

    Raises:
        SamplesError: There are names, and no category has one of them.
    """
    categories = truth.categories or {}
    by_name = {name.strip().casefold(): number for number, name in categories.items()}
    found = {
        index: by_name[name.strip().casefold()]
        for index, name in enumerate(labels)
        if name.strip().casefold() in by_name
    }
    if found:
        return found
    if labels and set(by_name) - {""}:
        raise SamplesError(
            f"no category of the samples ({', '.join(sorted(by_name)[:3])}, ...) is a class of the model "
            f"({', '.join(labels[:3])}, ...)",
            hint="give --labels with the names that the categories have",
        )
    if spec.layout == "postprocess":
        return {number - 1: number for number in categories}
    return {index + int(spec.background): number for index, number in enumerate(sorted(categories))}


def _average_precision(truth: Truth, reference: Sequence[Array], results: Sequence[Array]) -> TaskQuality:
    counts = range(len(truth.objects))
    truth_set = _coco_truth(truth)
    evaluations = [_coco_evaluation(truth_set, found) for found in (reference, results)]

    def difference(images: Sequence[int]) -> float:
        first, second = (_precision(one, images)[0] for one in evaluations)
        return first - second

    (value_float, strict_float), (value, strict) = (_precision(one, counts) for one in evaluations)
    interval = _interval(difference, len(counts), value_float - value)
    return TaskQuality("mAP@50", value, value_float, interval, strict, strict_float)


def _coco_truth(truth: Truth) -> Any:
    """Return pycocotools' form of the objects; images have the ids 1, 2, ..."""
    require_module("pycocotools", "pycocotools", "measuring a detector")
    from pycocotools.coco import COCO

    whole = COCO()
    annotations = [
        {"image_id": number + 1, "category_id": one.category, "bbox": list(one.box), "iscrowd": int(one.crowd)}
        for number, objects in enumerate(truth.objects)
        for one in objects
    ]
    whole.dataset = {
        "images": [{"id": number + 1} for number in range(len(truth.objects))],
        "annotations": [
            {**entry, "id": number + 1, "area": entry["bbox"][2] * entry["bbox"][3]}  # type: ignore[index]
            for number, entry in enumerate(annotations)
        ],
        "categories": [{"id": number} for number in sorted(truth.categories or {})],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        whole.createIndex()
    return whole


def _coco_evaluation(truth: Any, found: Sequence[Array]) -> Any:
    """Return pycocotools' evaluation of all images, None where nothing was found."""
    from pycocotools.cocoeval import COCOeval

    rows = [np.hstack([np.full((len(one), 1), number + 1.0), one]) for number, one in enumerate(found)]
    table = np.vstack(rows)
    if not len(table):
        return None
    # What it prints is for people at a terminal.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(table), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [_OBJECTS]
        evaluation.evaluate()
    return evaluation


def _precision(evaluation: Any, images: Sequence[int]) -> tuple[float, float]:
    """Return mAP@50 and mAP@50-95 on some of the images, in percent."""
    if evaluation is None:
        return 0.0, 0.0
    parameters = copy.copy(evaluation.params)
    parameters.imgIds = [number + 1 for number in images]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate(parameters)
    # (threshold, recall, category, area, objects); -1 for a category that does not occur.
    precision = evaluation.eval["precision"][:, :, :, 0, 0]

    def mean(values: Array) -> float:
        known = values[values > -1]
        return 100.0 * float(known.mean()) if known.size else 0.0

    return mean(precision[0]), mean(precision)


def _mean_overlap(reference: Sequence[Array], results: Sequence[Array]) -> TaskQuality:
    both = [np.stack(found) for found in (reference, results)]

    def percent(overlaps: Array, images: Sequence[int]) -> float:
        intersection, union = overlaps[list(images)].sum(axis=0)
        occurs = union > 0
        return 100.0 * float((intersection[occurs] / union[occurs]).mean()) if occurs.any() else 0.0

    def difference(images: Sequence[int]) -> float:
        return percent(both[0], images) - percent(both[1], images)

    every = range(len(results))
    value_float, value = (percent(overlaps, every) for overlaps in both)
    return TaskQuality("mIoU", value, value_float, _interval(difference, len(results), value_float - value))


def _interval(difference: Callable[[Sequence[int]], float], count: int, drop: float) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of a difference, by the delete-group jackknife (Kott 2001).

    Args:
        difference: Returns it for some of the images.
        count: Number of images.
        drop: The difference on all.
    """
    groups = min(_GROUPS, count)
    if groups < 2:
        return None
    values = [difference([i for i in range(count) if i % groups != group]) for group in range(groups)]
    error = math.sqrt((groups - 1) / groups * sum((value - drop) ** 2 for value in values))
    return max(-100.0, drop - Z * error), min(100.0, drop + Z * error)
