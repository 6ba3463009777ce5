"""What a step of post-training quantization is, and what it works on.

A step is one object: it says which settings are worth a trial on a model and how one is applied. `steps.STEPS` lists
them in the order in which they are applied; adding one is one file and one line there.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np

from edgepack.choices import Effort
from edgepack.digests import sha256
from edgepack.graph import Graph, read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import Calibration, calibrate, merged
from edgepack.quantize.ptq.activations import Sample
from edgepack.quantize.ptq.checkpoint import Checkpoint
from edgepack.quantize.ptq.layers import Layer, find_layers
from edgepack.quantize.ptq.scoring import Keep
from edgepack.quantize.ranges import Range

T = TypeVar("T")

#: A setting of a step: text or numbers, so that it can be a part of a cache key.
Setting = str | tuple[float, ...]

#: A change of the settings of steps, by their ids; None leaves a step out.
Change = Mapping[str, Setting | None]

#: Called with (step, parts done, parts).
Progress = Callable[[str, int, int], None]

#: Quantizes a float model with ranges: `edgepack.quantize.quantizer.quantize` or TFLiteConverter's quantizer.
QuantizeFile = Callable[[bytes, SchemeRule, Mapping[str, Range]], bytes]


@dataclass(frozen=True)
class Fit:
    """A model on its way to int8.

    Attributes:
        reference: The float model whose activations are the target: scaled or centered, but not rounded.
        tflite: The float model to quantize: the same graph with fitted weights and biases.
        ranges: (minimum, maximum) of its activations by `tensor_keys`.
        tied: Activations whose ranges stay as they are, because sums of them are exact.
    """

    reference: bytes
    tflite: bytes
    ranges: Mapping[str, Range] = field(default_factory=dict)
    tied: frozenset[str] = frozenset()


class Measurements:
    """What was measured on some samples; nothing is measured twice.

    Attributes:
        samples: The samples.
    """

    def __init__(self, samples: Sequence[Sample], measured: dict[Any, Any] | None = None) -> None:
        self.samples = list(samples)
        self._measured = {} if measured is None else measured

    def once(self, key: str, tflite: bytes, measure: Callable[[], T]) -> T:
        """Return a measurement of a model, from memory where it was taken before."""
        place = key, sha256(tflite)
        if place not in self._measured:
            self._measured[place] = measure()
        value: T = self._measured[place]
        return value


class View(Measurements):
    """The samples that steps are fitted to.

    Attributes:
        held_out: Positions, among all samples, of those that the fit is judged on.
        part: A view of a part of the samples whose moments serve this one too; itself unless given.
        number: Its number among all views of a search.
        folds: Disjoint parts of the samples that other views share; what they measure is merged.
        positions: Positions of the samples among all.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        held_out: Sequence[int] = (),
        *,
        part: "View | None" = None,
        number: int = 0,
        measured: dict[Any, Any] | None = None,
        folds: Sequence[Measurements] = (),
        positions: Sequence[int] = (),
    ) -> None:
        super().__init__(samples, measured)
        self.positions = tuple(positions) or tuple(range(len(samples)))
        self.number = number
        self.folds = tuple(folds)
        self.held_out = tuple(held_out)
        self.part = part or self

    def calibration(self, tflite: bytes) -> Calibration:
        """Return the statistics of a float model's activations on the samples."""
        return self.once("calibration", tflite, lambda: self._calibrated(tflite))

    def _calibrated(self, tflite: bytes) -> Calibration:
        """Return the statistics, those of the folds merged: the float model runs once on each sample."""
        if not self.folds:
            return calibrate(tflite, self.samples, 2)
        return merged(
            [fold.once("calibration", tflite, partial(calibrate, tflite, fold.samples, 2)) for fold in self.folds]
        )


class Subject(Measurements):
    """What is quantized: the same for every trial, and measurements on all samples.

    What is measured here sees the samples that fits are judged on: only for what hardly depends on single samples.

    Attributes:
        tflite: The float model, with unique names and no shared biases.
        rule: The int8 rule of the target.
        effort: The effort that was asked for.
        quantize: Quantizes a float model.
        progress: Receives progress.
        checkpoint: Finished parts.
        passes: How often a step is applied: once for each view that settings are judged on, and to all samples.
    """

    def __init__(
        self,
        tflite: bytes,
        rule: SchemeRule,
        effort: str,
        samples: Sequence[Sample],
        quantize: QuantizeFile,
        progress: Progress,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__(samples)
        self.tflite, self.rule, self.effort = tflite, rule, effort
        self._all_views = _measured(tflite, samples)
        self.quantize, self.progress = quantize, progress
        self.checkpoint = checkpoint or Checkpoint()
        self.passes = 1

    def view(
        self,
        positions: Sequence[int],
        held_out: Sequence[int] = (),
        *,
        part: View | None = None,
        number: int = 0,
        folds: Sequence[Measurements] = (),
    ) -> View:
        """Return the view of some samples.

        What was measured in an earlier search for the same model and samples is known: another target's rule, say,
        differs in the scales of dense layers only.
        """
        measured = self._all_views.setdefault(tuple(positions), {})
        samples = [self.samples[i] for i in positions]
        return View(samples, held_out, part=part, number=number, measured=measured, folds=folds, positions=positions)

    def fold(self, positions: Sequence[int]) -> Measurements:
        """Return a part of the samples that several views share."""
        measured = self._all_views.setdefault(tuple(positions), {})
        return Measurements([self.samples[i] for i in positions], measured)

    @cached_property
    def graph(self) -> Graph:
        """The main graph of the float model."""
        return read_model(self.tflite).main

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers of the float model."""
        return find_layers(self.graph)

    @cached_property
    def work(self) -> float:
        """Multiply-accumulates of the layers over all samples: what one trial costs, whatever the machine."""
        return work(self.graph, len(self.samples))

    def per_tensor(self, layer: Layer) -> bool:
        """Return whether a layer's weights get one scale."""
        return self.rule.has_one_scale(layer.op.name)

    def file(self, fit: Fit) -> bytes:
        """Return the integer file of a fit."""
        return self.quantize(fit.tflite, self.rule, fit.ranges)


#: Measurements of the last model and its samples, by the samples' positions.
_last: tuple[bytes, dict[tuple[int, ...], dict[Any, Any]]] = (b"", {})


def _measured(tflite: bytes, samples: Sequence[Sample]) -> dict[tuple[int, ...], dict[Any, Any]]:
    """Return what this process measured of a model on samples; what belongs to others is forgotten."""
    global _last  # noqa: PLW0603 - a memory of this process
    content = hashlib.sha256(tflite)
    for sample in samples:
        for name, values in sample.items():
            content.update(f"{name} {values.dtype} {values.shape}".encode())
            content.update(np.ascontiguousarray(values).data)
    if _last[0] != content.digest():
        _last = content.digest(), {}
    return _last[1]


def work(graph: Graph, samples: int) -> float:
    """Return the multiply-accumulates of a graph's layers over a number of samples."""
    return float(samples) * sum(
        layer.inputs * layer.taps * graph.tensors[_swept(layer)].elements for layer in find_layers(graph)
    )


def _swept(layer: Layer) -> int:
    """Return the tensor each of whose values takes one pass over a row of weights."""
    return layer.source if layer.transposed else layer.result


class Step(ABC):
    """One technique.

    Attributes:
        id: Its name in options, reports and cache keys.
        effort: The lowest effort that runs it.
        source: The publication, or what it does where there is none.
        purpose: What it does, where other steps do the same in another way: combinations hold one of them.
        keep: What held-out samples must show so that it is kept.
    """

    id: str
    effort: Effort
    source: str
    purpose: str = ""
    keep: Keep = Keep.GAIN

    @abstractmethod
    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        """Return the changes of settings to try on this model, none where the step has nothing to do.

        Most change the step's own setting only; what works together only is tried together.

        Args:
            subject: What is quantized.
            kept: The settings of the steps kept so far.
        """

    def combinations(self, subject: Subject) -> Sequence[Change]:
        """Return the changes to try together with those of all other steps; the first configuration by default.

        Steps need each other: scaled channels gain nothing until ranges follow, and one at a time no step shows that.

        Args:
            subject: What is quantized.
        """
        return self.configurations(subject, {})[:1]

    @abstractmethod
    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        """Return the fit with this step, fitted to the samples of the view.

        Args:
            fit: The result of the steps before it.
            setting: One of the step's settings in `configurations`.
            view: The samples.
            subject: What is quantized.
        """

    def describe(self, setting: Setting) -> str:
        """Return a setting as text."""
        return setting if isinstance(setting, str) else ", ".join(f"{value:g}" for value in setting)
