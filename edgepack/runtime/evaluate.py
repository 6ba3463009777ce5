"""Measure several converted models against one float model in a single pass over the samples.

These functions run in a child process: arguments and results pickle.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import UnfitModelError
from edgepack.runtime.logits import with_logits
from edgepack.runtime.metrics import Quality, QualityMeter, class_output
from edgepack.runtime.postprocessing import PostprocessStep, finish
from edgepack.runtime.runner import Runner, TensorInfo, quantize
from edgepack.samples.source import SampleSet

Array = npt.NDArray[Any]


def evaluate(
    reference: bytes,
    candidates: Mapping[str, bytes],
    samples: SampleSet,
    tail: Sequence[PostprocessStep] = (),
    *,
    threads: int = 2,
) -> dict[str, Quality]:
    """Return what each candidate lost against the reference.

    Args:
        reference: The float .tflite (or any .tflite that takes the same inputs).
        candidates: Converted .tflite files by a key of the caller's choice.
        samples: Samples with the reference's input names; labels are used when they are there.
        tail: Steps that were cut off the candidates and that the reference still has; they are done here.
        threads: Threads of the runtime.

    Raises:
        UnfitModelError: A model does not load or run here.
        SamplesError: A sample cannot be read or does not fit.
    """
    base, base_logits = _runner(reference, threads)
    loaded = {key: _runner(data, threads) for key, data in candidates.items()}
    labels = samples.labels
    highest = int(labels.max()) if labels is not None and labels.size else None
    count = len(base_logits)
    classes = class_output([info.shape for info in base.outputs[:count]], highest)
    names = [info.name for info in base.outputs[:count]]
    meters = {key: QualityMeter(names, classes) for key in loaded}
    squashed = [position for position in range(count) if base_logits[position] != position]
    steps = [[step for step in tail if step.output == position] for position in range(len(names))]
    for position in range(len(samples)):
        arrays = ordered(base.inputs, samples.sample(position))
        want = base.run_real(arrays)
        label = None if labels is None else int(labels[position])
        for key, (runner, logits) in loaded.items():
            given = runner.run_real(arrays)
            got = [np.asarray(finish(mine, real), np.float64) for mine, real in zip(steps, given[:count], strict=True)]
            meters[key].add(want[:count], got, label)
            wanted = [want[base_logits[place]] for place in squashed]
            found = [given[logits[place]] for place in squashed]
            if all(one.shape == other.shape for one, other in zip(wanted, found, strict=True)):
                meters[key].add_logits(wanted, found)
    return {key: meter.result() for key, meter in meters.items()}


def _runner(tflite: bytes, threads: int) -> tuple[Runner, tuple[int, ...]]:
    """Return a runner of the model with its logits, and where each output's logits stand among its outputs."""
    data, places = with_logits(tflite)
    return Runner(data, threads=threads), places


def ordered(inputs: list[TensorInfo], sample: Mapping[str, Array]) -> list[Array]:
    """Return a sample's arrays in the order of the model's inputs."""
    return [sample[info.name] for info in inputs]


def golden_vectors(tflite: bytes, samples: list[Mapping[str, Array]]) -> list[tuple[list[Array], list[Array]]]:
    """Return, for each sample of real values, the raw inputs the model is given and the raw outputs it gives.

    Runs with one thread, so that the same file on the same kind of machine gives the same bytes.
    """
    runner = Runner(tflite, threads=1)
    cases = []
    for sample in samples:
        arrays = [
            quantize(info, array) for info, array in zip(runner.inputs, ordered(runner.inputs, sample), strict=True)
        ]
        cases.append((arrays, runner.run(arrays)))
    return cases


def kernel_spread(tflite: bytes, cases: list[tuple[list[Array], list[Array]]]) -> tuple[int, float]:
    """Return how far the built-in kernels are from the golden vectors: what another runtime may rightly differ in.

    Args:
        tflite: The model.
        cases: What `golden_vectors` gave.

    Returns:
        Largest difference of quantized outputs in steps, and of float outputs as a part of the largest magnitude; zeros
        for a model that the built-in kernels refuse.
    """
    steps, relative = 0, 0.0
    for inputs, outputs in cases:
        # A new one each time: a model with state starts every case afresh.
        try:
            runner = Runner(tflite, threads=1, plain=True)
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
    """Return random samples for a model without data: uniform over what the input's dtype or scale can hold.

    Float inputs get values in [0, 1), quantized ones values over their whole range, booleans both, integers 0 and 1
    (safe as indices).

    Args:
        inputs: The model's inputs.
        count: How many.
        seed: Seed of the generator; the same seed gives the same bytes.
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
