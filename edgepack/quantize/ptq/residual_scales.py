"""One scale for the operands and the result of a residual sum, where it saves more rounding than it costs.

An integer ADD rescales both operands to the scale of its result and rounds. Where all three have one scale, it adds
integers and rounds nothing: one of three roundings of the sum disappears, and in a chain of residual blocks one per
block remains. The price is the widest of the three ranges for all. Rounding adds the square of a tensor's scale to each
of its values, so the sum of these squares, with and without the common scale, decides sum by sum. The values of all
tensors count alike: no gradients are needed. TFLiteConverter gives operands the range of the sum in some graphs,
whatever it costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgepack.choices import Effort
from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.ptq.scoring import Keep
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_constraints import WITHOUT_ROUNDING, fixed_range, same_scale_groups

#: Ops whose integer kernels round nothing where operands and result have one scale.
_SUMS = frozenset({"ADD", "SUB"})


class _ResidualScales(Step):
    id = "sums"
    effort = Effort.LOW
    source = "one scale for operands and result of a residual sum, where the squares of the scales say that it pays"
    keep = Keep.ANY_GAIN

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        return [{self.id: "one scale"}] if any(op.name in _SUMS for op in subject.graph.ops) else []

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        shared = share_scales(read_model(fit.reference).main, fit.ranges)
        return replace(fit, ranges={**fit.ranges, **shared}, tied=frozenset(shared))


SUMS = _ResidualScales()


def share_scales(graph: Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the common ranges of operands and results of sums where they save rounding error, by `tensor_keys`.

    Args:
        graph: The float graph.
        ranges: Range of each activation by `tensor_keys`.
    """
    groups = _Groups(graph, ranges)
    sums = [op for op in graph.ops if groups.can_share(op)]
    joined: set[int] = set()
    while True:
        savings = [(groups.ratio(op), op.index) for op in sums if not groups.is_exact(op)]
        ratio, index = min(savings, default=(1.0, -1))
        if ratio >= 1.0:
            break
        groups.join(graph.ops[index])
        joined.add(index)
    members = {tensor for index in joined for tensor in groups.members(graph.ops[index].outputs[0])}
    return {groups.keys[tensor]: groups.range(groups.members(tensor)) for tensor in sorted(members)}


class _Groups:
    """Groups of activations with one range each; at first those whose kernels require one."""

    def __init__(self, graph: Graph, ranges: Mapping[str, Range]) -> None:
        self.graph, self.keys = graph, tensor_keys(graph)
        self.ranges = {index: ranges[key] for index, key in enumerate(self.keys) if key in ranges}
        self._members = {index: frozenset({index}) for index in self.ranges}
        for group in same_scale_groups(graph):
            self._set(frozenset(index for index in group if index in self.ranges))
        self._fixed = {op.outputs[0] for op in graph.ops if op.outputs and fixed_range(op, 8) is not None}

    def _set(self, group: frozenset[int]) -> None:
        self._members.update(dict.fromkeys(group, group))

    def members(self, index: int) -> frozenset[int]:
        """Return the group of an activation."""
        return self._members[index]

    def range(self, group: frozenset[int]) -> Range:
        """Return the range that contains those of all members."""
        return min(self.ranges[index][0] for index in group), max(self.ranges[index][1] for index in group)

    def can_share(self, op: Op) -> bool:
        """Return whether an op sums two activations of one shape whose scales are free."""
        tensors = (*op.inputs, *op.outputs)
        if op.name not in _SUMS or any(index not in self.ranges for index in tensors):
            return False
        shapes = {self.graph.tensors[index].shape for index in tensors}
        return len(shapes) == 1 and self._fixed.isdisjoint(self._together(op))

    def is_exact(self, op: Op) -> bool:
        """Return whether operands and result of a sum are in one group."""
        return self._members[op.outputs[0]].issuperset(op.inputs)

    def join(self, op: Op) -> None:
        """Give operands and result of a sum one range."""
        self._set(self._together(op))

    def ratio(self, op: Op) -> float:
        """Return the rounding error with one range for a sum, divided by that without."""
        group = self._together(op)
        separate = sum(self._error(part) for part in {self._members[index] for index in (*op.inputs, *op.outputs)})
        if not self._fixed.isdisjoint(group) or separate <= 0.0:
            return 1.0
        return self._error(group) / separate

    def _together(self, op: Op) -> frozenset[int]:
        return frozenset().union(*(self._members[index] for index in (*op.inputs, *op.outputs)))

    def _error(self, group: frozenset[int]) -> float:
        """Return the squared rounding error of a group's values: their number times the square of the range."""
        low, high = self.range(group)
        return (
            sum(self.graph.tensors[index].elements for index in group if self._rounds(index, group)) * (high - low) ** 2
        )

    def _rounds(self, index: int, group: frozenset[int]) -> bool:
        producer = self.graph.producers.get(index)
        if producer is None:
            return True
        op = self.graph.ops[producer]
        if op.name in _SUMS:
            return not group.issuperset(op.inputs)
        return op.name not in WITHOUT_ROUNDING
