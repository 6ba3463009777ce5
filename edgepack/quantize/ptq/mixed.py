"""Mixed precision: keep the fewest ops in float, or in int16, that a loss limit asks for.

Every activation and every layer's weights are made int8 alone and measured (`sensitivity`, after Wu et al. 2020,
section 6.1). The costliest are undone first: a tensor's noise goes when the op that makes it and those that read it
are kept, a layer's weights' when the layer stays float (in int16 it has 8-bit weights all the same). The shortest list
that holds the limit is found by bisection, then every op that the limit does not need after all goes back to int8, the
largest first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.errors import AccuracyError, UnfitModelError
from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import tensor_keys, unique_names
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.op_support import DIRECT_INT16
from edgepack.quantize.ptq.observe import Sample
from edgepack.quantize.ptq.sensitivity import Sensitivity, sensitivities
from edgepack.quantize.quantizer import Quantized, quantize
from edgepack.quantize.ranges import Range
from edgepack.runtime.metrics import Quality
from edgepack.schemes import plain_type

#: Samples that sensitivities are measured on: they only order the ops.
_SAMPLES = 50

Judge = Callable[[bytes], Quality]


@dataclass(frozen=True)
class Mixed:
    """An int8 file some of whose ops are float or int16.

    Attributes:
        made: The file.
        kept_as: What those ops are: `float32` or `int16`.
        kept: Those ops, by the `tensor_keys` of their outputs, in file order; empty when int8 holds the limit as it is.
        ops: Ops of the model.
        quality: What the file loses.
        before: What it loses with every op in int8.
        costs: What each place costs alone, the costliest first.
        tries: Files that were made and measured.
    """

    made: Quantized
    kept_as: str
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
        kept = {"kept": list(self.kept), "kept_as": self.kept_as, "ops": self.ops}
        return {**kept, **figures, "costly": costly, "tries": self.tries}


def mixed(
    tflite: bytes,
    rule: SchemeRule,
    ranges: Mapping[str, Range],
    samples: Sequence[Sample],
    judge: Judge,
    limit: float,
    *,
    kept_as: str = "float32",
    progress: Callable[[int], None] = lambda tries: None,
) -> Mixed:
    """Return the int8 file with the fewest ops in float, or in int16, that loses at most `limit`.

    Args:
        tflite: The float model that the file is made from, such as `steps.improve` gives.
        rule: The target's rule; its `mixed` says what ops may be kept in.
        ranges: Ranges of the activations by `tensor_keys`.
        samples: Samples to order the ops by.
        judge: Measures a file against the float model, on labelled samples where there are any.
        limit: Most percentage points of top-1 that may be lost (`Quality.drop`).
        kept_as: `float32` or `int16`.
        progress: Told how many files were tried.

    Raises:
        UnfitModelError: The target does not mix int8 with this type.
        AccuracyError: No limit can be held: nothing to count, or not even all movable ops kept are enough.
        QuantizationRefused: ai-edge-quantizer cannot take the model.
    """
    if kept_as not in rule.mixed:
        raise UnfitModelError(
            f"the target takes {rule.scheme} throughout: its accelerator has no {plain_type(kept_as)} units to keep "
            f"single ops on",
            hint="train with quantization (int8-qat, --train), or leave the limit higher",
        )
    search = _Search(unique_names(tflite), rule, ranges, judge, limit, kept_as, progress)
    made, before = search.measure(())
    if before.drop is None:
        raise AccuracyError("no top-1 can be counted: the outputs are no class scores", hint="use float16 or int16x8")
    if before.drop <= limit:
        return Mixed(made, kept_as, (), len(search.graph.ops), before, before, (), search.tries)
    costs = sensitivities(search.tflite, ranges, samples[:_SAMPLES])
    kept = search.pruned(search.shortest(search.in_order(costs)))
    made, quality = search.measure(kept)
    return Mixed(made, kept_as, kept, len(search.graph.ops), quality, before, tuple(costs), search.tries)


class _Search:
    """The files tried, each once."""

    def __init__(
        self,
        tflite: bytes,
        rule: SchemeRule,
        ranges: Mapping[str, Range],
        judge: Judge,
        limit: float,
        kept_as: str,
        progress: Callable[[int], None],
    ) -> None:
        self.tflite, self.rule, self.ranges, self.judge = tflite, rule, ranges, judge
        self.limit, self.kept_as, self.progress = limit, kept_as, progress
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
            made = quantize(self.tflite, self.rule, self.ranges, keep=key, keep_as=self.kept_as)
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
            if cost.kind == "weights" and self.kept_as != "float32":
                continue
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
                f"mixed precision with {plain_type(self.kept_as)} does not come within {self.limit:g} points of the "
                f"float model",
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
        """Return whether an op may be kept: one output, and not the file's own where that has a type it would lose."""
        if self.kept_as == "int16" and op.name not in DIRECT_INT16:
            return False
        # Float ends suit float ops; the steps between float ends and int16 are not written.
        free = self.kept_as == self.rule.io.lower()
        return len(op.outputs) == 1 and (free or op.outputs[0] not in self.graph.outputs)

    def _weights(self, op: Op) -> int:
        return sum(self.graph.tensors[i].elements for i in op.inputs if i >= 0 and self.graph.tensors[i].is_constant)
