"""How loudly noise in an activation is heard at the logits: squared gradients, per channel.

With a random sign on every logit, the squared gradient of their sum is, on average, the sum of the squared gradients of
all logits (Hutchinson 1990, "A Stochastic Estimator of the Trace of the Influence Matrix").

What bounds cut off is not like rounding: it has one sign, so it adds up over a picture, and it falls where values are
largest, which may be where the logits listen most, or, below a RELU, not at all. How much louder or quieter than
rounding's it is heard is measured on the samples: between a hundredth and thirty times, on six models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgepack.quantize.ptq.layers import Doubles, Floats
from edgepack.quantize.ptq.network import Network, Tape
from edgepack.quantize.ptq.observe import Sample

#: Samples that gradients are taken on; gains settle long before ranges do.
_SAMPLES = 64

#: Most values of one batch's activations, and of all batches': 300 M take NumPy a minute or two.
_BATCH_VALUES, _ALL_VALUES = 12_000_000, 300_000_000

#: Bounds that clipping is listened to at, as shares of a channel's largest value.
SHARES: Doubles = np.array([0.5, 0.6, 0.7, 0.8, 0.9])

#: Least that is believed of a side where clipping was hardly heard.
_LEAST_HEARD = 0.05


@dataclass
class Gain:
    """Of one activation, per sample on average.

    Attributes:
        active: Squared gradients summed over a channel's values that are not zero (rounding leaves zeros alone).
        whole: Squared gradients summed over all of a channel's values.
        clipping: How much louder than independent noise of the same power what bounds cut off is heard, below and
            above zero: (2, SHARES).
    """

    active: Doubles
    whole: Doubles
    clipping: Doubles = field(default_factory=lambda: np.ones((2, len(SHARES))))


def gains(
    tflite: bytes, samples: Sequence[Sample], reach: Mapping[int, Doubles] | None = None, seed: int = 0
) -> dict[int, Gain]:
    """Return the gain of every activation that the logits depend on, by tensor index.

    Args:
        tflite: A float model.
        samples: Calibration samples; evenly spaced ones are used.
        reach: Largest value below and above zero of each activation's channels, both positive, (2, channels); clipping
            is listened to where it is given.
        seed: Of the signs.

    Raises:
        NotDifferentiable: There is an op whose gradient is not known.
    """
    network = Network(tflite)
    many = _affordable(network, len(samples))
    found: dict[int, Gain] = {}
    heard: dict[int, _Clipping] = {}
    for count, tape, back in backward_batches(network, samples, seed):
        for index in network.activations:
            if index not in back:
                continue
            values = tape.seen[index]
            square = np.square(back[index].reshape(-1, values.shape[-1]), dtype=np.float64) / many
            live = (square * (values.reshape(square.shape) != 0.0)).sum(axis=0)
            old = found.setdefault(index, Gain(np.zeros_like(live), np.zeros_like(live)))
            old.active += live
            old.whole += square.sum(axis=0)
            if reach is not None and index in reach:
                clipping = heard.setdefault(index, _Clipping(reach[index]))
                clipping.add(values.reshape(count, -1, values.shape[-1]), back[index])
    for index, clipping in heard.items():
        found[index].clipping = clipping.ratio(found[index].active * many)
    return found


def _affordable(network: Network, samples: int) -> int:
    """Return on how many of the samples gradients are taken: fewer where activations are large."""
    return max(1, min(_SAMPLES, samples, _ALL_VALUES // _size(network)))


def _size(network: Network) -> int:
    return sum(network.graph.tensors[i].elements for i in network.activations)


def backward_batches(
    network: Network, samples: Sequence[Sample], seed: int
) -> Iterator[tuple[int, Tape, dict[int, Floats]]]:
    """Yield (samples, their forward pass, gradients of the logits' sum with random signs), batch after batch.

    Args:
        network: The network.
        samples: As many as can be afforded are used, evenly spaced.
        seed: Of the signs.
    """
    many = _affordable(network, len(samples))
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, many).astype(int)]
    batch = max(1, min(many, _BATCH_VALUES // _size(network)))
    random = np.random.default_rng(seed)
    for start in range(0, many, batch):
        part = chosen[start : start + batch]
        tape = network.forward([np.concatenate([s[name] for s in part]).astype(np.float32) for name in network.names])
        signs = {i: (random.integers(0, 2, tape.seen[i].shape) * 2 - 1).astype(np.float32) for i in network.logits}
        yield len(part), tape, network.backward(tape, signs)


class _Clipping:
    """Listens to what bounds cut off: it has the same sign everywhere, so it adds up, and where it falls counts."""

    def __init__(self, reach: Doubles) -> None:
        self._reach = reach
        self._heard = np.zeros((2, len(SHARES)))
        self._cut = np.zeros((2, len(SHARES), reach.shape[1]))
        self._live = np.zeros(reach.shape[1])

    def add(self, values: Floats, gradient: Floats) -> None:
        """Add samples: (samples, positions, channels)."""
        gradient = gradient.reshape(values.shape)
        self._live += (values != 0.0).sum(axis=(0, 1))
        for side, sign in enumerate((-1.0, 1.0)):
            for place, share in enumerate(SHARES):
                over = np.maximum(sign * values - (share * self._reach[side]).astype(np.float32), 0.0)
                over *= self._reach[side] > 0.0
                self._heard[side, place] += np.square((gradient * over).sum(axis=(1, 2)), dtype=np.float64).sum()
                self._cut[side, place] += np.square(over).sum(axis=(0, 1))

    def ratio(self, gain: Doubles) -> Doubles:
        """Return the ratio of what is heard to what independent noise of the same power would add."""
        expected = (self._cut * (gain / np.maximum(self._live, 1e-9))).sum(axis=2)
        known = expected > 1e-30
        found = np.where(known, self._heard / np.where(known, expected, 1.0), 1.0)
        return np.maximum(found, _LEAST_HEARD)
