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
from edgepack.quantize.ptq.layers import Doubles, Floats
from edgepack.quantize.ptq.moments import evenly_spaced
from edgepack.quantize.ptq.tuning import CLIPPING_SHARES, GRADIENT_BYTES, GRADIENT_SAMPLES, LEAST_CLIPPING_GAIN
from edgepack.quantize.ptq.variants import Variants


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


class GainFunction:
    """Computes the noise gains of files that differ in the constants of their layers only.

    TensorFlow's preparation of a function takes several times as long as running it.

    Args:
        tflite: One of the files.
        peaks: Those of the first call; later ones are of the same activations.
    """

    def __init__(self, tflite: bytes, peaks: Mapping[int, Doubles]) -> None:
        from edgepack.quantize.ptq.lowering.differentiable_logits import differentiable_logits
        from edgepack.quantize.ptq.lowering.lazy import tf
        from edgepack.quantize.ptq.lowering.model import LoweredModel

        self._variants, self._peaks = Variants.of(tflite), frozenset(peaks)
        self._lowered = LoweredModel(tflite)
        self._logits = differentiable_logits(self._lowered)
        self._indices = [
            index
            for index in self._lowered.shapes
            if self._lowered.graph.tensors[index].is_float and self._lowered.shapes[index]
        ]
        self._forward, self._gradients = (
            tf.function(function, autograph=False, reduce_retracing=True) for function in (self._outputs, self._sums)
        )

    def serves(self, tflite: bytes, peaks: Mapping[int, Doubles]) -> bool:
        """Return whether a file differs in the constants of its layers only, none of which the runtime reads."""
        return not self._lowered.boundaries and self._variants.contains(tflite) and peaks.keys() == self._peaks

    def __call__(
        self, tflite: bytes, samples: Sequence[Sample], peaks: Mapping[int, Doubles], seed: int = 0
    ) -> dict[int, NoiseGain]:
        """Return the noise gain of every activation that the logits depend on, by tensor index.

        Outputs count alike: each of several is divided by its standard deviation over the samples. Activations without
        a finite gradient are left out.

        Args:
            tflite: A float model that it serves.
            samples: Calibration samples; evenly spaced ones are used.
            peaks: Largest magnitude below and above zero of each activation's channels, (2, channels); the gain of
                clipping error is measured for the activations in it.
            seed: Random seed of the signs.
        """
        lowered = self._lowered
        if not self._logits:
            return {}
        used = evenly_spaced(samples, GRADIENT_SAMPLES)
        values = sum(int(np.prod(lowered.shapes[index])) for index in self._indices)
        batch = max(1, min(len(used), GRADIENT_BYTES // max(1, 4 * values)))
        batches = [lowered.stack(used[start : start + batch]) for start in range(0, len(used), batch)]
        constants = {index: place.read(tflite) for index, place in self._variants.constants.items()}
        weights = 1.0 / np.sqrt(self._signal(batches, constants) * len(self._logits))
        bounds = {index: _clipping_bounds(peak) for index, peak in peaks.items() if index in lowered.shapes}
        random = np.random.default_rng(seed)
        totals: dict[int, list[Doubles]] = {}
        for inputs in batches:
            signs = [
                ((random.integers(0, 2, (len(inputs[0]), *lowered.shapes[i])) * 2 - 1) * weight).astype(np.float32)
                for i, weight in zip(self._logits, weights, strict=True)
            ]
            for index, parts in self._gradients(inputs, signs, constants, bounds).items():
                new = [part.numpy().astype(np.float64) for part in parts]
                totals[index] = [a + b for a, b in zip(totals[index], new, strict=True)] if index in totals else new
        # Before a division by zero, for example, there is no finite gradient.
        finite = {index: parts for index, parts in totals.items() if all(np.isfinite(part).all() for part in parts)}
        return {index: _gain(parts, len(used)) for index, parts in finite.items()}

    def _signal(self, batches: Sequence[list[Any]], constants: Mapping[int, Any]) -> Doubles:
        """Return each output's variance over the samples, summed over its elements; its power where nothing varies."""
        if len(self._logits) == 1:
            # A common factor of all gains changes no choice.
            return np.ones(1)
        results = [[part.numpy() for part in self._forward(inputs, constants)] for inputs in batches]
        signal = []
        for parts in zip(*results, strict=True):
            values = np.concatenate(parts).astype(np.float64)
            variance = float(values.var(axis=0).sum())
            signal.append(variance or float(np.square(values).sum() / len(values)) or 1.0)
        return np.array(signal)

    def _outputs(self, inputs: list[Any], constants: Mapping[int, Any]) -> list[Any]:
        lowered = self._lowered
        values = lowered.run(
            dict(zip(lowered.graph.inputs, inputs, strict=True)), stop=self._logits, constants=constants
        )
        return [values[index] for index in self._logits]

    def _sums(
        self, inputs: list[Any], signs: list[Any], constants: Mapping[int, Any], bounds: Mapping[int, Any]
    ) -> dict[int, list[Any]]:
        """Return the sums of one batch by tensor index.

        They are the squared gradients (2, channels), and for tensors with bounds the number of values that are not
        zero, the squared clipping errors (2, shares, channels) and the squared responses to them (2, shares).
        """
        from edgepack.quantize.ptq.lowering.lazy import tf

        lowered = self._lowered
        values = lowered.run(dict(zip(lowered.graph.inputs, inputs, strict=True)), constants=constants)
        outputs = [values[index] for index in self._logits]
        wanted = [index for index in self._indices if index in values]
        gradients = tf.gradients(outputs, [values[index] for index in wanted], grad_ys=signs)
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
            if index in bounds:
                parts.append(tf.reduce_sum(nonzero, [0, 1]))
                clipped, response = [], []
                for side, sign in enumerate((-1.0, 1.0)):
                    for number in range(len(CLIPPING_SHARES)):
                        excess = tf.nn.relu(sign * rows - bounds[index][side, number])
                        clipped.append(tf.reduce_sum(tf.square(excess), [0, 1]))
                        response.append(tf.reduce_sum(tf.square(tf.reduce_sum(gradient * excess, [1, 2]))))
                shares = len(CLIPPING_SHARES)
                parts.append(tf.reshape(tf.stack(clipped), [2, shares, channels]))
                parts.append(tf.reshape(tf.stack(response), [2, shares]))
            sums[index] = parts
        return sums


def _clipping_bounds(peak: Doubles) -> Floats:
    """Return the bounds whose clipping error is measured, (2, shares, channels); beyond all values without a peak."""
    shares = np.asarray(CLIPPING_SHARES)[:, np.newaxis]
    bounds = np.where(peak[:, np.newaxis] > 0.0, shares * peak[:, np.newaxis], 3e38)
    return np.asarray(bounds, np.float32)


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
