"""High-bias absorption: move the part that a channel never goes below through RELU into the next layer's bias.

A channel whose smallest value on the samples is c > 0 is lowered by c, and c times the next layer's weights is added to
its bias: the same function in float on these samples, and a narrower range. Nagel et al. 2019, section 4.1.3; there c
is computed from the statistics of batch normalization, here it is measured. Layers with padding are left out, because
the padding would represent 0 and not c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgepack.choices import Effort
from edgepack.graph import read_model
from edgepack.quantize.ptq.activations import Sample, iterate_activations
from edgepack.quantize.ptq.cross_layer_equalization import EqualizationGroup, find_equalization_groups
from edgepack.quantize.ptq.layers import Floats, Layer, constant_values, find_layers, set_constants
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View


def absorb_high_biases(tflite: bytes, samples: Sequence[Sample]) -> bytes:
    """Return the float model with high biases absorbed; the same bytes where no channel stays above zero.

    Args:
        tflite: A float model in which no two layers share a bias.
        samples: Calibration samples.
    """
    graph = read_model(tflite).main
    groups = [group for group in find_equalization_groups(graph, find_layers(graph)) if _can_absorb(group)]
    if not groups:
        return tflite
    minima: list[Floats] = []
    for activations in iterate_activations(tflite, [group.tensors[0] for group in groups], samples):
        smallest = [values.reshape(-1, values.shape[-1]).min(axis=0).astype(np.float32) for values in activations]
        minima = [np.minimum(a, b) for a, b in zip(minima, smallest, strict=True)] if minima else smallest
    biases: dict[int, Floats] = {}
    for group, offset in zip(groups, minima, strict=True):
        offset = np.maximum(offset, 0.0)
        if not offset.any():
            continue
        before = group.before[0]
        biases[before.bias] = biases.get(before.bias, constant_values(graph, before.bias)) - offset
        for after in group.after:
            rows = after.rows(constant_values(graph, after.weights) * after.per_input_channel(offset))
            biases[after.bias] = biases.get(after.bias, constant_values(graph, after.bias)) + rows.sum(axis=1)
    return set_constants(tflite, biases) if biases else tflite


def _can_absorb(group: EqualizationGroup) -> bool:
    """Return whether the RELU of one layer directly feeds layers without padding."""
    if len(group.tensors) != 1 or group.relu6 or len(group.before) != 1 or group.before[0].bias < 0:
        return False
    if group.before[0].op.options.get("fused_activation") != "RELU":
        return False
    return all(after.bias >= 0 and not _is_padded(after) for after in group.after)


def _is_padded(layer: Layer) -> bool:
    if layer.dense or layer.op.options["padding"] == "VALID":
        return False
    return layer.shape[1:3] != (1, 1)


class _Absorb(Step):
    id = "absorb"
    effort = Effort.MEDIUM
    source = "high-bias absorption, Nagel et al. 2019, section 4.1.3"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        if not any(_can_absorb(group) for group in find_equalization_groups(subject.graph, subject.layers)):
            return []
        return [{self.id: "absorbed"}] if absorb_high_biases(subject.tflite, subject.samples) != subject.tflite else []

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        model = absorb_high_biases(fit.reference, view.samples)
        return replace(fit, reference=model, tflite=model)


ABSORB = _Absorb()
