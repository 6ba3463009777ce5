"""Noise gain of activations: how much noise in a channel adds to the logits, from squared gradients.

With a random sign on every logit, the squared gradient of their signed sum is, in expectation, the sum of the squared
gradients of all logits (Hutchinson 1990, "A Stochastic Estimator of the Trace of the Influence Matrix"). Gradients are
TensorFlow's, of the float graph lowered to it.

Clipping error is unlike rounding error: it has one sign, so it adds up over an image, and it occurs where values are
largest, which may be where the logits are most sensitive or, below a RELU, not sensitive at all. Its gain relative to
rounding error is measured on the samples: between 0.01 and 30 on six models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.quantize.ptq.activations import Sample
from edgepack.quantize.ptq.layers import Doubles
from edgepack.quantize.ptq.moments import evenly_spaced
from edgepack.quantize.ptq.tuning import CLIPPING_SHARES, GRADIENT_BYTES, GRADIENT_SAMPLES, LEAST_CLIPPING_GAIN


@dataclass
class NoiseGain:
    """Noise gain of one activation, averaged per sample.

    Attributes:
        active: Squared gradients summed over a channel's values that are not zero (rounding leaves zeros unchanged).
        total: Squared gradients summed over all of a channel's values.
        clipping: Gain of clipping error relative to independent noise of the same power, below and above zero:
            (2, CLIPPING_SHARES).
    """

    active: Doubles
    total: Doubles
    clipping: Doubles = field(default_factory=lambda: np.ones((2, len(CLIPPING_SHARES))))


def noise_gains(
    tflite: bytes, samples: Sequence[Sample], peaks: Mapping[int, Doubles], seed: int = 0
) -> dict[int, NoiseGain]:
    """Return the noise gain of every activation that the logits depend on, by tensor index.

    Outputs count alike: each of several is divided by its standard deviation over the samples. Activations without a
    finite gradient are left out.

    Args:
        tflite: A float model.
        samples: Calibration samples; evenly spaced ones are used.
        peaks: Largest magnitude below and above zero of each activation's channels, (2, channels); the gain of clipping
            error is measured for the activations in it.
        seed: Random seed of the signs.
    """
    from edgepack.quantize.ptq.lowering.differentiable_logits import differentiable_logits
    from edgepack.quantize.ptq.lowering.model import LoweredModel

    lowered = LoweredModel(tflite)
    logits = differentiable_logits(lowered)
    if not logits:
        return {}
    indices = [index for index in lowered.shapes if lowered.graph.tensors[index].is_float and lowered.shapes[index]]
    used = evenly_spaced(samples, GRADIENT_SAMPLES)
    values = sum(int(np.prod(lowered.shapes[index])) for index in indices)
    batch = max(1, min(len(used), GRADIENT_BYTES // max(1, 4 * values)))
    batches = [lowered.stack(used[start : start + batch]) for start in range(0, len(used), batch)]
    signal = _signal(lowered, logits, batches)
    compute = _gradient_function(lowered, logits, indices, 1.0 / np.sqrt(signal * len(logits)), peaks)
    random = np.random.default_rng(seed)
    totals: dict[int, list[Doubles]] = {}
    for inputs in batches:
        signs = [
            (random.integers(0, 2, (len(inputs[0]), *lowered.shapes[i])) * 2 - 1).astype(np.float32) for i in logits
        ]
        for index, parts in compute(inputs, signs).items():
            new = [part.numpy().astype(np.float64) for part in parts]
            totals[index] = [a + b for a, b in zip(totals[index], new, strict=True)] if index in totals else new
    # Before a division by zero, for example, there is no finite gradient.
    finite = {index: parts for index, parts in totals.items() if all(np.isfinite(part).all() for part in parts)}
    return {index: _gain(parts, len(used)) for index, parts in finite.items()}


def _gain(parts: Sequence[Doubles], samples: int) -> NoiseGain:
    (total, active), *clipping = parts
    gain = NoiseGain(active / samples, total / samples)
    if clipping:
        count, clipped, response = clipping
        expected = (clipped * (active / np.maximum(count, 1e-9))).sum(axis=2)
        known = expected > 1e-30
        ratio = np.where(known, response / np.where(known, expected, 1.0), 1.0)
        gain.clipping = np.maximum(ratio, LEAST_CLIPPING_GAIN)
    return gain


def _signal(lowered: Any, logits: Sequence[int], batches: Sequence[list[Any]]) -> Doubles:
    """Return the variance of each output over the samples, summed over its elements; its power where nothing varies."""
    if len(logits) == 1:
        # A common factor of all gains changes no choice.
        return np.ones(1)
    from edgepack.quantize.ptq.lowering.lazy import tf

    def forward(inputs: list[Any]) -> list[Any]:
        values = lowered.run(dict(zip(lowered.graph.inputs, inputs, strict=True)), stop=logits)
        return [values[index] for index in logits]

    compute = tf.function(forward, autograph=False, reduce_retracing=True)
    results = [[part.numpy() for part in compute(inputs)] for inputs in batches]
    signal = []
    for parts in zip(*results, strict=True):
        values = np.concatenate(parts).astype(np.float64)
        variance = float(values.var(axis=0).sum())
        signal.append(variance or float(np.square(values).sum() / len(values)) or 1.0)
    return np.array(signal)


def _gradient_function(
    lowered: Any, logits: Sequence[int], indices: Sequence[int], weights: Doubles, peaks: Mapping[int, Doubles]
) -> Any:
    """Return a function of (inputs, signs) that gives the sums of one batch by tensor index.

    They are the squared gradients (2, channels), and for tensors with peaks the number of values that are not zero, the
    squared clipping errors (2, shares, channels) and the squared responses to them (2, shares).
    """
    from edgepack.quantize.ptq.lowering.lazy import tf

    def compute(inputs: list[Any], signs: list[Any]) -> dict[int, list[Any]]:
        values = lowered.run(dict(zip(lowered.graph.inputs, inputs, strict=True)))
        outputs = [values[index] for index in logits]
        weighted = [sign * float(weight) for sign, weight in zip(signs, weights, strict=True)]
        wanted = [index for index in indices if index in values]
        gradients = tf.gradients(outputs, [values[index] for index in wanted], grad_ys=weighted)
        sums = {}
        for index, gradient in zip(wanted, gradients, strict=True):
            if gradient is None:
                continue
            channels = lowered.shapes[index][-1]
            batch = tf.shape(values[index])[0]
            gradient = tf.reshape(tf.convert_to_tensor(gradient), [batch, -1, channels])
            rows = tf.reshape(values[index], [batch, -1, channels])
            square = tf.square(gradient)
            nonzero = tf.cast(tf.not_equal(rows, 0.0), square.dtype)
            parts = [tf.stack([tf.reduce_sum(square, [0, 1]), tf.reduce_sum(square * nonzero, [0, 1])])]
            if index in peaks:
                parts.append(tf.reduce_sum(nonzero, [0, 1]))
                clipped, response = [], []
                for side, sign in enumerate((-1.0, 1.0)):
                    for share in CLIPPING_SHARES:
                        bound = np.where(peaks[index][side] > 0, share * peaks[index][side], 3e38).astype(np.float32)
                        excess = tf.nn.relu(sign * rows - bound)
                        clipped.append(tf.reduce_sum(tf.square(excess), [0, 1]))
                        response.append(tf.reduce_sum(tf.square(tf.reduce_sum(gradient * excess, [1, 2]))))
                shares = len(CLIPPING_SHARES)
                parts.append(tf.reshape(tf.stack(clipped), [2, shares, channels]))
                parts.append(tf.reshape(tf.stack(response), [2, shares]))
            sums[index] = parts
        return sums

    return tf.function(compute, autograph=False, reduce_retracing=True)
