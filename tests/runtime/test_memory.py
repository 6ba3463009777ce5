"""Activations are counted by their static shapes."""

from itertools import pairwise
from pathlib import Path

import pytest
from builders import Net

from edgepack.graph import read_model
from edgepack.runtime.memory import activation_bytes


def test_activations_that_are_alive_together() -> None:
    """A chain has an input and an output alive at a time; all together are the sum."""
    net = Net()
    tensors = [net.tensor(f"t{i}", (1, size)) for i, size in enumerate((100, 300, 200, 50))]
    for source, target in pairwise(tensors):
        net.op("RELU", [source], [target])
    graph = read_model(net.build([tensors[0]], [tensors[-1]])).main
    assert activation_bytes(graph) == ((300 + 200) * 4, 650 * 4)


@pytest.mark.parametrize(
    ("name", "live", "kept"),
    [
        ("coral/deeplabv3_mnv2_dm05_pascal_quant.tflite", 7.6, 31.2),
        ("real/efficientnet_lite0.tflite", 6.0, 28.4),
    ],
)
def test_figures_that_the_limits_are_compared_with(shared_models: Path, name: str, live: float, kept: float) -> None:
    """The figures in the comment on the limits are those of the files."""
    found = activation_bytes(read_model(shared_models / name).main)
    assert [round(value / 1e6, 1) for value in found] == [live, kept]
