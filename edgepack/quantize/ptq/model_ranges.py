"""Ranges of all activations by one method, and room for scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from edgepack.choices import Effort
from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.ptq.scoring import Keep
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import CLIPPING_WEIGHT, ROOM
from edgepack.quantize.ranges import choose_ranges, mse
from edgepack.quantize.scale_constraints import fixed_range, same_scale_groups

#: Setting whose ranges clip less than those of least squared error.
_CAUTIOUS = "mse, clipping counts four times"


class _Ranges(Step):
    id = "ranges"
    effort = Effort.LOW
    source = "range per model: min/max, percentile (Wu et al. 2020), squared error"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        return [{self.id: method} for method in ("minmax", "percentile", "mse", _CAUTIOUS)]

    def combinations(self, subject: Subject) -> Sequence[Change]:
        # Bounds per tensor follow.
        return []

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        model = read_model(fit.reference)
        method = partial(mse, clipping=CLIPPING_WEIGHT) if setting == _CAUTIOUS else str(setting)
        return replace(fit, ranges=choose_ranges(view.calibration(fit.reference), model, method))


class _Margin(Step):
    id = "margin"
    effort = Effort.LOW
    source = "wider ranges for scores and averages: clipping the top score costs more than a coarser scale"
    keep = Keep.NO_LOSS

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        return [{self.id: (ROOM,)}] if single_value_channels(subject.tflite) else []

    def combinations(self, subject: Subject) -> Sequence[Change]:
        # Bounds per tensor have room of their own.
        return []

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        wide, factor = single_value_channels(fit.reference), float(setting[0])
        ranges = {
            k: (low * factor, high * factor) if k in wide else (low, high) for k, (low, high) in fit.ranges.items()
        }
        return replace(fit, ranges=ranges)

    def describe(self, setting: Setting) -> str:
        return f"{setting[0]:g} times"


def single_value_channels(tflite: bytes) -> set[str]:
    """Return the keys of the activations with one value per channel, such as scores and averages.

    An activation that must share its scale with one that has more values is left out.
    """
    graph = read_model(tflite).main
    keys = tensor_keys(graph)
    single = {
        tensor.index
        for tensor in graph.tensors
        if tensor.rank > 1 and tensor.elements == tensor.shape[-1] and tensor.index not in graph.inputs
    }
    fixed = {op.outputs[0] for op in graph.ops if op.outputs and fixed_range(op, 8) is not None}
    for group in same_scale_groups(graph):
        if not single.issuperset(group):
            single -= set(group)
    return {keys[index] for index in single - fixed if not graph.tensors[index].is_constant}


RANGES = _Ranges()
MARGIN = _Margin()
