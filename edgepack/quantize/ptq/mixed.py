"""Mixed precision: keep the fewest ops in float, or in int16, that an accuracy limit requires.

Every activation and every layer's weights are quantized to int8 alone and measured (`sensitivity`, after Wu et al.
2020, section 6.1). The most sensitive are excluded from int8 first: an activation's noise disappears when its producer
and its consumers are kept, that of a layer's weights when the layer stays float (int16 layers have 8-bit weights). The
shortest list of kept ops that meets the limit is found by bisection; then every op that turns out not to be needed goes
back to int8, the largest first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.errors import AccuracyError, UnfitModelError
from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import tensor_keys, unique_names
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.op_support import DIRECT_INT16
from edgepack.quantize.ptq.activations import Sample
from edgepack.quantize.ptq.sensitivity import Sensitivity, sensitivities
from edgepack.quantize.quantizer import Quantized, quantize
from edgepack.quantize.ranges import Range
from edgepack.runtime.metrics import Quality
from edgepack.schemes import plain_type

#: Number of samples for sensitivities, which only order the ops. The order by squared gradients and scale steps is no
#: better and needs TensorFlow: keyword spotting with five ops in float has 32.6 dB with either, with two or three ops
#: 31.2 (trials) against 30.7; ResNet8 with five 27.3 dB, against 27.5 with six by gradients.
_SAMPLES = 50

Judge = Callable[[bytes], Quality]


@dataclass(frozen=True)
class Mixed:
    """An int8 file some of whose ops are float or int16.

    Attributes:
        quantized: The file.
        kept_as: Type of the kept ops: `float32` or `int16`.
        kept: The kept ops, by the `tensor_keys` of their outputs, in file order; empty when int8 alone meets the limit.
        ops: Number of ops of the model.
        quality: Quality of the file.
        before: Quality with every op in int8.
        costs: Sensitivity of each tensor, lowest SNR first.
        tries: Number of files that were measured.
    """

    quantized: Quantized
    kept_as: str
    kept: tuple[str, ...]
    ops: int
    quality: Quality
    before: Quality
    costs: tuple[Sensitivity, ...]
    tries: int

    def to_json(self) -> dict[str, Any]:
        """Return the report for the manifest."""
        costly = [{"tensor": s.tensor, "kind": s.kind, "snr_db": round(s.snr_db, 2)} for s in self.costs[:10]]
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
        tflite: The float model to quantize, such as the result of `steps.improve`.
        rule: The target's rule; its `mixed` lists the types that ops may be kept in.
        ranges: Ranges of the activations by `tensor_keys`.
        samples: Samples to measure sensitivities on.
        judge: Compares a file with the float model, on labelled samples where there are any.
        limit: Maximum loss of top-1, percentage points (`Quality.drop`).
        kept_as: `float32` or `int16`.
        progress: Called with the number of files measured so far.

    Raises:
        UnfitModelError: The target does not mix int8 with this type.
        AccuracyError: Top-1 is not defined for the outputs, or the limit is not met even with all allowed ops kept.
        QuantizationRefused: ai-edge-quantizer does not support the model.
    """
    if kept_as not in rule.mixed:
        raise UnfitModelError(
            f"the target supports {rule.scheme} only: it has no {plain_type(kept_as)} units for single ops",
            hint="train with quantization (int8-qat, --train), or allow a larger accuracy drop",
        )
    search = _Search(unique_names(tflite), rule, ranges, judge, limit, kept_as, progress)
    quantized, before = search.measure(())
    if before.drop is None:
        raise AccuracyError("top-1 cannot be measured: the outputs are not class scores", hint="use float16 or int16x8")
    if before.drop <= limit:
        return Mixed(quantized, kept_as, (), len(search.graph.ops), before, before, (), search.tries)
    ordered = sensitivities(search.tflite, ranges, samples[:_SAMPLES])
    kept = search.without_unneeded(search.shortest_sufficient(search.growing_lists(ordered)))
    quantized, quality = search.measure(kept)
    return Mixed(quantized, kept_as, kept, len(search.graph.ops), quality, before, tuple(ordered), search.tries)


class _Search:
    """Quantizes and measures files with different kept ops, each once."""

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
        self._measured: dict[tuple[str, ...], tuple[Quantized, Quality]] = {}

    @property
    def tries(self) -> int:
        """Number of files measured."""
        return len(self._measured)

    def measure(self, kept: Sequence[str]) -> tuple[Quantized, Quality]:
        """Return the file in which these ops are kept, and its quality."""
        key = tuple(kept)
        if key not in self._measured:
            self.progress(self.tries)
            quantized = quantize(self.tflite, self.rule, self.ranges, keep=key, keep_as=self.kept_as)
            self._measured[key] = quantized, self.judge(quantized.tflite)
        return self._measured[key]

    def meets_limit(self, kept: Sequence[str]) -> bool:
        """Return whether the file in which these ops are kept loses no more than the limit."""
        drop = self.measure(kept)[1].drop
        return drop is not None and drop <= self.limit

    def growing_lists(self, ordered: Sequence[Sensitivity]) -> list[tuple[str, ...]]:
        """Return lists of ops to keep, in file order; each covers one more sensitive tensor, the last one all."""
        allowed = {op.index: self.keys[op.outputs[0]] for op in self.graph.ops if self._may_be_kept(op)}
        lists: list[tuple[str, ...]] = []
        kept: set[int] = set()
        for sensitivity in ordered:
            if sensitivity.kind == "weights" and self.kept_as != "float32":
                continue
            tensor = self.keys.index(sensitivity.tensor)
            affected = [op for op in self.graph.ops if tensor in op.outputs]
            if sensitivity.kind == "activation":
                affected += [op for op in self.graph.ops if tensor in op.inputs]
            kept |= {op.index for op in affected} & set(allowed)
            names = tuple(allowed[index] for index in sorted(kept))
            if names and names not in lists:
                lists.append(names)
        return lists

    def shortest_sufficient(self, lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """Return the shortest list that meets the limit, found by bisection.

        Raises:
            AccuracyError: Not even the last list does.
        """
        if not lists or not self.meets_limit(lists[-1]):
            raise AccuracyError(
                f"mixed precision with {plain_type(self.kept_as)} does not come within {self.limit:g} points of the "
                f"float model",
                hint="train with quantization (--train), or use float16 where the target supports it",
            )
        low, high = -1, len(lists) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.meets_limit(lists[middle]) else (middle, high)
        return lists[high]

    def without_unneeded(self, kept: tuple[str, ...]) -> tuple[str, ...]:
        """Return the kept ops without those that the limit does not need, dropping those with most weights first."""
        sizes = {self.keys[op.outputs[0]]: self._constant_elements(op) for op in self.graph.ops}
        for name in sorted(kept, key=lambda name: -sizes[name]):
            fewer = tuple(other for other in kept if other != name)
            if self.meets_limit(fewer):
                kept = fewer
        return kept

    def _may_be_kept(self, op: Op) -> bool:
        """Return whether an op may be kept: it has one output, and the file's outputs keep their type."""
        if self.kept_as == "int16" and op.name not in DIRECT_INT16:
            return False
        # Float outputs suit float ops; conversions between float outputs and int16 are not implemented.
        same_type = self.kept_as == self.rule.io.lower()
        return len(op.outputs) == 1 and (same_type or op.outputs[0] not in self.graph.outputs)

    def _constant_elements(self, op: Op) -> int:
        return sum(self.graph.tensors[i].elements for i in op.inputs if i >= 0 and self.graph.tensors[i].is_constant)
