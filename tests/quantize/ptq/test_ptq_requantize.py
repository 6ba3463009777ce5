"""Variants that are filled in are the files that the quantizer writes, byte for byte."""

import builders
import numpy as np
import pytest
from ptq_models import PER_TENSOR, RULE, applied, chain, gated, kinds, minmax, residual, subject

from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq import requantize
from edgepack.quantize.ptq.gptq import ROUNDING
from edgepack.quantize.ptq.layers import constant_values, find_layers, set_constants
from edgepack.quantize.ptq.requantize import Requantizer
from edgepack.quantize.quantizer import quantize
from edgepack.quantize.scale_constraints import fixed_range

DENSE = SchemeRule("int8", "UINT8", "per-tensor")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The models that went through the quantizer."""
    seen: list[bytes] = []

    def counted(tflite, *arguments, **options):
        seen.append(tflite)
        return quantize(tflite, *arguments, **options)

    monkeypatch.setattr(requantize, "quantize", counted)
    return seen


@pytest.mark.parametrize("rule", [RULE, PER_TENSOR, DENSE], ids=["per-channel", "per-tensor", "dense"])
@pytest.mark.parametrize("make", [chain, kinds, residual, gated])
def test_variants_are_what_the_quantizer_writes(make, rule, calls):
    """With other weights, biases and ranges; the quantizer runs for the first file only, and once to be observed."""
    about = subject(make(), builders.samples(make(), 12), rule=rule)
    ranges = minmax(about.tflite, about.samples)
    requantizer = Requantizer()
    requantizer(about.tflite, rule, ranges)
    graph = read_model(about.tflite).main
    dead = {layer.weights: constant_values(graph, layer.weights) * 1e-30 for layer in find_layers(graph)[:1]}
    fixed = {fixed_range(op, 8) for op in graph.ops}
    variants = [
        (about.tflite, {k: v if v in fixed else (v[0] * 0.7, v[1] * 0.9) for k, v in ranges.items()}),
        (applied(ROUNDING, "gptq", about).tflite, ranges),
        (set_constants(about.tflite, dead), ranges),
    ]
    before = len(calls)
    for tflite, bounds in variants:
        assert requantizer(tflite, rule, bounds) == quantize(tflite, rule, bounds).tflite
    assert len(calls) == before


def test_another_graph_goes_through_the_quantizer():
    """A model with other ops is no variant, even among variants."""
    requantizer = Requantizer()
    for make in (chain, residual, chain, kinds):
        tflite = make()
        ranges = minmax(tflite, builders.samples(tflite, 4))
        assert requantizer(tflite, RULE, ranges) == quantize(tflite, RULE, ranges).tflite


def test_ranges_that_split_a_group_go_through_the_quantizer():
    """Where equal ranges no longer are, nothing is known about the file: it is the quantizer's."""
    tflite = residual()
    requantizer = Requantizer()
    ranges = dict.fromkeys(minmax(tflite, builders.samples(tflite, 4)), (-4.0, 4.0))
    requantizer(tflite, RULE, ranges)
    random = np.random.default_rng(0)
    other = {key: (low * random.uniform(0.5, 1), high) for key, (low, high) in ranges.items()}
    assert requantizer(tflite, RULE, other) == quantize(tflite, RULE, other).tflite
