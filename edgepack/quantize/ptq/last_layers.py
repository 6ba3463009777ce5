"""Last layers by ridge regression: what the integer file's errors have in common is taken from its scores.

Errors of all layers reach the last one together, and in part they depend on its inputs: clipped activations, say, make
all scores of a sample smaller. The residual, the float model's result minus the integer file's, is regressed on the
inputs that the layer has in the integer file, and the solution is added to its weights and biases (Hoerl and Kennard
1970, "Ridge Regression"). No layer follows whose inputs would change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgepack.choices import Effort
from edgepack.graph import Graph, read_model
from edgepack.quantize.ptq.activations import Sample, iterate_activations, renamed
from edgepack.quantize.ptq.gptq import round_layer
from edgepack.quantize.ptq.layers import (
    Doubles,
    Floats,
    Layer,
    constant_values,
    find_layers,
    set_constants,
    weighted_ops,
)
from edgepack.quantize.ptq.moments import Moments, block_widths, drawn_positions, input_patches
from edgepack.quantize.ptq.scoring import float_logits
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import REGRESSION_ROWS, RIDGES
from edgepack.runtime.logits import exposed_tensors

#: Setting that corrects the mean of the scores only.
BIASES = "biases"


@dataclass(frozen=True)
class Residual:
    """What a layer's results lack in the integer file.

    Attributes:
        inputs: Its inputs there, real values: (rows, inputs).
        missing: The float model's results minus the integer file's: (rows, output channels).
        rows: Rows of one sample, at most; those of one sample resemble each other.
    """

    inputs: Doubles
    missing: Doubles
    rows: int


def last_layers(graph: Graph) -> set[int]:
    """Return the ops with weights from which an output is reached without passing another one."""
    weighted = {op.index for op in weighted_ops(graph)}
    found: set[int] = set()
    pending, visited = list(graph.outputs), set(graph.outputs)
    while pending:
        producer = graph.producers.get(pending.pop())
        if producer in weighted:
            found.add(producer)
        elif producer is not None:
            new = [index for index in graph.ops[producer].inputs if index >= 0 and index not in visited]
            visited.update(new)
            pending += new
    return found


def regressed_layers(graph: Graph) -> list[Layer]:
    """Return the last layers whose results are linear in their weights, with a bias."""
    last = last_layers(graph)
    return [
        layer
        for layer in find_layers(graph)
        if layer.op.index in last and layer.bias >= 0 and layer.op.options.get("fused_activation") in {None, "NONE"}
    ]


def has_matrix(layer: Layer) -> bool:
    """Return whether all outputs of a layer are sums of the same inputs."""
    return layer.groups == 1 and not layer.transposed


def measure_results(
    tflite: bytes, samples: Sequence[Sample], positions: Sequence[int], rows: int
) -> list[list[Floats]]:
    """Return what the last layers of a float model compute, (rows, output channels) by sample and layer.

    Args:
        tflite: The float model.
        samples: Samples.
        positions: Their positions among all samples, from which rows are drawn.
        rows: Largest number of rows of a sample.
    """
    layers = regressed_layers(read_model(tflite).main)
    return [
        [_drawn(values, layer, rows, position) for layer, values in zip(layers, results, strict=True)]
        for position, results in zip(
            positions, iterate_activations(tflite, [layer.result for layer in layers], samples), strict=True
        )
    ]


def reference_logits(subject: Subject) -> list[list[Floats]]:
    """Return the float model's logits for all samples, by output."""
    return subject.once("logits", subject.tflite, lambda: float_logits(subject.tflite, subject.samples))


def _all_results(subject: Subject, rows: int) -> list[list[Floats]]:
    """Return `measure_results` of all samples; most last layers compute the logits, which are known."""
    layers, outputs = regressed_layers(subject.graph), exposed_tensors(subject.graph)
    if not all(layer.result in outputs for layer in layers):
        return measure_results(subject.tflite, subject.samples, range(len(subject.samples)), rows)
    places = [outputs.index(layer.result) for layer in layers]
    return [
        [_drawn(results[place], layer, rows, position) for place, layer in zip(places, layers, strict=True)]
        for position, results in enumerate(reference_logits(subject))
    ]


def measure_residuals(
    reference: bytes,
    quantized: bytes,
    samples: Sequence[Sample],
    positions: Sequence[int],
    expected: Sequence[Sequence[Floats]],
    rows: int,
) -> dict[int, Residual]:
    """Return the residuals of the last layers by their position.

    Args:
        reference: The float model.
        quantized: The integer file of the same graph.
        samples: Real values by the float model's input names.
        positions: Positions of the samples among all.
        expected: `measure_results` of the samples.
        rows: As for `measure_results`.
    """
    source, integer = read_model(reference), read_model(quantized)
    layers = regressed_layers(source.main)
    weighted = weighted_ops(integer.main)
    ops = [weighted[layer.position] for layer in layers]
    sources = [op.inputs[layer.data_position] for layer, op in zip(layers, ops, strict=True)]
    inputs: list[list[Floats]] = [[] for _ in layers]
    missing: list[list[Floats]] = [[] for _ in layers]
    wanted = [*sources, *(op.outputs[0] for op in ops)]
    actual = iterate_activations(quantized, wanted, renamed(samples, source, integer))
    for position, results, values in zip(positions, expected, actual, strict=True):
        for number, layer in enumerate(layers):
            missing[number].append(results[number] - _drawn(values[len(layers) + number], layer, rows, position))
            if has_matrix(layer):
                # The same seed draws the same positions.
                read = values[number].astype(np.float32)
                inputs[number].append(input_patches(source.main, layer, read, rows, position)[0])
    return {
        layer.position: Residual(
            np.concatenate(inputs[number] or [np.zeros((0, 0), np.float32)]).astype(np.float64),
            np.concatenate(missing[number]).astype(np.float64),
            max(len(part) for part in missing[number]),
        )
        for number, layer in enumerate(layers)
    }


def _drawn(values: npt.NDArray[np.floating], layer: Layer, rows: int, seed: int) -> Floats:
    """Return a layer's results at random positions, (rows, output channels)."""
    every = values.reshape(-1, layer.output_channels)
    return every[drawn_positions(len(every), rows, seed)].astype(np.float32)


def refit(
    layer: Layer, weights: Floats, bias: Floats, residual: Residual, setting: Setting, *, per_tensor: bool
) -> tuple[Floats, Floats]:
    """Return a layer's weights, on their int8 grid where they change, and its bias.

    Args:
        layer: The layer.
        weights: Its weights.
        bias: Its bias.
        residual: What its results lack.
        setting: `BIASES`, or one of `RIDGES`.
        per_tensor: Use one scale for all channels.
    """
    shift = residual.missing.mean(axis=0)
    count, width = residual.inputs.shape
    mean = residual.inputs.mean(axis=0) if count else np.zeros(width)
    inputs, missing = residual.inputs - mean, residual.missing - shift
    power = float(np.square(inputs).sum()) / max(1, count)
    if isinstance(setting, str) or power <= 0.0:
        return weights, (bias + shift).astype(np.float32)
    penalty = setting[0] * power * residual.rows
    if count <= width:
        change = inputs.T @ np.linalg.solve(inputs @ inputs.T + penalty * np.eye(count), missing)
    else:
        change = np.linalg.solve(inputs.T @ inputs + penalty * np.eye(width), inputs.T @ missing)
    wanted = layer.matrix(weights) + change.T[np.newaxis]
    ends = np.cumsum(block_widths(layer))
    blocks = [part.T @ part / count for part in np.split(residual.inputs, ends[:-1], axis=1)]
    moments = Moments(count, mean[np.newaxis], [block[np.newaxis] for block in blocks])
    [(rounded, rounding)] = round_layer(layer, layer.from_rows(wanted), moments, per_tensor=per_tensor)
    return rounded, (bias + shift - mean @ change + rounding).astype(np.float32)


class _Scores(Step):
    id = "scores"
    effort = Effort.LOW
    source = "last layers by ridge regression on the integer file, Hoerl and Kennard 1970"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        layers = regressed_layers(subject.graph)
        if not layers:
            return []
        ridges = [{self.id: (ridge,)} for ridge in RIDGES] if any(map(has_matrix, layers)) else []
        return [*ridges, {self.id: BIASES}]

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        rows = max(1, REGRESSION_ROWS // len(subject.samples))
        quantized = subject.file(fit)

        def measure() -> dict[int, Residual]:
            if read_model(subject.tflite).is_stream:
                # What the samples of a view leave in the state is not what all of them leave.
                expected = measure_results(fit.reference, view.samples, view.positions, rows)
            else:
                known = subject.once("results", subject.tflite, lambda: _all_results(subject, rows))
                expected = [known[position] for position in view.positions]
            return measure_residuals(fit.reference, quantized, view.samples, view.positions, expected, rows)

        residuals = view.once("residuals", quantized, measure)
        graph = read_model(fit.tflite).main
        constants: dict[int, Floats] = {}
        for layer in regressed_layers(graph):
            weights, bias = (constant_values(graph, index) for index in (layer.weights, layer.bias))
            constants[layer.weights], constants[layer.bias] = refit(
                layer, weights, bias, residuals[layer.position], setting, per_tensor=subject.per_tensor(layer)
            )
        return replace(fit, tflite=set_constants(fit.tflite, constants))

    def describe(self, setting: Setting) -> str:
        return "biases of the last layers" if isinstance(setting, str) else f"last layers, penalty {setting[0]:g}"


SCORES = _Scores()
