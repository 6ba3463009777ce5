"""Values that half precision cannot represent are named, and nothing else."""

import numpy as np
import pytest
from builders import Net

from edgepack.graph import read_model
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.half_precision import half_findings


def squared(factor: float, epsilon: float) -> bytes:
    """Return x * factor, squared, plus a constant."""
    net = Net()
    x, y, z, out = (net.tensor(name, (1, 4)) for name in ("x", "y", "z", "out"))
    net.op("MUL", [x, net.constant("factor", [factor])], [y])
    net.op("MUL", [y, y], [z])
    net.op("ADD", [z, net.constant("epsilon", [epsilon])], [out])
    return net.build([x], [out], (["x"], ["out"]))


@pytest.mark.parametrize(
    ("factor", "epsilon", "expected"),
    [
        (1.0, 1e-3, []),
        (255.0, 1e-3, []),
        (300.0, 1e-3, [("z", "MUL", True), ("out", "ADD", True)]),
        (1.0, 1e-9, [("epsilon", "ADD", False)]),
        (1e-5, 0.0, [("z", "MUL", False), ("out", "ADD", False)]),
    ],
)
def test_findings(factor: float, epsilon: float, expected: list[tuple[str, str, bool]]) -> None:
    """An overflow and a value that vanishes are found with their tensor and op; zeros are no finding."""
    data = squared(factor, epsilon)
    samples = [{"x": np.array([[0.0, 0.5, -1.0, 1.0]], np.float32)}]
    found = half_findings(read_model(data), calibrate(data, samples))
    assert [(one.tensor, one.op, one.overflows) for one in found] == expected
    assert all(("65504" in str(one)) == one.overflows for one in found)
