"""Recipes, and the workshop that makes them: what `steps` chooses between."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import Calibration, calibrate
from edgepack.quantize.ptq.absorb import absorb_biases
from edgepack.quantize.ptq.balance import MARGIN, Balanced, balance
from edgepack.quantize.ptq.bias import correct_biases
from edgepack.quantize.ptq.center import center_channels
from edgepack.quantize.ptq.equalize import channel_ranges, equalize, equalize_weights, find_streams
from edgepack.quantize.ptq.layers import Layer, find_layers, own_biases
from edgepack.quantize.ptq.observe import Sample
from edgepack.quantize.ptq.pool import means_for_pools
from edgepack.quantize.ptq.rounding import fit_rounding
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import Range, choose_ranges
from edgepack.quantize.scale_constraints import fixed_range, same_scale_groups

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Recipe:
    """Settings of all steps; the same recipe on the same samples gives the same bytes."""

    method: str = "minmax"
    margin: bool = False
    bounds: bool = False
    pools: bool = False
    center: bool = False
    balance: bool = False
    share: float | None = None
    absorb: bool = False
    bias: bool = False
    rounding: bool = False


class Workshop:
    """Builds recipes on one set of samples; parts that recipes share are built once."""

    def __init__(self, tflite: bytes, rule: SchemeRule, samples: Sequence[Sample], progress: Progress) -> None:
        self.tflite, self.rule, self.samples, self.progress = tflite, rule, samples, progress
        self._kept: dict[Any, Any] = {}

    def build(self, recipe: Recipe) -> tuple[bytes, dict[str, Range]]:
        """Return (float model, ranges)."""
        right = self.equalized(recipe)
        ranges = self.ranges(recipe)
        made = right

        def quantize(model: bytes) -> bytes:
            return self.quantize(model, ranges)

        if recipe.rounding:
            made = fit_rounding(
                right, right, quantize, self.samples, per_tensor=self.per_tensor,
                progress=lambda done, parts: self.progress("rounding", done, parts),
            )  # fmt: skip
        if recipe.bias:
            made = correct_biases(
                right, made, quantize, self.samples, progress=lambda done, parts: self.progress("bias", done, parts)
            )
        return made, ranges

    def quantize(self, model: bytes, ranges: Mapping[str, Range]) -> bytes:
        """Return the integer file."""
        return quantize(model, self.rule, ranges).tflite

    def per_tensor(self, layer: Layer) -> bool:
        """Return whether a layer's weights get one scale."""
        dense = layer.dense and self.rule.fully_connected == "per-tensor"
        return dense or self.rule.weights == "per-tensor"

    def equalized(self, recipe: Recipe) -> bytes:
        """Return the float model before anything is fitted to the integer file."""
        key = ("equalized", recipe.pools, recipe.center, recipe.balance, recipe.share, recipe.absorb)
        made: bytes = self._once(key, lambda: self._equalized(recipe))
        return made

    def ranges(self, recipe: Recipe) -> dict[str, Range]:
        """Return the recipe's ranges."""
        found = self.ranges_by(recipe, recipe.method)
        if recipe.bounds or recipe.balance:
            return {**found, **self.balanced(recipe).ranges}
        if recipe.margin:
            wide = self.few_valued(recipe)
            found = {k: (low * MARGIN, high * MARGIN) if k in wide else (low, high) for k, (low, high) in found.items()}
        return found

    def few_valued(self, recipe: Recipe) -> set[str]:
        """Return the keys of the activations with one value per channel, such as scores and averages.

        Where one must share its scale with a larger activation, it is left out.
        """
        graph = read_model(self.equalized(recipe)).main
        keys = tensor_keys(graph)
        few = {
            tensor.index
            for tensor in graph.tensors
            if tensor.rank > 1 and tensor.elements == tensor.shape[-1] and tensor.index not in graph.inputs
        }
        fixed = {op.outputs[0] for op in graph.ops if fixed_range(op, 8) is not None}
        for group in same_scale_groups(graph):
            if not few.issuperset(group):
                few -= set(group)
        return {keys[index] for index in few - fixed if not graph.tensors[index].is_constant}

    def ranges_by(self, recipe: Recipe, method: str) -> dict[str, Range]:
        """Return the ranges of one method."""
        model = self.equalized(recipe)
        key = ("calibration", recipe.pools, recipe.center, recipe.balance, recipe.share, recipe.absorb)
        calibration: Calibration = self._once(key, lambda: calibrate(model, self.samples, 2))
        found: dict[str, Range] = self._once(
            (*key, method), lambda: choose_ranges(calibration, read_model(model), method)
        )
        return found

    def balanced(self, recipe: Recipe) -> Balanced:
        """Return the model with ranges by estimated noise, its channels scaled as well where the recipe says so."""
        base = replace(recipe, balance=False, bounds=False)
        key = ("balanced", recipe.pools, recipe.center, recipe.balance, recipe.share, recipe.absorb)
        made: Balanced = self._once(key, lambda: balance(self.equalized(base), self.samples, scale=recipe.balance))
        return made

    def _equalized(self, recipe: Recipe) -> bytes:
        if recipe.balance:
            return self.balanced(recipe).tflite
        moved = recipe.pools or recipe.center or recipe.absorb or recipe.share is not None
        if not (moved or recipe.bias or recipe.rounding):
            return self.tflite
        model = own_biases(self.tflite)
        if recipe.pools:
            model = means_for_pools(model)
        if recipe.center:
            model = center_channels(model, self.samples)
        if recipe.share is not None:
            graph = read_model(model).main
            seen = channel_ranges(model, find_streams(graph, find_layers(graph)), self.samples)
            if self.rule.weights == "per-tensor":
                model = equalize_weights(model, seen)
            else:
                model = equalize(model, seen, recipe.share)
        return absorb_biases(model, self.samples) if recipe.absorb else model

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]
