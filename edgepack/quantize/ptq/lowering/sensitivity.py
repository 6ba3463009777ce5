"""Sensitivity of the logits to noise in each activation, from squared gradients.

With a random sign on every logit, the squared gradient of their signed sum is, in expectation, the sum of the squared
gradients of all logits (Hutchinson 1990, "A Stochastic Estimator of the Trace of the Influence Matrix").
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import NUMPY_DTYPES
from edgepack.quantize.ptq.lowering.call import TfTensor
from edgepack.quantize.ptq.lowering.differentiable_logits import differentiable_logits
from edgepack.quantize.ptq.lowering.lazy import tf
from edgepack.quantize.ptq.lowering.model import LoweredModel

#: Bytes that the activations of a batch may take. TensorFlow keeps them for the backward pass and gradients of two or
#: three layers beside them.
_BATCH_BYTES = 64 << 20


@dataclass
class Sensitivity:
    """How much noise in one activation adds to the logits, per channel (last axis), averaged per sample.

    Noise of the variance v in each value of a channel c adds v * total[c] to the mean noise-to-signal ratio of the
    outputs, whose signal is their variance about the mean of each element over the samples.

    Attributes:
        total: Squared gradients summed over the positions of each channel.
        active: The same over the values that are not zero, because rounding leaves zeros unchanged.
    """

    total: npt.NDArray[np.float64]
    active: npt.NDArray[np.float64]


def sensitivities(
    lowered: LoweredModel,
    samples: Sequence[Mapping[str, npt.NDArray[Any]]],
    *,
    seed: int = 0,
    batch_bytes: int = _BATCH_BYTES,
) -> dict[int, Sensitivity]:
    """Return the sensitivity of the logits to every floating-point activation that they depend on, by tensor index.

    Outputs count alike: each is divided by its standard deviation over the samples. Activations without a finite
    gradient, such as those before a division by zero, are left out.

    Args:
        lowered: A float model.
        samples: Arrays by input name, with or without the file's batch dimension of 1.
        seed: Random seed of the signs.
        batch_bytes: Limit of the memory of one batch's activations; one sample is always possible.

    Raises:
        UnfitModelError: The runtime cannot compute a boundary.
    """
    logits = differentiable_logits(lowered)
    indices = [index for index in lowered.shapes if lowered.graph.tensors[index].is_float]
    if not logits or not samples:
        return {}
    batch = _batch_size(lowered, indices, batch_bytes)
    starts = range(0, len(samples), batch)
    batches = [stacked(lowered, samples[start : start + batch]) for start in starts]
    signal = np.ones(len(logits)) if len(logits) == 1 else _signal(lowered, logits, batches)
    compute = _gradient_function(lowered, logits, indices, 1.0 / np.sqrt(signal * len(logits)))
    random = np.random.default_rng(seed)
    totals: dict[int, npt.NDArray[np.float64]] = {}
    moments = [_Moments() for _ in logits]
    for inputs in batches:
        count = len(inputs[0])
        signs = [
            (random.integers(0, 2, (count, *lowered.shapes[index])) * 2 - 1).astype(np.float32) for index in logits
        ]
        sums, values = compute(inputs, signs)
        for index, pair in sums.items():
            totals[index] = totals.get(index, 0.0) + pair.numpy().astype(np.float64)
        for moment, value in zip(moments, values, strict=True):
            moment.add(value.numpy())
    scale = 1.0 / len(samples)
    if len(logits) == 1:
        # With a single output its variance is only needed now, which saves a forward pass.
        scale /= moments[0].signal()
    return {
        index: Sensitivity(total=pair[0] * scale, active=pair[1] * scale)
        for index, pair in totals.items()
        if np.isfinite(pair).all()
    }


def stacked(lowered: LoweredModel, samples: Sequence[Mapping[str, npt.NDArray[Any]]]) -> list[npt.NDArray[Any]]:
    """Return samples as one array per graph input, (samples, *shape in the file)."""
    shapes = [lowered.graph.tensors[index].shape for index in lowered.graph.inputs]
    return [
        np.stack([np.reshape(sample[name], shape) for sample in samples])
        for name, shape in zip(lowered.names, shapes, strict=True)
    ]


class _Moments:
    """Sums of an output's elements over samples."""

    def __init__(self) -> None:
        self._values: list[npt.NDArray[np.float64]] = []

    def add(self, values: npt.NDArray[Any]) -> None:
        self._values.append(values.astype(np.float64))

    def signal(self) -> float:
        """Return the sum over elements of the variance over samples; the mean square where nothing varies."""
        values = np.concatenate(self._values)
        variance = float(values.var(axis=0).sum())
        return variance or float(np.square(values).sum() / len(values)) or 1.0


def _batch_size(lowered: LoweredModel, indices: Sequence[int], limit: int) -> int:
    per_sample = sum(math.prod(lowered.shapes[index]) for index in indices) * 4
    return max(1, limit // max(1, per_sample))


def _specs(lowered: LoweredModel, indices: Sequence[int]) -> list[Any]:
    """Return the signature of a function of tensors with any number of samples: one trace serves all batches."""
    tensors = [lowered.graph.tensors[index] for index in indices]
    return [tf.TensorSpec([None, *tensor.shape], NUMPY_DTYPES[tensor.dtype]) for tensor in tensors]


def _signal(
    lowered: LoweredModel, logits: Sequence[int], batches: Sequence[list[npt.NDArray[Any]]]
) -> npt.NDArray[np.float64]:
    """Return the variance of each output over the samples, summed over its elements."""

    def forward(inputs: list[TfTensor]) -> list[TfTensor]:
        values = lowered.run(dict(zip(lowered.graph.inputs, inputs, strict=True)), stop=logits)
        return [values[index] for index in logits]

    compute = tf.function(forward, input_signature=[_specs(lowered, lowered.graph.inputs)], autograph=False)
    moments = [_Moments() for _ in logits]
    for inputs in batches:
        for moment, value in zip(moments, compute(inputs), strict=True):
            moment.add(value.numpy())
    return np.array([moment.signal() for moment in moments])


def _gradient_function(
    lowered: LoweredModel, logits: Sequence[int], indices: Sequence[int], weights: npt.NDArray[np.float64]
) -> Any:
    """Return a function of (inputs, signs) that gives the sums of squared gradients (2, channels), and the logits."""

    def compute(inputs: list[TfTensor], signs: list[TfTensor]) -> tuple[dict[int, TfTensor], list[TfTensor]]:
        values = lowered.run(dict(zip(lowered.graph.inputs, inputs, strict=True)))
        outputs = [values[index] for index in logits]
        weighted = [sign * float(weight) for sign, weight in zip(signs, weights, strict=True)]
        gradients = tf.gradients(outputs, [values[index] for index in indices], grad_ys=weighted)
        sums = {}
        for index, gradient in zip(indices, gradients, strict=True):
            if gradient is None:
                continue
            channels = lowered.shapes[index][-1] if lowered.shapes[index] else 1
            square = tf.reshape(tf.square(tf.convert_to_tensor(gradient)), [-1, channels])
            active = tf.reshape(tf.cast(tf.not_equal(values[index], 0.0), square.dtype), [-1, channels])
            sums[index] = tf.stack([tf.reduce_sum(square, 0), tf.reduce_sum(square * active, 0)])
        return sums, outputs

    shapes = [tf.TensorSpec([None, *lowered.shapes[index]], tf.float32) for index in logits]
    return tf.function(compute, input_signature=[_specs(lowered, lowered.graph.inputs), shapes], autograph=False)
