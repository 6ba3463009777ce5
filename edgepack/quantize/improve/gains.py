"""How loudly noise in an activation is heard at the logits: squared gradients, per channel.

With a random sign on every logit, the squared gradient of their sum is, on average, the sum of the squared gradients of
all logits (Hutchinson 1990, "A Stochastic Estimator of the Trace of the Influence Matrix").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.graph import read_model
from edgepack.quantize.improve.layers import Doubles
from edgepack.quantize.improve.network import Network
from edgepack.quantize.improve.observe import Sample

#: Samples that gradients are taken on; gains settle long before ranges do.
_SAMPLES = 32

#: Most values of one batch's activations, and of all batches': 300 M take NumPy a minute or two.
_BATCH_VALUES, _ALL_VALUES = 12_000_000, 300_000_000


@dataclass
class Gain:
    """Of one activation, per sample on average.

    Attributes:
        active: Squared gradients summed over a channel's values that are not zero (rounding leaves zeros alone).
        whole: Squared gradients summed over all of a channel's values.
    """

    active: Doubles
    whole: Doubles


def gains(tflite: bytes, samples: Sequence[Sample], seed: int = 0) -> dict[int, Gain]:
    """Return the gain of every activation that the logits depend on, by tensor index.

    Args:
        tflite: A float model.
        samples: Calibration samples; evenly spaced ones are used.
        seed: Of the signs.

    Raises:
        NotDifferentiable: There is an op whose gradient is not known.
    """
    network = Network(tflite)
    names = read_model(tflite).input_names()
    size = sum(network.graph.tensors[i].elements for i in network.activations)
    many = max(1, min(_SAMPLES, len(samples), _ALL_VALUES // size))
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, many).astype(int)]
    batch = max(1, min(many, _BATCH_VALUES // size))
    random = np.random.default_rng(seed)
    found: dict[int, Gain] = {}
    for start in range(0, many, batch):
        part = chosen[start : start + batch]
        tape = network.forward([np.concatenate([s[name] for s in part]).astype(np.float32) for name in names])
        signs = {i: (random.integers(0, 2, tape.seen[i].shape) * 2 - 1).astype(np.float32) for i in network.logits}
        back = network.backward(tape, signs)
        for index in network.activations:
            if index not in back:
                continue
            values = tape.seen[index]
            square = np.square(back[index].reshape(-1, values.shape[-1]), dtype=np.float64) / many
            live = (square * (values.reshape(square.shape) != 0.0)).sum(axis=0)
            old = found.setdefault(index, Gain(np.zeros_like(live), np.zeros_like(live)))
            old.active += live
            old.whole += square.sum(axis=0)
    return found
