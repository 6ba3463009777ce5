"""Postprocessing: last ops of a model that the loader computes in place of the file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import NUMPY_DTYPES

#: Ops that loaders can compute, with the types of their results. Every loader dequantizes quantized outputs.
RESULTS = {"ARG_MAX": ("INT32", "INT64"), "SOFTMAX": ("FLOAT32",), "DEQUANTIZE": ("FLOAT32",)}


@dataclass(frozen=True)
class PostprocessStep:
    """One op that the loader computes on an output of the file.

    The steps of an output are computed in order: the first one on the file's values, the others on real values.

    Attributes:
        output: Position of the output in the file.
        name: The output's public name.
        op: `ARG_MAX`, `SOFTMAX` or `DEQUANTIZE`.
        axis: Axis of ARG_MAX, counted from 0; the last one for SOFTMAX.
        beta: Factor in front of SOFTMAX's logits.
        dtype: TFLite type of the step's result.
        shape: Shape of the step's result.
        scale: Scale that DEQUANTIZE applied: real = scale * (value - zero_point).
        zero_point: Its zero point.
    """

    output: int
    name: str
    op: str
    axis: int
    beta: float
    dtype: str
    shape: tuple[int, ...]
    scale: float = 1.0
    zero_point: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `tail` in JSON documents."""
        return {
            "output": self.output, "name": self.name, "op": self.op, "axis": self.axis, "beta": self.beta,
            "dtype": self.dtype, "shape": list(self.shape), "scale": self.scale, "zero_point": self.zero_point,
        }  # fmt: skip

    @property
    def message(self) -> str:
        """What the loader computes, for messages."""
        return f"{self.op} of '{self.name}'"


def do_step(step: PostprocessStep, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Compute a step on an output's values, in the same way as every loader."""
    if step.op == "ARG_MAX":
        return np.asarray(np.argmax(values, axis=step.axis), NUMPY_DTYPES[step.dtype]).reshape(step.shape)
    if step.op == "SOFTMAX":
        # Infinite logits give NaN without a warning, as the op in the file does.
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = values.astype(np.float64) * step.beta
            powers = np.exp(scaled - scaled.max(axis=step.axis, keepdims=True))
            return np.asarray(powers / powers.sum(axis=step.axis, keepdims=True), np.float32)
    return np.asarray((values.astype(np.float64) - step.zero_point) * step.scale, np.float32)


def finish(steps: Sequence[PostprocessStep], real: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the result of all steps on an output's real values.

    Args:
        steps: The output's steps, in order. DEQUANTIZE is skipped, because the values are real already.
        real: Real values of the file's output.
    """
    for step in steps:
        if step.op != "DEQUANTIZE":
            real = do_step(step, real)
    return real


def scores(steps: Sequence[PostprocessStep]) -> tuple[PostprocessStep, ...]:
    """Return the steps before ARG_MAX, whose results are still scores of the classes."""
    return tuple(step for step in steps if step.op != "ARG_MAX")


def fault(shape: tuple[int, ...], steps: Sequence[PostprocessStep]) -> str:
    """Return why the steps cannot be computed on an output of this shape, empty when they can."""
    for number, step in enumerate(steps):
        if step.op not in RESULTS or step.dtype not in RESULTS[step.op]:
            known = ", ".join(f"{op} to {' or '.join(dtypes)}" for op, dtypes in RESULTS.items())
            return f"step {number}: expected {known}, got {step.op} to {step.dtype}"
        if not 0 <= step.axis < len(shape) or shape[step.axis] < 1 or not math.isfinite(step.beta):
            return f"step {number}: {step.op} of {list(shape)} along axis {step.axis} with beta {step.beta}"
        if step.op == "ARG_MAX":
            shape = shape[: step.axis] + shape[step.axis + 1 :]
            if number + 1 < len(steps):
                return f"step {number + 1}: there are no real values after ARG_MAX"
        elif step.op == "SOFTMAX" and step.axis != len(shape) - 1:
            return f"step {number}: expected SOFTMAX along the last axis, got axis {step.axis}"
        if step.shape != shape:
            return f"step {number}: expected the shape {list(shape)}, got {list(step.shape)}"
    return ""
