"""What a float model loses on an accelerator that computes in half precision, from its activations on samples.

IEEE 754 binary16 has no finite number beyond 65,504 and no number but 0 below 2^-24; a value rounds to 0 below half of
that. Both happen without a message on the device.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np

from edgepack.graph import Model, Op, Tensor
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.calibrate import Calibration

#: Largest finite number of half precision.
LARGEST = 65504.0

#: Numbers up to this round to 0: half of the smallest subnormal, 2^-24.
VANISHING = 2.0**-25

#: Ops whose constants are weights, which the float16 scheme clips and reports itself.
_LAYERS = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "FULLY_CONNECTED", "BATCH_MATMUL"}


@dataclass(frozen=True)
class HalfFinding:
    """A tensor that half precision cannot represent.

    Attributes:
        tensor: Its name.
        op: The op that makes or reads it, such as `MUL`; empty for an input of the model.
        index: Position of that op in the file.
        value: Largest magnitude on the samples.
    """

    tensor: str
    op: str
    index: int
    value: float

    @property
    def overflows(self) -> bool:
        """True when the value becomes infinite, False when it becomes 0."""
        return self.value > LARGEST

    def __str__(self) -> str:
        place = f"op {self.index} ({self.op}), tensor '{self.tensor}'" if self.op else f"input '{self.tensor}'"
        if self.overflows:
            return f"{place} reaches {self.value:.3g}, beyond {LARGEST:g}, and becomes infinite"
        return f"{place} is at most {self.value:.3g}, below the smallest number of half precision, and becomes 0"


def half_findings(model: Model, calibration: Calibration) -> list[HalfFinding]:
    """Return the activations and constants of the main graph that half precision cannot represent, in file order.

    Args:
        model: A float model.
        calibration: Statistics of its activations on typical samples.
    """
    graph, keys = model.main, tensor_keys(model.main)
    found: dict[int, HalfFinding] = {}

    def add(tensor: Tensor, op: Op | None) -> None:
        if tensor.dtype != "FLOAT32" or tensor.index in found:
            return
        magnitude = _magnitude(tensor, calibration, keys)
        if magnitude > LARGEST or 0 < magnitude <= VANISHING:
            name, index = (op.name, op.index) if op is not None else ("", -1)
            found[tensor.index] = HalfFinding(tensor.name, name, index, magnitude)

    for index in graph.inputs:
        add(graph.tensors[index], None)
    for op in graph.ops:
        constants = [] if op.name in _LAYERS else [t for t in graph.op_inputs(op) if t is not None and t.is_constant]
        for tensor in chain(constants, graph.op_outputs(op)):
            add(tensor, op)
    return list(found.values())


def _magnitude(tensor: Tensor, calibration: Calibration, keys: tuple[str, ...]) -> float:
    """Return the largest magnitude of a constant or on the samples, 0 when it is unknown."""
    if tensor.is_constant:
        return 0.0 if tensor.data is None or tensor.data.size == 0 else float(np.abs(tensor.data).max())
    statistics = calibration.tensors.get(keys[tensor.index])
    return 0.0 if statistics is None else max(abs(statistics.minimum), abs(statistics.maximum))
