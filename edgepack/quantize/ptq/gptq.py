"""GPTQ: round the weights of a layer one input after another, so that later ones make up for errors of earlier ones.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", with the
second moment of the inputs in the float model, so that every layer is rounded independently of the others. What is left
of the shift of the mean goes into the bias (Nagel et al. 2019, section 4.2), in closed form.

The result are weights on their int8 grid, with the largest of each channel at 127, so that a quantizer derives the same
scales and the same integers from them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgepack.choices import Effort
from edgepack.graph import Graph, read_model
from edgepack.quantize.ptq.layers import Doubles, Floats, Layer, constant_values, find_layers, set_constants
from edgepack.quantize.ptq.moments import Moments, evenly_spaced, measure_moments
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import COLUMNS, DAMPING, MOMENT_BYTES, MOMENT_SAMPLES

#: Largest integer of a weight: TFLite's int8 weights are symmetric and exclude -128.
MAX_WEIGHT = 127

#: Share of the mean that deviations keep, and what is added to their diagonal as a share of the mean square: moments
#: are sums of float32 products, and of inputs that never change, as in a single sample, only their rounding errors are
#: left, whose matrix has no Cholesky factor.
_MEAN_KEPT, _ROUNDED = 1e-5, 1e-6

#: How often ten times as much is added to a diagonal before a layer is rounded to nearest.
_MORE_DAMPING = 5

#: Size up to which LAPACK inverts a triangular matrix.
_SMALL_TRIANGLE = 64

#: Weights up to which all settings of a layer are rounded together; larger layers would need the memory twice.
_TOGETHER = 1 << 16

#: Settings: GPTQ by second moments; by deviations from the mean, whose shift the bias takes; to nearest, biases only.
#: By deviations the weights of MediaPipe's hand net and of a U-Net lose 3 dB less, EfficientNet-Lite0's 0.4, those of
#: visual wake words 3 dB more: its calibration samples are of one photograph, the others have another mean.
MOMENTS, DEVIATIONS, NEAREST = "gptq", "gptq-deviations", "nearest"
SETTINGS = (MOMENTS, DEVIATIONS, NEAREST)

_TEXTS = {
    MOMENTS: "GPTQ and biases",
    DEVIATIONS: "GPTQ by deviations from the mean, and biases",
    NEAREST: "biases",
}


def round_layer(
    layer: Layer, weights: Floats, moments: Moments, *, per_tensor: bool, settings: Sequence[str] = (MOMENTS,)
) -> list[tuple[Floats, Doubles]]:
    """Return a layer's weights on their int8 grid, and the shift of its mean output per channel that a bias takes.

    Args:
        layer: The layer.
        weights: Its weights.
        moments: Moments of its inputs.
        per_tensor: Use one scale for all channels.
        settings: Some of `SETTINGS`: a pair is returned for each.
    """
    matrix = layer.matrix(weights).astype(np.float64)
    scale = weight_scales(layer, matrix, per_tensor=per_tensor)
    compensated = [setting for setting in dict.fromkeys(settings) if setting != NEAREST]
    rounded = dict(zip(compensated, _compensated(matrix, scale, moments, compensated), strict=True))
    if NEAREST in settings:
        rounded[NEAREST] = np.clip(np.rint(matrix / scale), -MAX_WEIGHT, MAX_WEIGHT) * scale
    return [(layer.from_rows(rounded[one]), mean_shift(layer, matrix - rounded[one], moments)) for one in settings]


def _compensated(matrix: Doubles, scale: Doubles, moments: Moments, settings: Sequence[str]) -> list[Doubles]:
    """Return the rows of a layer rounded by GPTQ, once for each of the settings.

    In small layers, all settings go through the same columns together, as further groups: NumPy's cost per call is half
    of the time there.
    """
    groups = len(matrix)
    results = [np.empty_like(matrix) for _ in settings]
    starts = np.cumsum([0, *(square.shape[-1] for square in moments.square)])
    for square, start, end in zip(moments.square, starts, starts[1:], strict=False):
        squares = [_about_mean(square, moments.mean[:, start:end]) if one == DEVIATIONS else square for one in settings]
        together = len(settings) if matrix.size <= _TOGETHER else 1
        for first in range(0, len(settings), together):
            chosen = squares[first : first + together]
            rows, scales = (np.concatenate([part] * len(chosen)) for part in (matrix[..., start:end], scale))
            rounded = round_rows(rows, scales, chosen, moments.count)
            for number, result in enumerate(results[first : first + together]):
                result[..., start:end] = rounded[number * groups : (number + 1) * groups]
    return results


def _about_mean(square: Doubles, mean: Doubles) -> Doubles:
    """Return the second moments of deviations from the mean, (groups, inputs, inputs)."""
    size = square.shape[-1]
    errors = _ROUNDED / math.sqrt(size) * np.trace(square, axis1=1, axis2=2)[:, np.newaxis, np.newaxis]
    common = (1.0 - _MEAN_KEPT) * mean[:, :, np.newaxis] * mean[:, np.newaxis]
    deviations: Doubles = square - common + errors * np.eye(size)
    return deviations


def weight_scales(layer: Layer, matrix: Doubles, *, per_tensor: bool) -> Doubles:
    """Return the scale of every row of `Layer.matrix`, (groups, rows, 1)."""
    largest = np.abs(matrix).max(axis=2, keepdims=True)
    if per_tensor:
        largest = np.broadcast_to(largest.max(), largest.shape)
    elif layer.taps > 1:
        each = largest.reshape(layer.groups, -1, layer.taps).max(axis=2)
        largest = np.repeat(each, layer.taps, axis=1)[..., np.newaxis]
    scale: Doubles = np.maximum(largest, 1e-30) / MAX_WEIGHT
    return scale


def mean_shift(layer: Layer, difference: Doubles, moments: Moments) -> Doubles:
    """Return what a change of the weights takes from the mean of each output channel.

    Args:
        layer: The layer.
        difference: Weights before minus weights after, (groups, rows, inputs).
        moments: Moments of the inputs.
    """
    shift: Doubles = (difference @ moments.mean[..., np.newaxis])[..., 0].reshape(-1)
    if layer.transposed:
        # Every input position reaches `taps` outputs, and there are stride times stride outputs per input.
        strides = int(layer.op.options["stride_h"]) * int(layer.op.options["stride_w"])
        shift = shift.reshape(-1, layer.taps).sum(axis=1) / strides
    return shift


def round_rows(rows: Doubles, scale: Doubles, squares: Sequence[Doubles], count: int) -> Doubles:
    """Return weights on their grid.

    Args:
        rows: (groups, rows, inputs).
        scale: (groups, rows, 1).
        squares: E[x x^T], each (some of the groups, inputs, inputs), together of all groups.
        count: Number of positions that it was measured at: with few, more is added to its diagonal.
    """
    size = rows.shape[-1]
    if size == 1:
        return np.clip(np.rint(rows / scale), -MAX_WEIGHT, MAX_WEIGHT) * scale
    factors = [_ordered_factor(square, max(DAMPING, size / max(1, count))) for square in squares]
    order, upper = (np.concatenate(parts) for parts in zip(*factors, strict=True))
    # Inputs come first in memory: one column of all rows is contiguous then, several times as fast as strided ones.
    places = np.ascontiguousarray(order.T)[..., np.newaxis]
    remaining = np.take_along_axis(np.ascontiguousarray(rows.transpose(2, 0, 1)), places, 0)
    steps = np.ascontiguousarray(upper.transpose(1, 2, 0))[..., np.newaxis]
    grid = scale[..., 0]
    # The largest weight defines the scale that a quantizer derives: it stays at the end of the grid.
    pinned = np.where(np.abs(remaining) >= grid * (MAX_WEIGHT - 1e-6), np.sign(remaining) * MAX_WEIGHT, 0.0)
    integers = np.empty_like(remaining)
    for start in range(0, size, COLUMNS):
        end = min(size, start + COLUMNS)
        block = remaining[start:end]
        errors = np.empty_like(block)
        for i, column in enumerate(block, start):
            rounded = np.clip(np.rint(column / grid), -MAX_WEIGHT, MAX_WEIGHT)
            rounded = np.where(pinned[i] != 0.0, pinned[i], rounded)
            integers[i] = rounded
            error = (column - rounded * grid) / steps[i, i]
            errors[i - start] = error
            block[i - start :] -= error * steps[i, i:end]
        later = upper[:, start:end, end:].transpose(0, 2, 1) @ errors.transpose(1, 0, 2)
        remaining[end:] -= later.transpose(1, 0, 2)
    result = np.empty_like(integers)
    np.put_along_axis(result, np.broadcast_to(places, integers.shape), integers * grid, 0)
    return np.ascontiguousarray(result.transpose(1, 2, 0))


def _ordered_factor(square: Doubles, damping: float) -> tuple[npt.NDArray[np.intp], Doubles]:
    """Return the order in which inputs are rounded, (groups, inputs), and `_inverse_factor` of moments in that order.

    Inputs with the most effect are rounded first, while there are others left to make up for their errors.

    Args:
        square: E[x x^T], (groups, inputs, inputs).
        damping: What is added to its diagonal, as a share of the diagonal's mean.
    """
    diagonal = np.diagonal(square, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    ordered = np.take_along_axis(np.take_along_axis(square, order[:, :, np.newaxis], 1), order[:, np.newaxis], 2)
    return order, _inverse_factor(ordered, diagonal.mean(axis=1, keepdims=True) * damping + 1e-30)


def _inverse_factor(square: Doubles, added: Doubles) -> Doubles:
    """Return the upper Cholesky factor of the inverse of second moments.

    Where inputs hardly vary, rounding errors of the moments exceed the damping and there is no factor: more is added
    then. With ever more, weights are rounded to nearest, which is what moments that are no numbers leave.

    Args:
        square: E[x x^T], (groups, inputs, inputs).
        added: What is added to its diagonal, (groups, 1).
    """
    size = square.shape[-1]
    if np.isfinite(square).all():
        for power in range(_MORE_DAMPING):
            damped = square.copy()
            damped[:, np.arange(size), np.arange(size)] += added * 10.0**power
            # H = R R^T with an upper R, from the lower factor of H with rows and columns in reverse; then H^-1 = U^T U
            # with U = R^-1, and H itself is never inverted.
            try:
                factor = np.asarray(np.linalg.cholesky(damped[:, ::-1, ::-1]), np.float64)[:, ::-1, ::-1]
                inverse = _inverse_triangle(factor)
            except np.linalg.LinAlgError:
                continue
            if np.isfinite(inverse).all():
                return inverse
    nearest: Doubles = np.broadcast_to(np.eye(size), square.shape).copy()
    return nearest


def _inverse_triangle(upper: Doubles) -> Doubles:
    """Return the inverse of upper triangular matrices, (groups, size, size), by halves: products instead of solving."""
    size = upper.shape[-1]
    if size <= _SMALL_TRIANGLE:
        return np.asarray(np.linalg.inv(upper), np.float64)
    half = size // 2
    result = np.zeros_like(upper)
    first = result[:, :half, :half] = _inverse_triangle(upper[:, :half, :half])
    second = result[:, half:, half:] = _inverse_triangle(upper[:, half:, half:])
    result[:, :half, half:] = -first @ upper[:, :half, half:] @ second
    return result


#: Weights and biases of both settings by tensor index, for a layer's position with and without one scale for all.
_Fitted = dict[tuple[int, bool], dict[str, dict[int, Floats]]]


class _Rounding(Step):
    id = "rounding"
    effort = Effort.LOW
    source = "weights by GPTQ, Frantar et al. 2022; biases in closed form, Nagel et al. 2019, section 4.2"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        return [{self.id: setting} for setting in SETTINGS] if subject.layers else []

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        # Moments need far fewer samples than ranges do.
        part = view.part
        fitted: _Fitted = part.once("rounding", fit.reference, dict)
        graph = read_model(fit.reference).main
        keys = {(layer.position, subject.per_tensor(layer)): layer for layer in find_layers(graph)}
        missing = [layer for key, layer in keys.items() if key not in fitted]
        kept: dict[int, Moments] = part.once("moments of dense layers", fit.reference, dict)
        for layer in missing:
            if layer.position in kept:
                self._add(graph, layer, kept[layer.position], subject, fitted)
        others = [layer for layer in missing if layer.position not in kept]
        samples = evenly_spaced(part.samples, MOMENT_SAMPLES)
        for done, (layer, moments) in enumerate(measure_moments(fit.reference, others, samples)):
            subject.progress(self.id, done, len(others))
            self._add(graph, layer, moments, subject, fitted)
            if layer.dense and sum(square.nbytes for one in kept.values() for square in one.square) < MOMENT_BYTES:
                # Another target may have one scale for the whole layer.
                kept[layer.position] = moments
        constants: dict[int, Floats] = {}
        for key in keys:
            constants.update(fitted[key][str(setting)])
        return replace(fit, tflite=set_constants(fit.reference, constants))

    def _add(self, graph: Graph, layer: Layer, moments: Moments, subject: Subject, fitted: "_Fitted") -> None:
        """Add a layer in all settings: measuring the moments is most of the work."""
        weights, per_tensor = constant_values(graph, layer.weights), subject.per_tensor(layer)
        results = fitted[layer.position, per_tensor] = {}
        # Without a bias nothing takes the shift of the mean.
        known = SETTINGS if layer.bias >= 0 else (MOMENTS, MOMENTS, NEAREST)
        pairs = round_layer(layer, weights, moments, per_tensor=per_tensor, settings=known)
        for setting, (rounded, shift) in zip(SETTINGS, pairs, strict=True):
            results[setting] = {layer.weights: rounded}
            if layer.bias >= 0:
                results[setting][layer.bias] = (constant_values(graph, layer.bias) + shift).astype(np.float32)

    def describe(self, setting: Setting) -> str:
        return _TEXTS[str(setting)]


ROUNDING = _Rounding()
