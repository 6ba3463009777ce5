"""Settings of the steps, and the float model and ranges that they produce: `steps` searches over them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import Calibration, calibrate
from edgepack.quantize.ptq.activations import Sample
from edgepack.quantize.ptq.bias_correction import correct_biases
from edgepack.quantize.ptq.channel_centering import center_channels
from edgepack.quantize.ptq.cross_layer_equalization import (
    channel_ranges,
    equalize,
    equalize_weights,
    find_equalization_groups,
)
from edgepack.quantize.ptq.global_pooling import replace_global_pools
from edgepack.quantize.ptq.high_bias_absorption import absorb_high_biases
from edgepack.quantize.ptq.layers import Layer, find_layers, unshare_biases
from edgepack.quantize.ptq.noise_minimization import MARGIN, ScaledModel, minimize_noise
from edgepack.quantize.ptq.rounding import fit_rounding
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.ranges import Range, choose_ranges
from edgepack.quantize.scale_constraints import fixed_range, same_scale_groups

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """Settings of all steps; the same settings on the same samples give the same bytes.

    Attributes:
        method: Range method, one of `edgepack.quantize.ranges.METHODS`.
        margin: Whether the ranges of scores and averages are widened by `MARGIN`.
        bounds: Whether ranges minimize the estimated noise.
        pools: Whether global average pools become MEAN.
        center: Whether the channels of linear activations are centered.
        balance: Whether channels are scaled to minimize the estimated noise, ranges included.
        share: Share of cross-layer equalization, None for no equalization.
        absorb: Whether high biases are absorbed.
        bias: Whether biases are corrected.
        rounding: Whether weights are rounded with GPTQ.
    """

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


class ModelBuilder:
    """Builds the float model and ranges of some settings on one set of samples, and caches shared intermediates."""

    def __init__(self, tflite: bytes, rule: SchemeRule, samples: Sequence[Sample], progress: Progress) -> None:
        self.tflite, self.rule, self.samples, self.progress = tflite, rule, samples, progress
        self._cache: dict[Any, Any] = {}

    def build(self, settings: Settings) -> tuple[bytes, dict[str, Range]]:
        """Return (float model, ranges)."""
        reference = self.equalized(settings)
        ranges = self.ranges(settings)
        model = reference

        def quantize(tflite: bytes) -> bytes:
            return self.quantize(tflite, ranges)

        if settings.rounding:
            model = fit_rounding(
                reference, reference, quantize, self.samples, per_tensor=self.per_tensor,
                progress=lambda done, parts: self.progress("rounding", done, parts),
            )  # fmt: skip
        if settings.bias:
            model = correct_biases(
                reference, model, quantize, self.samples,
                progress=lambda done, parts: self.progress("bias", done, parts),
            )  # fmt: skip
        return model, ranges

    def quantize(self, model: bytes, ranges: Mapping[str, Range]) -> bytes:
        """Return the integer file."""
        return quantize(model, self.rule, ranges).tflite

    def per_tensor(self, layer: Layer) -> bool:
        """Return whether a layer's weights are quantized per tensor."""
        dense = layer.dense and self.rule.fully_connected == "per-tensor"
        return dense or self.rule.weights == "per-tensor"

    def equalized(self, settings: Settings) -> bytes:
        """Return the float model before anything is fitted to the integer file."""
        key = ("equalized", *_equalization_key(settings))
        model: bytes = self._cached(key, lambda: self._equalize(settings))
        return model

    def ranges(self, settings: Settings) -> dict[str, Range]:
        """Return the ranges of all activations."""
        ranges = self._ranges_by_method(settings, settings.method)
        if settings.bounds or settings.balance:
            return {**ranges, **self._noise_minimized(settings).ranges}
        if settings.margin:
            wide = self.single_value_channels(settings)
            return {k: (low * MARGIN, high * MARGIN) if k in wide else (low, high) for k, (low, high) in ranges.items()}
        return ranges

    def single_value_channels(self, settings: Settings) -> set[str]:
        """Return the keys of the activations with one value per channel, such as scores and averages.

        An activation that must share its scale with one that has more values is left out.
        """
        graph = read_model(self.equalized(settings)).main
        keys = tensor_keys(graph)
        single = {
            tensor.index
            for tensor in graph.tensors
            if tensor.rank > 1 and tensor.elements == tensor.shape[-1] and tensor.index not in graph.inputs
        }
        fixed = {op.outputs[0] for op in graph.ops if fixed_range(op, 8) is not None}
        for group in same_scale_groups(graph):
            if not single.issuperset(group):
                single -= set(group)
        return {keys[index] for index in single - fixed if not graph.tensors[index].is_constant}

    def _ranges_by_method(self, settings: Settings, method: str) -> dict[str, Range]:
        model = self.equalized(settings)
        key = ("calibration", *_equalization_key(settings))
        calibration: Calibration = self._cached(key, lambda: calibrate(model, self.samples, 2))
        ranges: dict[str, Range] = self._cached(
            (*key, method), lambda: choose_ranges(calibration, read_model(model), method)
        )
        return ranges

    def _noise_minimized(self, settings: Settings) -> ScaledModel:
        """Return the model with ranges that minimize noise, with its channels scaled as well if `balance` is set."""
        base = replace(settings, balance=False, bounds=False)
        key = ("balanced", *_equalization_key(settings))
        scaled: ScaledModel = self._cached(
            key, lambda: minimize_noise(self.equalized(base), self.samples, scale=settings.balance)
        )
        return scaled

    def _equalize(self, settings: Settings) -> bytes:
        if settings.balance:
            return self._noise_minimized(settings).tflite
        edits_model = settings.pools or settings.center or settings.absorb or settings.share is not None
        if not (edits_model or settings.bias or settings.rounding):
            return self.tflite
        model = unshare_biases(self.tflite)
        if settings.pools:
            model = replace_global_pools(model)
        if settings.center:
            model = center_channels(model, self.samples)
        if settings.share is not None:
            graph = read_model(model).main
            ranges = channel_ranges(model, find_equalization_groups(graph, find_layers(graph)), self.samples)
            if self.rule.weights == "per-tensor":
                model = equalize_weights(model, ranges)
            else:
                model = equalize(model, ranges, settings.share)
        return absorb_high_biases(model, self.samples) if settings.absorb else model

    def _cached(self, key: Any, compute: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]


def _equalization_key(settings: Settings) -> tuple[Any, ...]:
    """Return the settings that the equalized float model depends on."""
    return settings.pools, settings.center, settings.balance, settings.share, settings.absorb
