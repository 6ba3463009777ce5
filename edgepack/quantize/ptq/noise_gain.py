"""Noise gain of activations: how much noise in a channel adds to the logits, from squared gradients.

With a random sign on every logit, the squared gradient of their signed sum is, in expectation, the sum of the squared
gradients of all logits (Hutchinson 1990, "A Stochastic Estimator of the Trace of the Influence Matrix").

Clipping error is unlike rounding error: it has one sign, so it adds up over an image, and it occurs where values are
largest, which may be where the logits are most sensitive or, below a RELU, not sensitive at all. Its gain relative to
rounding error is measured on the samples: between 0.01 and 30 on six models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgepack.quantize.ptq.activations import Sample
from edgepack.quantize.ptq.layers import Doubles, Floats
from edgepack.quantize.ptq.network import Network, Tape

#: Samples that gradients are computed on; gains converge with far fewer samples than ranges do.
_SAMPLES = 64

#: Limits of the values in one batch's activations, and in all batches': 300 M take NumPy a minute or two.
_BATCH_VALUES, _ALL_VALUES = 12_000_000, 300_000_000

#: Bounds at which the gain of clipping error is measured, as shares of a channel's largest value.
SHARES: Doubles = np.array([0.5, 0.6, 0.7, 0.8, 0.9])

#: Lower limit of the gain of clipping error, for sides where the logits hardly depend on it.
_MIN_CLIPPING_GAIN = 0.05


@dataclass
class NoiseGain:
    """Noise gain of one activation, averaged per sample.

    Attributes:
        active: Squared gradients summed over a channel's values that are not zero (rounding leaves zeros unchanged).
        total: Squared gradients summed over all of a channel's values.
        clipping: Gain of clipping error relative to independent noise of the same power, below and above zero:
            (2, SHARES).
    """

    active: Doubles
    total: Doubles
    clipping: Doubles = field(default_factory=lambda: np.ones((2, len(SHARES))))


def noise_gains(
    tflite: bytes, samples: Sequence[Sample], peaks: Mapping[int, Doubles] | None = None, seed: int = 0
) -> dict[int, NoiseGain]:
    """Return the noise gain of every activation that the logits depend on, by tensor index.

    Args:
        tflite: A float model.
        samples: Calibration samples; evenly spaced ones are used.
        peaks: Largest magnitude below and above zero of each activation's channels, (2, channels); the gain of clipping
            error is measured for the activations in it.
        seed: Random seed of the signs.

    Raises:
        NotDifferentiable: The logits depend on an op without a known gradient.
    """
    network = Network(tflite)
    sample_count = _affordable_samples(network, len(samples))
    gains: dict[int, NoiseGain] = {}
    clipping_gains: dict[int, _ClippingGain] = {}
    for count, tape, gradients in backward_batches(network, samples, seed):
        for index in network.activations:
            if index not in gradients:
                continue
            values = tape.activations[index]
            square = np.square(gradients[index].reshape(-1, values.shape[-1]), dtype=np.float64) / sample_count
            active = (square * (values.reshape(square.shape) != 0.0)).sum(axis=0)
            gain = gains.setdefault(index, NoiseGain(np.zeros_like(active), np.zeros_like(active)))
            gain.active += active
            gain.total += square.sum(axis=0)
            if peaks is not None and index in peaks:
                clipping = clipping_gains.setdefault(index, _ClippingGain(peaks[index]))
                clipping.add(values.reshape(count, -1, values.shape[-1]), gradients[index])
    for index, clipping in clipping_gains.items():
        gains[index].clipping = clipping.ratio(gains[index].active * sample_count)
    return gains


def _affordable_samples(network: Network, samples: int) -> int:
    """Return the number of samples to compute gradients on: fewer where activations are large."""
    return max(1, min(_SAMPLES, samples, _ALL_VALUES // _values_per_sample(network)))


def _values_per_sample(network: Network) -> int:
    return sum(network.graph.tensors[i].elements for i in network.activations)


def backward_batches(
    network: Network, samples: Sequence[Sample], seed: int
) -> Iterator[tuple[int, Tape, dict[int, Floats]]]:
    """Yield (number of samples, forward pass, gradients of the randomly signed sum of the logits) per batch.

    Args:
        network: The network.
        samples: Calibration samples; evenly spaced ones are used, as many as stay within the limit on values.
        seed: Random seed of the signs.
    """
    count = _affordable_samples(network, len(samples))
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, count).astype(int)]
    batch = max(1, min(count, _BATCH_VALUES // _values_per_sample(network)))
    random = np.random.default_rng(seed)
    for start in range(0, count, batch):
        part = chosen[start : start + batch]
        tape = network.forward([np.concatenate([s[name] for s in part]).astype(np.float32) for name in network.names])
        signs = {
            i: (random.integers(0, 2, tape.activations[i].shape) * 2 - 1).astype(np.float32) for i in network.logits
        }
        yield len(part), tape, network.backward(tape, signs)


class _ClippingGain:
    """Measures the gain of one activation's clipping error, whose sign is the same everywhere, so that it adds up."""

    def __init__(self, peak: Doubles) -> None:
        self._peak = peak
        self._response = np.zeros((2, len(SHARES)))
        self._clipped = np.zeros((2, len(SHARES), peak.shape[1]))
        self._active = np.zeros(peak.shape[1])

    def add(self, values: Floats, gradient: Floats) -> None:
        """Add samples: (samples, positions, channels)."""
        gradient = gradient.reshape(values.shape)
        self._active += (values != 0.0).sum(axis=(0, 1))
        for side, sign in enumerate((-1.0, 1.0)):
            for number, share in enumerate(SHARES):
                excess = np.maximum(sign * values - (share * self._peak[side]).astype(np.float32), 0.0)
                excess *= self._peak[side] > 0.0
                response = np.square((gradient * excess).sum(axis=(1, 2)), dtype=np.float64)
                self._response[side, number] += response.sum()
                self._clipped[side, number] += np.square(excess).sum(axis=(0, 1))

    def ratio(self, gain: Doubles) -> Doubles:
        """Return the measured response divided by that of independent noise of the same power."""
        expected = (self._clipped * (gain / np.maximum(self._active, 1e-9))).sum(axis=2)
        known = expected > 1e-30
        ratio = np.where(known, self._response / np.where(known, expected, 1.0), 1.0)
        return np.maximum(ratio, _MIN_CLIPPING_GAIN)
