"""Sums with one scale are exact, and operands get it where the squares of the scales say that it pays."""

import builders
import numpy as np
import pytest
from ptq_models import RULE, applied, subject

from edgepack.graph import read_model
from edgepack.graph.edit import float_activations, tensor_keys
from edgepack.quantize.ptq.activations import logits, run_activations, snr_db
from edgepack.quantize.ptq.model_ranges import RANGES
from edgepack.quantize.ptq.residual_scales import SUMS, share_scales
from edgepack.quantize.quantizer import quantize


def _sum() -> bytes:
    """A linear residual sum; its operands and the sum itself are equally wide, because the operands are correlated."""
    net = builders.Net(7)
    x, total = net.tensor("x", (1, 8, 8, 3)), net.tensor("sum", (1, 8, 8, 8))
    one, other = net.random.normal(0.0, 0.3, (2, 8, 3, 3, 3))
    operands = []
    for name, kernel in (("stem", one), ("branch", 0.87 * other - 0.5 * one)):
        operands.append(net.tensor(name, (1, 8, 8, 8)))
        weights = [net.constant(f"{name}/kernel", kernel), net.constant(f"{name}/bias", np.zeros(8))]
        net.op("CONV_2D", [x, *weights], [operands[-1]], strideW=1, strideH=1)
    net.op("ADD", operands, [total])
    return net.build([x], [total], (["image"], ["sum"]))


def _ranges(graph, stem, branch, total):
    keys = tensor_keys(graph)
    ranges = {keys[index]: (-1.0, 1.0) for index in float_activations(graph)}
    return ranges | {"stem": (-stem, stem), "branch": (-branch, branch), "sum": (-total, total)}


@pytest.mark.parametrize(
    ("stem", "branch", "total", "shared"),
    [(1.0, 0.9, 1.2, True), (1.0, 1.0, 1.99, False), (1.0, 0.1, 1.1, False), (0.1, 1.0, 1.0, True)],
)
def test_the_squares_of_the_ranges_decide(stem, branch, total, shared):
    """Two values rounded at the sum's scale, one of them for nothing, against three at their own."""
    graph = read_model(_sum()).main
    found = share_scales(graph, _ranges(graph, stem, branch, total))
    # Shared: stem and branch are rounded; separate: stem, branch and the sum.
    assert shared == (2 * total**2 < stem**2 + branch**2 + total**2)
    widest = max(stem, branch, total)
    assert found == (dict.fromkeys(("stem", "branch", "sum"), (-widest, widest)) if shared else {})


def test_a_sum_with_one_scale_rounds_nothing():
    """The integers of the sum are those of its operands, added."""
    tflite = _sum()
    quantized = quantize(tflite, RULE, _ranges(read_model(tflite).main, 4.0, 4.0, 4.0)).tflite
    graph = read_model(quantized).main
    op = next(op for op in graph.ops if op.name == "ADD")
    zero = int(graph.tensors[op.outputs[0]].quantization.zero_point[0])
    samples = builders.samples(quantized, 2)
    for values in run_activations(quantized, [*op.inputs, *op.outputs], samples):
        one, two, total = (values(index).astype(np.int32) for index in (*op.inputs, *op.outputs))
        np.testing.assert_array_equal(total, np.clip(one + two - zero, -128, 127))
        assert np.ptp(total) > 50


def test_a_residual_sum_loses_less():
    """Two roundings instead of three: the SNR of unseen samples rises, and one range serves all three tensors."""
    tflite = _sum()
    about = subject(tflite, builders.samples(tflite, 40))
    plain = applied(RANGES, "minmax", about)
    shared = applied(SUMS, SUMS.configurations(about, {})[0]["sums"], about, plain.ranges)
    assert shared.tied == {"stem", "branch", "sum"}
    assert len({shared.ranges[key] for key in shared.tied}) == 1
    unseen = builders.samples(tflite, 30, 1)
    reference = logits(tflite, unseen)
    before, after = (snr_db(reference, logits(about.file(fit), unseen)) for fit in (plain, shared))
    assert after > before + 0.2
