"""Moments of the inputs of weighted layers, in one pass of the float model.

For every layer the mean and the second moment of what it multiplies with its weights are collected at random positions:
what rounding weights (`gptq`) and correcting biases need. The float model runs once for as many layers as the memory
limit allows, and no integer model is run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, read_model
from edgepack.graph.op_layout import dilated_size, padding_amounts
from edgepack.quantize.ptq.activations import Sample, run_activations
from edgepack.quantize.ptq.layers import Doubles, Floats, Layer
from edgepack.quantize.ptq.tuning import (
    FEWEST_POSITIONS,
    MOMENT_BYTES,
    MOST_POSITIONS,
    POSITIONS_PER_INPUT,
    PRODUCT_BYTES,
    PRODUCT_POSITIONS,
    WIDEST_BLOCK,
)


@dataclass
class Moments:
    """First and second moments of a layer's inputs.

    Attributes:
        count: Number of positions.
        mean: float64, (groups, inputs).
        square: E[x x^T] as blocks on the diagonal, float64: each (groups, width, width), widths summing up to `inputs`.
    """

    count: int
    mean: Doubles
    square: list[Doubles]


def block_widths(layer: Layer) -> list[int]:
    """Return the widths of the blocks that a layer's second moment is kept in: one, unless the layer is very wide."""
    blocks = -(-layer.inputs // WIDEST_BLOCK)
    return [len(part) for part in np.array_split(np.arange(layer.inputs), blocks)]


def evenly_spaced(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """Return at most `limit` of the samples."""
    if len(samples) <= limit:
        return list(samples)
    return [samples[i] for i in np.linspace(0, len(samples) - 1, limit).astype(int)]


def measure_moments(
    tflite: bytes, layers: Sequence[Layer], samples: Sequence[Sample]
) -> Iterator[tuple[Layer, Moments]]:
    """Yield every layer with the moments of its inputs.

    Args:
        tflite: A float model.
        layers: Its layers.
        samples: Real values by `Model.input_names()`.
    """
    graph = read_model(tflite).main
    for part in _parts(layers):
        sums = {layer.position: _Sums(layer) for layer in part}
        sources = sorted({layer.source for layer in part})
        for number, values in enumerate(run_activations(tflite, sources, samples)):
            for layer in part:
                limit = _positions(layer, len(samples))
                sums[layer.position].add(_drawn_inputs(graph, layer, values(layer.source), limit, number))
        for layer in part:
            yield layer, sums.pop(layer.position).moments()


def _positions(layer: Layer, samples: int) -> int:
    """Return the number of positions of each sample: enough for the width of the layer."""
    wanted = min(max(POSITIONS_PER_INPUT * layer.inputs, FEWEST_POSITIONS), MOST_POSITIONS)
    return -(-wanted // samples)


def _parts(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Yield the layers in parts whose second moments fit in the memory limit together."""
    part: list[Layer] = []
    used = 0
    for layer in layers:
        size = 8 * layer.groups * sum(width * width for width in block_widths(layer))
        if part and used + size > MOMENT_BYTES:
            yield part
            part, used = [], 0
        part.append(layer)
        used += size
    if part:
        yield part


class _Sums:
    """Sums of inputs and of their products, of many positions at a time."""

    def __init__(self, layer: Layer) -> None:
        widths = block_widths(layer)
        self._ends = np.cumsum([0, *widths])
        self._count = 0
        self._mean = np.zeros((layer.groups, layer.inputs))
        self._square = [np.zeros((layer.groups, width, width)) for width in widths]
        self._products: dict[tuple[int, int], Doubles] = {}
        self._pending: list[Floats] = []
        self._pending_count = 0

    def add(self, inputs: Floats) -> None:
        """Add positions, as `_drawn_inputs` returns them."""
        self._pending.append(inputs)
        self._pending_count += len(inputs)
        if self._pending_count >= PRODUCT_POSITIONS or self._pending_count * inputs[0].nbytes >= PRODUCT_BYTES:
            self._multiply()

    def _multiply(self) -> None:
        if not self._pending:
            return
        inputs = np.concatenate(self._pending)
        self._pending, self._pending_count = [], 0
        self._count += len(inputs)
        # A product with ones sums ten times as fast as `sum` does.
        mean = np.ones((1, len(inputs)), np.float32) @ inputs.reshape(len(inputs), -1)
        _, taps, groups, channels = inputs.shape
        self._mean += mean.reshape(taps, groups, channels).swapaxes(0, 1).reshape(groups, -1)
        if channels == 1 and groups > 1:
            # Channels side by side in memory: as one small matrix per channel they would have to be sorted first, which
            # takes several times as long.
            for one in range(taps):
                for other in range(one + 1):
                    product = np.einsum("pg,pg->g", inputs[:, one, :, 0], inputs[:, other, :, 0])
                    self._products[one, other] = self._products.get((one, other), 0.0) + product.astype(np.float64)
            return
        patches = _by_group(inputs)
        for total, start, end in zip(self._square, self._ends, self._ends[1:], strict=False):
            block = patches[:, :, start:end]
            if len(block) == 1:
                # Of a matrix with its own transpose NumPy computes one triangle only.
                total[0] += block[0].T @ block[0]
            else:
                total += np.swapaxes(block, 1, 2) @ block

    def _add_product(self, one: int, other: int, product: Doubles) -> None:
        """Add a product of two inputs, (groups,), where both are in one block."""
        block = int(np.searchsorted(self._ends, one, side="right")) - 1
        first = self._ends[block]
        if other < first:
            return
        self._square[block][:, one - first, other - first] += product
        if one != other:
            self._square[block][:, other - first, one - first] += product

    def moments(self) -> Moments:
        """Return the moments."""
        self._multiply()
        for (one, other), product in self._products.items():
            self._add_product(one, other, product)
        count = max(1, self._count)
        return Moments(self._count, self._mean / count, [total / count for total in self._square])


def input_patches(graph: Graph, layer: Layer, values: Floats, limit: int, seed: int = 0) -> Floats:
    """Return what a layer multiplies with its weights at random positions: (groups, positions, inputs).

    Inputs are in the order of `Layer.rows`. For TRANSPOSE_CONV a position is one of the input.

    Args:
        graph: The graph of the layer.
        layer: The layer.
        values: Its input for one sample.
        limit: Maximum number of positions; the same ones are drawn for the same seed and shape.
        seed: Random seed.
    """
    return _by_group(_drawn_inputs(graph, layer, values, limit, seed))


def _by_group(inputs: Floats) -> Floats:
    """Return (positions, taps, groups, channels of a group) as (groups, positions, inputs)."""
    positions, _, groups, _ = inputs.shape
    return np.ascontiguousarray(inputs.transpose(2, 0, 1, 3)).reshape(groups, positions, -1)


def _drawn_inputs(graph: Graph, layer: Layer, values: Floats, limit: int, seed: int) -> Floats:
    """Return `input_patches` in the order of the input's memory: (positions, taps, groups, channels of a group)."""
    if layer.kernel is None:
        rows = values.reshape(-1, layer.inputs)
        return rows[drawn_positions(len(rows), limit, seed)].astype(np.float32, copy=False)[:, np.newaxis, np.newaxis]
    options, (kernel_h, kernel_w) = layer.op.options, layer.kernel
    tops: list[int] = []
    lefts: list[int] = []
    output = graph.tensors[layer.result].shape
    offsets = []
    for axis, (size, kernel) in enumerate(zip(values.shape[1:3], (kernel_h, kernel_w), strict=True)):
        letter = "hw"[axis]
        dilation, stride = int(options.get(f"dilation_{letter}", 1)), int(options[f"stride_{letter}"])
        before, _ = padding_amounts(options["padding"], size, dilated_size(kernel, dilation), stride)
        (tops if axis == 0 else lefts).append(stride)
        offsets.append(np.arange(kernel) * dilation - before)
    batch, out_h, out_w = values.shape[0], int(output[1]), int(output[2])
    chosen = drawn_positions(batch * out_h * out_w, limit, seed)
    image, y, x = np.unravel_index(chosen, (batch, out_h, out_w))
    rows_at = (y[:, np.newaxis] * tops[0] + offsets[0])[:, :, np.newaxis]
    columns_at = (x[:, np.newaxis] * lefts[0] + offsets[1])[:, np.newaxis, :]
    height, width, channels = (int(size) for size in values.shape[1:])
    inside = (rows_at >= 0) & (rows_at < height) & (columns_at >= 0) & (columns_at < width)
    row = image[:, np.newaxis, np.newaxis] * height + np.clip(rows_at, 0, height - 1)
    places = (row * width + np.clip(columns_at, 0, width - 1)).reshape(len(chosen), -1)
    # A third of the time that three index arrays take.
    patches = np.take(values.reshape(-1, channels), places, axis=0).astype(np.float32, copy=False)
    patches[~inside.reshape(places.shape)] = 0.0
    return np.asarray(patches.reshape(len(chosen), kernel_h * kernel_w, layer.groups, -1), np.float32)


def drawn_positions(count: int, limit: int, seed: int) -> npt.NDArray[np.intp]:
    """Return the positions to use out of `count`, in ascending order; the same ones for the same arguments."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
