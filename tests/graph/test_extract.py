"""Parts of a model compute what the whole computes, and exposed tensors have the values that they had inside."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.graph import read_model
from edgepack.graph.edit import unpack
from edgepack.graph.extract import expose_tensors, extract_ops
from edgepack.runtime.runner import Runner

FILES = (
    "mlperf-tiny/kws_reference_int8.tflite",
    "coral/split_concat.tflite",
    "coral/mobilenet_v1_0.25_128_quant.tflite",
)


def raw_inputs(runner: Runner) -> list[np.ndarray]:
    """Random values of the whole range of each input."""
    generator = np.random.default_rng(0)
    limits = [np.iinfo(info.dtype) for info in runner.inputs]
    return [
        generator.integers(limit.min, limit.max, info.shape, info.dtype, endpoint=True)
        for info, limit in zip(runner.inputs, limits, strict=True)
    ]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [1, 5])
def test_parts_in_sequence_are_the_whole(name: str, size: int, shared_models: Path) -> None:
    """Parts of one op, or of five, run one after the other, return the outputs of the whole file, bit by bit."""
    data = (shared_models / name).read_bytes()
    graph, file = read_model(data).main, unpack(data)
    whole = Runner(data, plain=True)
    arrays = raw_inputs(whole)
    values = dict(zip(graph.inputs, arrays, strict=True))
    indices = [op.index for op in graph.ops]
    for start in range(0, len(indices), size):
        part = extract_ops(file, graph, indices[start : start + size])
        # A copy of everything would run as well: only what the part needs is in it.
        assert len(read_model(part.tflite).main.ops) <= size
        assert size > 1 or len(part.tflite) < len(data)
        results = Runner(part.tflite, plain=True).run([values[index] for index in part.inputs])
        values.update(zip(part.outputs, results, strict=True))
    for index, expected in zip(graph.outputs, whole.run(arrays), strict=True):
        assert np.array_equal(values[index], expected)
    # The source is as before.
    assert set(extract_ops(file, graph, indices).outputs) == set(graph.outputs)


def test_exposed_tensors_follow_the_outputs(shared_models: Path) -> None:
    """Inner tensors become further outputs in the order asked for; an output is not repeated."""
    data = (shared_models / FILES[0]).read_bytes()
    graph = read_model(data).main
    inner = [graph.ops[3].outputs[0], graph.ops[1].outputs[0], graph.outputs[0]]
    exposed = expose_tensors(data, inner)
    assert read_model(exposed).main.outputs == (*graph.outputs, *inner[:2])
    assert not read_model(exposed).signatures
    arrays = raw_inputs(Runner(data))
    first, third, second = Runner(exposed, plain=True).run(arrays)
    assert np.array_equal(first, Runner(data, plain=True).run(arrays)[0])
    head = extract_ops(unpack(data), graph, [0, 1])
    assert np.array_equal(second, Runner(head.tflite, plain=True).run(arrays)[0])
    assert third.shape == graph.tensors[inner[0]].shape
