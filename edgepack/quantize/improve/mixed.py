"""Mixed precision: keep the fewest ops in float that a loss limit asks for.

Every activation and every layer's weights are made int8 alone and measured (`sensitivity`, after Wu et al. 2020,
section 6.1). The costliest are undone first: a tensor's noise goes when the op that makes it and those that read it
stay float, a layer's weights' when the layer does. The shortest list that holds the limit is found by bisection, then
every op that the limit does not need after all goes back to int8, the largest first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.errors import AccuracyError, UnfitModelError
from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import tensor_keys, unique_names
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.apply import Quantized, apply
from edgepack.quantize.improve.observe import Sample
from edgepack.quantize.improve.sensitivity import Sensitivity, sensitivities
from edgepack.quantize.ranges import Range
from edgepack.runtime.metrics import Quality

#: Samples that sensitivities are measured on: they only order the ops.
_SAMPLES = 50

Judge = Callable[[bytes], Quality]


@dataclass(frozen=True)
class Mixed:
    """An integer file some of whose ops stay float.

    Attributes:
        made: The file.
        kept: Those ops, by the `tensor_keys` of their outputs, in file order; empty when int8 holds the limit as it is.
        ops: Ops of the model.
        quality: What the file loses.
        before: What it loses with every op in int8.
        costs: What each place costs alone, the costliest first.
        tries: Files that were made and measured.
    """

    made: Quantized
    kept: tuple[str, ...]
    ops: int
    quality: Quality
    before: Quality
    costs: tuple[Sensitivity, ...]
    tries: int

    def to_json(self) -> dict[str, Any]:
        """Return the report for the manifest."""
        costly = [{"tensor": c.tensor, "kind": c.kind, "snr_db": round(c.snr_db, 2)} for c in self.costs[:10]]
        figures = {"before": self.before.to_json(), "after": self.quality.to_json()}
        return {"kept": list(self.kept), "ops": self.ops, **figures, "costly": costly, "tries": self.tries}


def mixed(
    tflite: bytes,
    rule: SchemeRule,
    ranges: Mapping[str, Range],
    samples: Sequence[Sample],
    judge: Judge,
    limit: float,
    *,
    progress: Callable[[int], None] = lambda tries: None,
) -> Mixed:
    """Return the int8 file with the fewest ops in float that loses at most `limit`.

    Args:
        tflite: The float model that the file is made from, such as `steps.improve` gives.
        rule: The target's rule; its `mixed` says whether ops may stay float.
        ranges: Ranges of the activations by `tensor_keys`.
        samples: Samples to order the ops by.
        judge: Measures a file against the float model, on labelled samples where there are any.
        limit: Most percentage points of top-1 that may be lost (`Quality.drop`).
        progress: Told how many files were tried.

    Raises:
        UnfitModelError: The target takes integers only.
        AccuracyError: No limit can be held: nothing to count, or not even all movable ops in float are enough.
        QuantizationRefused: ai-edge-quantizer cannot take the model.
    """
    if "float32" not in rule.mixed:
        raise UnfitModelError(
            f"the target takes {rule.scheme} throughout: its accelerator has no float units to keep single ops on",
            hint="train with quantization (int8-qat, --train), or leave the limit higher",
        )
    search = _Search(unique_names(tflite), rule, ranges, judge, limit, progress)
    made, before = search.measure(())
    if before.drop is None:
        raise AccuracyError("no top-1 can be counted: the outputs are no class scores", hint="use float16 or int16x8")
    if before.drop <= limit:
        return Mixed(made, (), len(search.graph.ops), before, before, (), search.tries)
    costs = sensitivities(search.tflite, ranges, samples[:_SAMPLES])
    kept = search.pruned(search.shortest(search.in_order(costs)))
    made, quality = search.measure(kept)
    return Mixed(made, kept, len(search.graph.ops), quality, before, tuple(costs), search.tries)


class _Search:
    """The files tried, each once."""

    def __init__(
        self,
        tflite: bytes,
        rule: SchemeRule,
        ranges: Mapping[str, Range],
        judge: Judge,
        limit: float,
        progress: Callable[[int], None],
    ) -> None:
        self.tflite, self.rule, self.ranges, self.judge = tflite, rule, ranges, judge
        self.limit, self.progress = limit, progress
        self.graph: Graph = read_model(tflite).main
        self.keys = tensor_keys(self.graph)
        self._seen: dict[tuple[str, ...], tuple[Quantized, Quality]] = {}

    @property
    def tries(self) -> int:
        """Files measured."""
        return len(self._seen)

    def measure(self, kept: Sequence[str]) -> tuple[Quantized, Quality]:
        """Return the file that keeps these ops, and what it loses."""
        key = tuple(kept)
        if key not in self._seen:
            self.progress(self.tries)
            made = apply(self.tflite, self.rule, self.ranges, keep=key)
            self._seen[key] = made, self.judge(made.tflite)
        return self._seen[key]

    def holds(self, kept: Sequence[str]) -> bool:
        """Return whether the file that keeps these ops loses no more than the limit."""
        drop = self.measure(kept)[1].drop
        return drop is not None and drop <= self.limit

    def in_order(self, costs: Sequence[Sensitivity]) -> list[tuple[str, ...]]:
        """Return growing lists of ops, each with one costly place more, in file order; the last has all."""
        movable = {op.index: self.keys[op.outputs[0]] for op in self.graph.ops if self._movable(op)}
        lists: list[tuple[str, ...]] = []
        taken: set[int] = set()
        for cost in costs:
            tensor = self.keys.index(cost.tensor)
            touching = [op for op in self.graph.ops if tensor in op.outputs]
            if cost.kind == "activation":
                touching += [op for op in self.graph.ops if tensor in op.inputs]
            taken |= {op.index for op in touching} & set(movable)
            now = tuple(movable[index] for index in sorted(taken))
            if now and now not in lists:
                lists.append(now)
        return lists

    def shortest(self, lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """Return the shortest list that holds, found by bisection.

        Raises:
            AccuracyError: Not even the last one does.
        """
        if not lists or not self.holds(lists[-1]):
            raise AccuracyError(
                f"mixed precision does not come within {self.limit:g} points of the float model",
                hint="train with quantization (--train), or take float16 where the target does",
            )
        low, high = -1, len(lists) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.holds(lists[middle]) else (middle, high)
        return lists[high]

    def pruned(self, kept: tuple[str, ...]) -> tuple[str, ...]:
        """Return what is left when ops that the limit does not need go back to int8, those with most weights first."""
        size = {self.keys[op.outputs[0]]: self._weights(op) for op in self.graph.ops}
        for name in sorted(kept, key=lambda one: -size[one]):
            fewer = tuple(one for one in kept if one != name)
            if self.holds(fewer):
                kept = fewer
        return kept

    def _movable(self, op: Op) -> bool:
        """Return whether an op may stay float: one output, and not the file's own where that must be integer."""
        ends = set(self.graph.outputs) if self.rule.io != "FLOAT32" else set()
        return len(op.outputs) == 1 and not ends & set(op.outputs)

    def _weights(self, op: Op) -> int:
        return sum(self.graph.tensors[i].elements for i in op.inputs if i >= 0 and self.graph.tensors[i].is_constant)
