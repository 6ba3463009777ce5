"""Prove a rewrite: both files give the same on samples."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import read_model
from edgepack.runtime.evaluate import synthetic_samples
from edgepack.runtime.postprocessing import PostprocessStep, do_step
from edgepack.runtime.runner import Runner, TensorInfo, dequantize, model_inputs, quantize
from edgepack.samples import SampleSet

#: Largest relative difference that counts as the same: float32 rounding of a few thousand sums.
TOLERANCE = 1e-5


def prove(
    before: bytes, after: bytes, samples: Iterable[Mapping[str, npt.NDArray[Any]]], tail: Sequence[PostprocessStep] = ()
) -> float:
    """Return the largest difference of the outputs, relative to the largest value of the output on that sample.

    Native: run it in a child process.

    Args:
        before: The file as it was.
        after: The rewritten file, with the same inputs.
        samples: Real values by input name.
        tail: Steps that were cut off the rewritten file; they are done here.

    Returns:
        0 for equal outputs; infinite when one is not finite where the other is.
    """
    first, second = Runner(before, threads=1), Runner(after, threads=1)
    worst = 0.0
    for sample in samples:
        expected = first.run_real([sample[info.name] for info in first.inputs])
        given = second.run([quantize(info, sample[info.name]) for info in second.inputs])
        for position, (wanted, got) in enumerate(zip(expected, given, strict=True)):
            steps = [step for step in tail if step.output == position]
            worst = max(worst, _difference(wanted, _finished(second.outputs[position], got, steps)))
    return worst


def prove_on(before: bytes, after: bytes, samples: SampleSet | int, tail: Sequence[PostprocessStep] = ()) -> float:
    """Do `prove` on a few samples, or on so many random ones of both signs."""
    if isinstance(samples, int):
        return prove(before, after, _random(model_inputs(read_model(before)), samples), tail)
    return prove(before, after, (samples.sample(i) for i in range(len(samples))), tail)


def _random(inputs: list[TensorInfo], count: int) -> list[dict[str, npt.NDArray[Any]]]:
    generator = np.random.default_rng(17)
    found = synthetic_samples(inputs, count)
    for sample in found:
        for info in inputs:
            if info.dtype.kind == "f":
                sample[info.name] = generator.normal(0, 1, info.shape).astype(info.dtype)
    return found


def _finished(info: TensorInfo, raw: npt.NDArray[Any], steps: Sequence[PostprocessStep]) -> npt.NDArray[np.float64]:
    if not steps:
        return np.asarray(dequantize(info, raw), np.float64)
    for step in steps:
        raw = do_step(step, raw)
    return np.asarray(raw, np.float64)


def _difference(wanted: npt.NDArray[Any], got: npt.NDArray[np.float64]) -> float:
    if wanted.shape != got.shape or not np.array_equal(np.isfinite(wanted), np.isfinite(got)):
        return float("inf")
    finite = np.isfinite(wanted)
    largest = float(np.abs(wanted[finite]).max(initial=0.0))
    return float(np.abs(wanted[finite] - got[finite]).max(initial=0.0)) / max(largest, float(np.finfo(np.float32).tiny))
