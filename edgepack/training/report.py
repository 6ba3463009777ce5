"""Report on a trained file: its size, and zeros and unique weights per layer. Needs no TensorFlow."""

import gzip
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgepack.graph import Graph, Op, Tensor, read_model
from edgepack.graph.op_layout import OP_LAYOUTS, channel_rows, float_ops, weights_index

#: Ops whose weights are reported.
_REPORTED = frozenset({"CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})


@dataclass(frozen=True)
class LayerReport:
    """The weights of one op.

    Attributes:
        layer: Name of the op's output tensor.
        op: TFLite operator name.
        dtype: Type of the weights.
        weights: Number of weights.
        sparsity: Share of weights that are exactly zero, 0 to 1.
        unique: Number of distinct values in the whole tensor.
        unique_per_channel: Largest number of distinct values in one output channel; with per-channel scales the same
            cluster has a different integer in each channel, so this is the number of clusters in an int8 file.
    """

    layer: str
    op: str
    dtype: str
    weights: int
    sparsity: float
    unique: int
    unique_per_channel: int


@dataclass(frozen=True)
class FileReport:
    """A whole file.

    Attributes:
        bytes: Size of the file.
        gzip_bytes: Size compressed with gzip, level 9, as for a download.
        layers: Ops with weights, in file order.
    """

    bytes: int
    gzip_bytes: int
    layers: tuple[LayerReport, ...]

    @property
    def sparsity(self) -> float:
        """Share of zeros over all layers, 0 to 1."""
        total = sum(layer.weights for layer in self.layers)
        return sum(layer.sparsity * layer.weights for layer in self.layers) / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the `report` object of `train --json`."""
        return {
            "bytes": self.bytes,
            "gzip_bytes": self.gzip_bytes,
            "sparsity": round(self.sparsity, 4),
            "layers": [{**asdict(layer), "sparsity": round(layer.sparsity, 4)} for layer in self.layers],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "FileReport":
        """Return the report that `to_json` wrote."""
        layers = tuple(LayerReport(**layer) for layer in document["layers"])
        return cls(document["bytes"], document["gzip_bytes"], layers)


def gzip_size(data: bytes) -> int:
    """Return the size of `data` compressed with gzip, level 9."""
    return len(gzip.compress(data, 9, mtime=0))


def read_report(tflite: bytes) -> FileReport:
    """Return the report on a file.

    Raises:
        ModelFileError: The bytes are not a .tflite.
    """
    graph = read_model(tflite).main
    layers = []
    for op in graph.ops:
        weights = _constant_weights(graph, op)
        if weights is None:
            continue
        layers.append(_layer_report(graph.output_name(op), op, weights))
    return FileReport(len(tflite), gzip_size(tflite), tuple(layers))


def float_op_names(tflite: bytes) -> tuple[str, ...]:
    """Return the names of the ops that compute in float in a file, QUANTIZE and DEQUANTIZE left out."""
    return tuple(sorted({op.label for op in float_ops(read_model(tflite).main)}))


def _constant_weights(graph: Graph, op: Op) -> Tensor | None:
    if op.name not in _REPORTED or weights_index(op) < 0:
        return None
    weights = graph.tensors[weights_index(op)]
    return weights if weights.data is not None and weights.elements else None


def _layer_report(name: str, op: Op, weights: Tensor) -> LayerReport:
    values = weights.data
    assert values is not None
    axis = OP_LAYOUTS[op.name].channel_axis
    assert axis is not None  # all ops of `_REPORTED` have channels
    channels = channel_rows(values, axis)
    zero = 0
    if weights.quantization is not None and weights.quantization.zero_point.size == 1:
        zero = int(weights.quantization.zero_point[0])
    return LayerReport(
        layer=name,
        op=op.name,
        dtype=weights.dtype,
        weights=weights.elements,
        sparsity=float(np.mean(values == zero)),
        unique=int(np.unique(values).size),
        unique_per_channel=max(int(np.unique(channel).size) for channel in channels),
    )
