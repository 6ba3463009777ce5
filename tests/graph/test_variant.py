"""A file that was edited in place is known without reading it, and what is known is what is in it."""

import dataclasses
from typing import Any

import builders
import numpy as np

from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants
from edgepack.quantize.ptq.requantize import Requantizer
from edgepack.quantize.ranges import choose_ranges
from edgepack.runtime.logits import expose_logits


def _differences(known: Any, read: Any, place: str = "model") -> list[str]:
    """Return the places at which two models differ, field by field."""
    if isinstance(known, np.ndarray):
        equal = isinstance(read, np.ndarray) and known.dtype == read.dtype and np.array_equal(known, read)
        return [] if equal else [place]
    if dataclasses.is_dataclass(known):
        names = [field.name for field in dataclasses.fields(known)]
        return [one for name in names for one in _differences(getattr(known, name), getattr(read, name), name)]
    if isinstance(known, tuple | list):
        if len(known) != len(read):
            return [place]
        parts = enumerate(zip(known, read, strict=True))
        return [one for number, (a, b) in parts for one in _differences(a, b, f"{place}[{number}]")]
    if isinstance(known, dict):
        if list(known) != list(read):
            return [place]
        return [one for name in known for one in _differences(known[name], read[name], f"{place}.{name}")]
    return [] if known == read else [place]


def _read_anew(tflite: bytes) -> Any:
    # Another object, which nothing is known about.
    return read_model(bytes(bytearray(tflite)))


def test_edited_weights_quantized_file_and_exposed_logits_are_known():
    """Weights set in place, an int8 file filled in and exposed logits are what `read_model` finds in their bytes."""
    tflite = builders.classifier()
    graph = read_model(tflite).main
    layer = find_layers(graph)[0]
    edited = set_constants(tflite, {layer.weights: constant_values(graph, layer.weights) * 0.5})
    assert edited != tflite
    assert len(edited) == len(tflite)
    samples = builders.samples(tflite, 4)
    requantize, rule = Requantizer(), SchemeRule("int8", "INT8", "per-channel")
    files = [requantize(one, rule, choose_ranges(calibrate(one, samples), read_model(one))) for one in (tflite, edited)]
    logits = expose_logits(files[1])
    assert logits != files[1]
    for data in (edited, *files, logits):
        assert _differences(read_model(data), _read_anew(data)) == []


def test_values_that_tensors_share_are_not_written_in_place():
    """A constant that two tensors share gets a new buffer: the other tensor keeps its values."""
    net = builders.Net()
    x, y, z = (net.tensor(name, (1, 4)) for name in "xyz")
    constants = [net.constant(name, np.ones((1, 4))) for name in ("one", "other")]
    net.op("ADD", [x, constants[0]], [y])
    net.op("ADD", [y, constants[1]], [z])
    model = unpack(net.build([x], [z]))
    tensors = model.subgraphs[0].tensors
    tensors[constants[1]].buffer = tensors[constants[0]].buffer
    edited = read_model(set_constants(pack(model), {constants[0]: np.full((1, 4), 3.0, np.float32)})).main
    assert [constant_values(edited, index).tolist() for index in constants] == [[[3.0] * 4], [[1.0] * 4]]
