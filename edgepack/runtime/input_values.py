"""Which values a classifier expects: its accuracy with other normalizations of the same pixels, counted for real.

These functions run in a child process: arguments and results can be pickled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.runtime.runner import Runner
from edgepack.samples.source import Preprocess, SampleSet

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Variant:
    """One way to feed a model.

    Attributes:
        preprocess: Conversion of pixels to values; None for the samples as they are.
        reverse: True for the channels in reverse order (BGR).
        offset: Added to each label.
    """

    preprocess: Preprocess | None = None
    reverse: bool = False
    offset: int = 0


def count_hits(
    tflite: bytes, samples: SampleSet, classes: int, scale: tuple[float, float] | None, variants: Sequence[Variant]
) -> Mapping[Variant, tuple[bool, ...]]:
    """Return for each variant which samples the model classifies as labelled.

    Args:
        tflite: The float model, with one input where a variant changes values.
        samples: Labelled samples; images have unscaled pixels.
        classes: Position of the output with class scores.
        scale: (factor, summand) that turn a sample's values into pixels of 0..255, None when they are no pixels.
        variants: What to try.
    """
    runner = Runner(tflite, threads=2)
    labels = samples.labels
    assert labels is not None
    hits: dict[Variant, list[bool]] = {variant: [] for variant in variants}
    for number in range(len(samples)):
        given = samples.sample(number)
        answers: dict[tuple[Preprocess | None, bool], int] = {}
        for variant in variants:
            key = (variant.preprocess, variant.reverse)
            if key not in answers:
                arrays = [_changed(given[info.name], variant, scale) for info in runner.inputs]
                answers[key] = int(np.argmax(runner.run_real(arrays)[classes]))
            hits[variant].append(answers[key] == int(labels[number]) + variant.offset)
    return {variant: tuple(values) for variant, values in hits.items()}


def _changed(values: Array, variant: Variant, scale: tuple[float, float] | None) -> Array:
    if variant.preprocess is not None and scale is not None:
        pixels = values.astype(np.float32) * np.float32(scale[0]) + np.float32(scale[1])
        mean, std = (np.asarray(one, np.float32) for one in (variant.preprocess.mean, variant.preprocess.std))
        values = ((pixels - mean) / std).astype(np.float32)
    return np.ascontiguousarray(values[..., ::-1]) if variant.reverse else values
