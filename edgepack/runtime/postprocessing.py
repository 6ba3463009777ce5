"""Last steps of a model that its loader does in place of the file: what they are, and how they are done."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import NUMPY_DTYPES

#: Ops that a loader does, with the types of their results; DEQUANTIZE is what a loader does to every quantized output.
RESULTS = {"ARG_MAX": ("INT32", "INT64"), "SOFTMAX": ("FLOAT32",), "DEQUANTIZE": ("FLOAT32",)}


@dataclass(frozen=True)
class PostprocessStep:
    """One step that the loader does in place of an op, on one output of the file.

    Steps of one output are done in order: the first one takes what the file gives, the others real values.

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
        """What is left to the loader, in words."""
        return f"{self.op} of '{self.name}'"


def do_step(step: PostprocessStep, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Do a step on an output's values, as every loader does it."""
    if step.op == "ARG_MAX":
        return np.asarray(np.argmax(values, axis=step.axis), NUMPY_DTYPES[step.dtype]).reshape(step.shape)
    if step.op == "SOFTMAX":
        # Infinite logits give what they give in the file: not a number, and no warning.
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = values.astype(np.float64) * step.beta
            powers = np.exp(scaled - scaled.max(axis=step.axis, keepdims=True))
            return np.asarray(powers / powers.sum(axis=step.axis, keepdims=True), np.float32)
    return np.asarray((values.astype(np.float64) - step.zero_point) * step.scale, np.float32)


def finish(steps: Sequence[PostprocessStep], real: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what the user gets from an output's real values.

    Args:
        steps: The output's steps, in order. DEQUANTIZE changes nothing here: the values are real already.
        real: Real values of the file's output.
    """
    for step in steps:
        if step.op != "DEQUANTIZE":
            real = do_step(step, real)
    return real


def scores(steps: Sequence[PostprocessStep]) -> tuple[PostprocessStep, ...]:
    """Return the steps before the class choice: what they give still says how sure the model is of each class."""
    return tuple(step for step in steps if step.op != "ARG_MAX")


def fault(shape: tuple[int, ...], steps: Sequence[PostprocessStep]) -> str:
    """Return what is wrong with steps that are to be done on an output of this shape, empty when nothing is."""
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
