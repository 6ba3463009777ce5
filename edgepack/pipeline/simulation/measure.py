"""Runs of a compiled file on the simulator beside the same file on the CPU; these functions run in a child process."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgepack.child import emit
from edgepack.compilers.simulator import Simulator, simulating_compiler
from edgepack.errors import UnfitModelError
from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import unpack
from edgepack.graph.extract import extract_ops
from edgepack.pipeline.simulation.figures import Array, DeviatingOp, Distance, DistanceMeter, SimulatedRun
from edgepack.runtime.class_scores import output_kinds
from edgepack.runtime.evaluate import ordered
from edgepack.runtime.metrics import QualityMeter
from edgepack.runtime.postprocessing import PostprocessStep, finish
from edgepack.runtime.runner import Runner, TensorInfo, dequantize, quantize, tensor_info
from edgepack.samples import SampleSet


def run_simulation(
    compiler: str,
    compiled: bytes,
    architecture: str,
    host: bytes,
    reference: bytes,
    samples: SampleSet | None,
    golden: Sequence[Sequence[Array]],
    tail: Sequence[PostprocessStep] = (),
    named: Collection[int] = (),
    seconds: float = 3600.0,
) -> SimulatedRun:
    """Run samples on the simulator and on the CPU, and compare both with the float model.

    Args:
        compiler: Id of the compiler's wrapper.
        compiled: The compiled file.
        architecture: The chip's architecture, empty for unknown.
        host: The file that was compiled.
        reference: The float model.
        samples: Samples to run, None for the golden inputs only.
        golden: Raw inputs of each golden case.
        tail: Postprocessing steps that the reference has and the file leaves to the loader.
        named: Positions of outputs known to hold class scores.
        seconds: No further sample is started after this time.

    Raises:
        UnfitModelError: A file does not load or run.
        ToolMissingError: The simulator is not installed.
    """
    start = time.monotonic()
    simulator = simulating_compiler(compiler).load_simulator(compiled, architecture)
    cpu = Runner(host, threads=2)
    streams = read_model(host).is_stream
    distance, timer = DistanceMeter(cpu.outputs), _Timer(simulator)
    results = []
    for inputs in golden:
        results.append(tuple(timer.run(inputs)))
        distance.add(cpu.run(inputs), results[-1])
    if samples is None:
        return SimulatedRun(0, 0, None, None, distance.result(), None, tuple(results), timer.mean)
    base, cpu = Runner(reference, threads=2, stream=True), Runner(host, threads=2, stream=True)
    labels = samples.labels
    highest = int(labels.max()) if labels is not None and labels.size else None
    kinds = output_kinds(read_model(reference).main, [info.shape for info in base.outputs], named, highest)
    names = [info.name for info in base.outputs]
    meters = [
        QualityMeter(names, kinds.classes, kinds.probabilities, kinds.numbers, kinds.ranked) for _ in range(2)
    ]  # fmt: skip
    steps = [[step for step in tail if step.output == position] for position in range(len(names))]
    count = same = 0
    for number in range(len(samples)):
        if number and time.monotonic() - start > seconds:
            break
        arrays = ordered(base.inputs, samples.sample(number))
        raw = [quantize(info, array) for info, array in zip(cpu.inputs, arrays, strict=True)]
        expected, here, there = base.run_real(arrays), cpu.run(raw), timer.run(raw, keep_state=streams and number > 0)
        distance.add(here, there)
        if kinds.classes is not None:
            same += int(np.argmax(there[kinds.classes])) == int(np.argmax(here[kinds.classes]))
        label = None if labels is None else int(labels[number])
        for meter, outputs in zip(meters, (there, here), strict=True):
            meter.add(expected, _real(cpu.outputs, outputs, steps), label)
        count += 1
        emit((count, len(samples)))
    quality, beside = (meter.result() for meter in meters)
    agreement = None if kinds.classes is None else 100.0 * same / count
    return SimulatedRun(
        count, len(samples), quality, beside, distance.result(), agreement, tuple(results), timer.mean
    )  # fmt: skip


def _real(
    infos: Sequence[TensorInfo], outputs: Sequence[Array], steps: Sequence[Sequence[PostprocessStep]]
) -> list[Any]:
    return [
        np.asarray(finish(after, dequantize(info, raw)), np.float64)
        for info, raw, after in zip(infos, outputs, steps, strict=True)
    ]


class _Timer:
    """A simulator, and how long its runs take."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._seconds, self._runs = 0.0, 0

    def run(self, inputs: Sequence[Array], *, keep_state: bool = False) -> list[Array]:
        start = time.monotonic()
        outputs = self._simulator.run(inputs, keep_state=True) if keep_state else self._simulator.run(inputs)
        self._seconds += time.monotonic() - start
        self._runs += 1
        return outputs

    @property
    def mean(self) -> float:
        return self._seconds / max(1, self._runs)


def compare_ops(
    compiler: str, compiled: bytes, architecture: str, exposed: bytes, inputs: Sequence[Sequence[Array]]
) -> tuple[tuple[tuple[Array, ...], ...], tuple[DeviatingOp, ...]]:
    """Compare each op on the simulator with the same op on the CPU, for the inputs that it had on the simulator.

    Errors do not add up from op to op in this way: each op is judged by what it does to its own inputs.

    Args:
        compiler: Id of the compiler's wrapper.
        compiled: A model whose inner tensors are outputs, compiled.
        architecture: The chip's architecture, empty for unknown.
        exposed: The same model before compilation.
        inputs: Raw inputs of each case.

    Returns:
        The raw outputs of each case, inner tensors included, and every op that differs, in file order.

    Raises:
        UnfitModelError: A file does not load or run.
        ToolMissingError: The simulator is not installed.
    """
    simulator = simulating_compiler(compiler).load_simulator(compiled, architecture)
    graph, file = read_model(exposed).main, unpack(exposed)
    results = [tuple(simulator.run(case)) for case in inputs]
    known: list[Mapping[int, Array]] = []
    for case, outputs in zip(inputs, results, strict=True):
        known.append({**dict(zip(graph.inputs, case, strict=True)), **dict(zip(graph.outputs, outputs, strict=True))})
    found = []
    for op in graph.ops:
        distance = _own_distance(file, graph, op, known)
        if distance is not None and not distance.equal:
            found.append(DeviatingOp(op.label, op.index, graph.output_name(op), distance))
    return tuple(results), tuple(found)


def _own_distance(file: Any, graph: Graph, op: Op, known: Sequence[Mapping[int, Array]]) -> Distance | None:
    """Return how far an op's results are from the CPU's for the same inputs, None where that cannot be said."""
    part = extract_ops(file, graph, [op.index])
    outputs = [index for index in part.outputs if all(index in values for values in known)]
    if not outputs or any(index not in values for values in known for index in part.inputs):
        return None
    try:
        runner = Runner(part.tflite, plain=True)
        meter = DistanceMeter([tensor_info(graph.tensors[i].name, graph.tensors[i]) for i in outputs])
        for values in known:
            expected = dict(zip(part.outputs, runner.run([values[i] for i in part.inputs]), strict=True))
            meter.add([expected[i] for i in outputs], [values[i] for i in outputs])
    except UnfitModelError:
        # A custom op, or one that does not run alone.
        return None
    return meter.result()
