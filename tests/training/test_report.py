"""The report counts the weights in the file."""

from pathlib import Path

import numpy as np

from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.training.report import FileReport, gzip_size, read_report

DIGITS = Path(__file__).resolve().parents[1] / "data" / "digits_float.tflite"


def test_zeros_and_unique_weights_are_counted_in_the_file() -> None:
    """The report counts zeros, distinct values per tensor and distinct values per channel of known weights."""
    data = DIGITS.read_bytes()
    before = read_report(data)
    graph = read_model(data).main
    dense = next(op for op in graph.ops if op.name == "FULLY_CONNECTED")
    weights = graph.tensors[dense.inputs[1]]
    values = np.zeros(weights.shape, np.float32)
    values[0, :3] = (1.0, 2.0, 3.0)
    values[1, :2] = (4.0, 5.0)
    model = unpack(data)
    model.buffers[weights.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    report = read_report(pack(model))
    (layer,) = [one for one in report.layers if one.op == "FULLY_CONNECTED"]
    assert layer.layer == graph.output_name(dense)
    assert layer.weights == values.size
    assert layer.sparsity == 1 - 5 / values.size
    assert (layer.unique, layer.unique_per_channel) == (6, 4)
    others = [(one.layer, one.unique) for one in before.layers if one.op != "FULLY_CONNECTED"]
    assert [(one.layer, one.unique) for one in report.layers if one.op != "FULLY_CONNECTED"] == others
    assert {one.op for one in report.layers} == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def test_sizes_are_the_files() -> None:
    """Size and compressed size are those of the bytes, and a report can be restored from JSON."""
    data = DIGITS.read_bytes()
    report = read_report(data)
    assert (report.bytes, report.gzip_bytes) == (len(data), gzip_size(data))
    assert report.gzip_bytes < report.bytes
    restored = FileReport.from_json(report.to_json())
    assert [layer.unique for layer in restored.layers] == [layer.unique for layer in report.layers]
    assert abs(restored.sparsity - report.sparsity) < 1e-3
