"""Verify a rewrite: the original and the rewritten file compute the same outputs on samples."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import read_model
from edgepack.runtime.evaluate import synthetic_samples
from edgepack.runtime.postprocessing import PostprocessStep, do_step
from edgepack.runtime.runner import Runner, TensorInfo, dequantize, model_inputs, quantize
from edgepack.samples import SampleSet

#: Largest relative difference that counts as equal: float32 rounding of a few thousand sums.
TOLERANCE = 1e-5


def prove(
    before: bytes, after: bytes, samples: Iterable[Mapping[str, npt.NDArray[Any]]], tail: Sequence[PostprocessStep] = ()
) -> float:
    """Return the largest difference of the outputs, relative to the largest value of the output on that sample.

    It runs native code, so call it in a child process.

    Args:
        before: The original file.
        after: The rewritten file, with the same inputs.
        samples: Real values by input name.
        tail: Postprocessing steps that were cut from the rewritten file; they are applied to its outputs.

    Returns:
        0 for equal outputs; infinity when shapes differ or one value is finite where the other is not.
    """
    first, second = (Runner(file, threads=1, stream=True) for file in (before, after))
    worst = 0.0
    for sample in samples:
        expected_outputs = first.run_real([sample[info.name] for info in first.inputs])
        raw_outputs = second.run([quantize(info, sample[info.name]) for info in second.inputs])
        for position, (expected, raw) in enumerate(zip(expected_outputs, raw_outputs, strict=True)):
            steps = [step for step in tail if step.output == position]
            worst = max(worst, _difference(expected, _postprocess(second.outputs[position], raw, steps)))
    return worst


def prove_on(before: bytes, after: bytes, samples: SampleSet | int, tail: Sequence[PostprocessStep] = ()) -> float:
    """Call `prove` with a sample set, or with `samples` random samples of both signs when it is a number."""
    if isinstance(samples, int):
        return prove(before, after, _random_samples(model_inputs(read_model(before)), samples), tail)
    return prove(before, after, (samples.sample(i) for i in range(len(samples))), tail)


def _random_samples(inputs: list[TensorInfo], count: int) -> list[dict[str, npt.NDArray[Any]]]:
    generator = np.random.default_rng(17)
    samples = synthetic_samples(inputs, count)
    for sample in samples:
        for info in inputs:
            if info.dtype.kind == "f":
                sample[info.name] = generator.normal(0, 1, info.shape).astype(info.dtype)
    return samples


def _postprocess(info: TensorInfo, raw: npt.NDArray[Any], steps: Sequence[PostprocessStep]) -> npt.NDArray[np.float64]:
    if not steps:
        return np.asarray(dequantize(info, raw), np.float64)
    for step in steps:
        raw = do_step(step, raw)
    return np.asarray(raw, np.float64)


def _difference(expected: npt.NDArray[Any], actual: npt.NDArray[np.float64]) -> float:
    if expected.shape != actual.shape or not np.array_equal(np.isfinite(expected), np.isfinite(actual)):
        return float("inf")
    finite = np.isfinite(expected)
    largest = float(np.abs(expected[finite]).max(initial=0.0))
    return float(np.abs(expected[finite] - actual[finite]).max(initial=0.0)) / max(
        largest, float(np.finfo(np.float32).tiny)
    )
