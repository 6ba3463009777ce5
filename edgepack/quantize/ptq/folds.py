"""Which samples settings are fitted to, and on which others they are judged."""

from collections.abc import Sequence

import numpy as np

from edgepack.graph import read_model
from edgepack.quantize.ptq.step import Measurements, Subject, View
from edgepack.quantize.ptq.tuning import CHEAP_WORK, FEWEST_FOLDS, FOLD_WORK, JUDGED_SHARE, MOST_FOLDS


def fold_positions(subject: Subject) -> list[Sequence[int]]:
    """Return the positions of the samples that are left out in turn; none of a single sample.

    Frames of a stream stay together: what a model with state computes depends on those before.
    """
    count = len(subject.samples)
    if count < FEWEST_FOLDS:
        return []
    folds = min(count, MOST_FOLDS if subject.work <= FOLD_WORK else JUDGED_SHARE)
    if read_model(subject.tflite).is_stream:
        return [[int(i) for i in part] for part in np.array_split(np.arange(count), folds)]
    return [range(fold, count, folds) for fold in range(folds)]


def make_views(
    subject: Subject, positions: Sequence[Sequence[int]], folds: Sequence[Measurements]
) -> tuple[list[View], list[View]]:
    """Return the samples that settings are fitted to, each view with those that they are judged on, and more such.

    Where a trial is cheap, every sample is judged once by a fit that it was not part of; otherwise one third is, and
    the other two thirds where that decides nothing and the network is not too large.
    """
    everything = range(len(subject.samples))
    count = len(folds)
    if not count:
        # One sample cannot be left out: the fit is judged on what it was made from.
        return [subject.view(everything, everything)], []

    def view(fold: int, number: int) -> View:
        left_out = set(positions[fold])
        fitted = [i for i in everything if i not in left_out]
        others = [part for place, part in enumerate(folds) if place != fold]
        return subject.view(fitted, positions[fold], number=number, folds=others)

    if subject.work <= FOLD_WORK:
        return [view(fold, fold) for fold in range(count)], []
    # Number 1 is that of the result.
    others = [view(fold, 2 + fold) for fold in range(count) if fold != 1] if subject.work <= CHEAP_WORK else []
    return [view(1, 0)], others
