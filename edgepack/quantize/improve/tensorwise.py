"""Choose the range method tensor by tensor: whichever costs the model's outputs least on held-back samples.

Each tensor alone is made int8 in the float model, with each method's range (see `sensitivity`). Rounding errors of
different tensors hardly know of each other, so what is best for each alone is close to best together.
"""

import math
from collections.abc import Mapping, Sequence

from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.improve.observe import Sample, logits, snr_db
from edgepack.quantize.improve.sensitivity import with_rounded_activations
from edgepack.quantize.ranges import Range
from edgepack.quantize.scales import same_scale_groups

#: A method must beat the one before it by this much (dB) to be taken.
_MARGIN = 0.25


def best_methods(
    tflite: bytes, offered: Mapping[str, Mapping[str, Range]], samples: Sequence[Sample]
) -> dict[str, str]:
    """Return the method of each tensor, by `tensor_keys`; tensors that must share a scale share the method.

    Args:
        tflite: The float model.
        offered: Ranges by tensor key, by method; the first method wins where it makes no difference.
        samples: Samples that the ranges were not measured on.
    """
    graph = read_model(tflite).main
    keys = tensor_keys(graph)
    reference = logits(tflite, samples)
    known = next(iter(offered.values()))
    groups = [[i for i in group if keys[i] in known] for group in same_scale_groups(graph)]
    alone = set(range(len(keys))) - {i for group in groups for i in group}
    groups = [group for group in groups if group] + [[i] for i in sorted(alone) if keys[i] in known]
    chosen: dict[str, str] = {}
    for group in groups:
        measured: dict[tuple[Range, ...], float] = {}
        best, score = "", -math.inf
        for method, ranges in offered.items():
            bounds = tuple(ranges[keys[i]] for i in group)
            if bounds not in measured:
                rounded = with_rounded_activations(tflite, dict(zip(group, bounds, strict=True)))
                measured[bounds] = snr_db(reference, logits(rounded, samples))
            if not best or measured[bounds] > score + _MARGIN:
                best, score = method, measured[bounds]
        chosen.update({keys[i]: best for i in group})
    return chosen
