"""Measure several converted models against one float model in a single pass over the samples.

These functions run in a child process: arguments and results can be pickled.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.digests import sha256
from edgepack.errors import UnfitModelError
from edgepack.graph import read_model
from edgepack.runtime.answers import AnswerMeter, Evaluation
from edgepack.runtime.class_scores import output_kinds
from edgepack.runtime.logits import with_logits
from edgepack.runtime.metrics import Quality, QualityMeter
from edgepack.runtime.postprocessing import PostprocessStep, finish
from edgepack.runtime.runner import Runner, TensorInfo, quantize
from edgepack.runtime.signatures import signature_fault
from edgepack.runtime.task_metrics import TaskMeter
from edgepack.samples.source import SampleSet
from edgepack.tasks import TaskSpec

Array = npt.NDArray[Any]


def evaluate(
    reference: bytes,
    candidates: Mapping[str, bytes],
    samples: SampleSet,
    tail: Sequence[PostprocessStep] = (),
    named: Collection[int] = (),
    task: tuple[TaskSpec, tuple[str, ...]] | None = None,
    *,
    threads: int = 2,
) -> dict[str, Quality]:
    """Return the quality of each candidate compared with the reference.

    The arguments and errors are those of `evaluate_samples`.
    """
    results = evaluate_samples(reference, candidates, samples, tail, named, task, threads=threads)
    return {key: result.quality for key, result in results.items()}


def evaluate_samples(
    reference: bytes,
    candidates: Mapping[str, bytes],
    samples: SampleSet,
    tail: Sequence[PostprocessStep] = (),
    named: Collection[int] = (),
    task: tuple[TaskSpec, tuple[str, ...]] | None = None,
    *,
    threads: int = 2,
) -> dict[str, Evaluation]:
    """Return the quality of each candidate compared with the reference, and its answers sample by sample.

    Args:
        reference: The float .tflite (or any .tflite with the same inputs).
        candidates: Converted .tflite files by a key of the caller's choice.
        samples: Samples with the reference's input names; their labels are used if they have any.
        tail: Postprocessing steps that were cut off the candidates but not the reference; they are computed here.
        named: Positions of outputs known to hold class scores (`class_scores.output_kinds`).
        task: What the outputs mean, and the names of the classes; it is measured where the samples have a truth.
        threads: Threads of the interpreter.

    Raises:
        UnfitModelError: A model does not load or run on this machine.
        SamplesError: A sample cannot be read or does not match the inputs.
    """
    base = _reference(reference, samples, threads)
    loaded = {key: _runner(data, threads) for key, data in candidates.items()}
    labels = samples.labels
    highest = int(labels.max()) if labels is not None and labels.size else None
    count = len(base.logits)
    names = [info.name for info in base.outputs[:count]]
    kinds = output_kinds(read_model(reference).main, [info.shape for info in base.outputs[:count]], named, highest)
    meters = {
        key: QualityMeter(names, kinds.classes, kinds.probabilities, kinds.numbers, kinds.ranked) for key in loaded
    }
    meter = None
    if samples.truth is not None and task is not None:
        meter = TaskMeter(*task, samples, (base.inputs[0].shape[2], base.inputs[0].shape[1]))
    answers = {key: AnswerMeter(kinds.classes, kinds.probabilities) for key in loaded}
    squashed = [position for position in range(count) if base.logits[position] != position]
    steps = [[step for step in tail if step.output == position] for position in range(len(names))]
    for number in range(len(samples)):
        arrays = base.sample(number, samples)
        expected = base.run(number, arrays)
        label = None if labels is None else int(labels[number])
        if meter is not None:
            meter.add(_REFERENCE, number, expected[:count])
        for key, (runner, logits) in loaded.items():
            results = runner.run_real(arrays)
            outputs = zip(steps, results[:count], strict=True)
            got = [np.asarray(finish(output_steps, real), np.float64) for output_steps, real in outputs]
            meters[key].add(expected[:count], got, label)
            if meter is not None:
                meter.add(key, number, got)
            answers[key].add(expected[:count], got, label)
            for position in squashed:
                before, after = expected[base.logits[position]], results[logits[position]]
                if before.shape == after.shape:
                    meters[key].add_logits(position, before, after)
    _keep(base, reference, samples, threads)
    found = {key: Evaluation(one.result(), answers[key].result()) for key, one in meters.items()}
    if meter is None:
        return found
    return {
        key: replace(one, quality=replace(one.quality, task=meter.result(_REFERENCE, key)))
        for key, one in found.items()
    }


#: Key of the reference among those of the candidates.
_REFERENCE = "the reference"


class _Reference:
    """The reference, and what it returned for the samples.

    Attributes:
        inputs: The main graph's inputs in file order.
        outputs: The main graph's outputs, then the tensors before a last SOFTMAX or LOGISTIC.
        logits: Position of each output's logits.
    """

    def __init__(self, tflite: bytes, threads: int) -> None:
        runner, self.logits = _runner(tflite, threads)
        self.inputs, self.outputs = runner.inputs, runner.outputs
        self._runner: Runner | None = runner
        self._results: list[list[npt.NDArray[np.float64]]] = []
        self._bytes = 0
        self._pictures: list[list[Array]] = []
        self._picture_bytes = 0

    def sample(self, number: int, samples: SampleSet) -> list[Array]:
        """Return a sample in the order of the inputs; decoding a picture takes as long as running an integer model."""
        if number < len(self._pictures):
            return self._pictures[number]
        arrays = ordered(self.inputs, samples.sample(number))
        self._picture_bytes += sum(array.nbytes for array in arrays)
        if samples.images and number == len(self._pictures) and self._picture_bytes <= _KEPT_BYTES:
            self._pictures.append(arrays)
        return arrays

    def run(self, number: int, arrays: Sequence[Array]) -> list[npt.NDArray[np.float64]]:
        """Return the real outputs for a sample."""
        if number < len(self._results):
            return self._results[number]
        assert self._runner is not None
        results = self._runner.run_real(arrays)
        self._bytes += sum(array.nbytes for array in results)
        if self._bytes > _KEPT_BYTES:
            self._results.clear()
        elif number == len(self._results):
            self._results.append(results)
        return results

    def release(self, samples: int) -> bool:
        """Let the model go where the outputs of all samples are known; return whether they are."""
        known = len(self._results) == samples
        if known:
            self._runner = None
        return known


#: Largest size of the outputs that are kept of a reference; larger ones are computed for each file. As much again is
#: kept of decoded pictures, the first ones of a larger set.
_KEPT_BYTES = 64 << 20

#: The reference of the last call, by digest, samples and threads. A child serves all targets of a build, and a search
#: for ops that need more precision measures dozens of files: the float model runs once for all of them.
_last: dict[tuple[str, str, int], _Reference] = {}


def _reference(tflite: bytes, samples: SampleSet, threads: int) -> _Reference:
    known = _last.get((sha256(tflite), samples.digest, threads))
    return _Reference(tflite, threads) if known is None else known


def _keep(reference: _Reference, tflite: bytes, samples: SampleSet, threads: int) -> None:
    if reference.release(len(samples)):
        _last.clear()
        _last[sha256(tflite), samples.digest, threads] = reference


def _runner(tflite: bytes, threads: int) -> tuple[Runner, tuple[int, ...]]:
    """Return a runner of the model with its logits as outputs, and the position of each output's logits."""
    data, positions = with_logits(tflite)
    return Runner(data, threads=threads, stream=True), positions


def ordered(inputs: list[TensorInfo], sample: Mapping[str, Array]) -> list[Array]:
    """Return a sample's arrays in the order of the model's inputs."""
    return [sample[info.name] for info in inputs]


def golden_vectors(tflite: bytes, samples: list[Mapping[str, Array]]) -> list[tuple[list[Array], list[Array]]]:
    """Return the raw inputs and raw outputs of the model for each sample of real values.

    Runs with one thread, so that the same file gives the same bytes on the same kind of machine. A stateful model
    starts every sample with its initial state, as it does in `verify`.

    Raises:
        UnfitModelError: A signature gives other outputs than the file.
    """
    runner = Runner(tflite, threads=1)
    cases = []
    for sample in samples:
        arrays = [
            quantize(info, array) for info, array in zip(runner.inputs, ordered(runner.inputs, sample), strict=True)
        ]
        cases.append((arrays, runner.run(arrays)))
    if cases and (fault := signature_fault(tflite, *cases[0])):
        raise UnfitModelError(fault, hint="give the model without this signature, or with one that is true")
    return cases


def kernel_spread(tflite: bytes, cases: list[tuple[list[Array], list[Array]]]) -> tuple[int, float]:
    """Return how much the built-in kernels differ from the golden vectors: the tolerance for other runtimes.

    Args:
        tflite: The model.
        cases: Result of `golden_vectors`.

    Returns:
        Largest difference of quantized outputs in scale steps, and of float outputs relative to the largest magnitude;
        zeros for a model that the built-in kernels do not support.
    """
    steps, relative = 0, 0.0
    runner: Runner | None = None
    for inputs, outputs in cases:
        try:
            runner = runner or Runner(tflite, threads=1, plain=True)
            results = runner.run(inputs)
        except UnfitModelError:
            return 0, 0.0
        for info, expected, got in zip(runner.outputs, outputs, results, strict=True):
            difference = np.abs(expected.astype(np.float64) - got.astype(np.float64))
            largest = float(np.max(difference, initial=0.0))
            if info.quantized:
                steps = max(steps, int(largest))
            elif expected.dtype.kind == "f":
                magnitude = float(np.max(np.abs(expected.astype(np.float64)), initial=0.0))
                relative = max(relative, largest / magnitude if magnitude and np.isfinite(largest) else 0.0)
    return steps, relative


def synthetic_samples(inputs: list[TensorInfo], count: int, *, seed: int = 20) -> list[dict[str, Array]]:
    """Return random samples for a model without data.

    Float inputs get uniform values in [0, 1), quantized ones uniform values over their whole range, booleans both
    values, integers 0 and 1, which are safe as indices.

    Args:
        inputs: The model's inputs.
        count: Number of samples.
        seed: Random seed; the same seed gives the same bytes.
    """
    generator = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        sample: dict[str, Array] = {}
        for info in inputs:
            if info.quantized:
                limits = np.iinfo(info.dtype)
                raw = generator.integers(limits.min, limits.max, info.shape, endpoint=True)
                sample[info.name] = ((raw - info.zero_point) * np.float64(info.scale)).astype(np.float32)
            elif info.dtype.kind == "f":
                sample[info.name] = generator.random(info.shape).astype(info.dtype)
            else:
                sample[info.name] = generator.integers(0, 2, info.shape).astype(info.dtype)
        samples.append(sample)
    return samples
