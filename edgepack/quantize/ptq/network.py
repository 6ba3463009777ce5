"""A float graph in NumPy, forward and backward over a batch of samples, for gradients of the logits.

It covers the ops that the logits depend on; those kinds have to be in `gradients.KINDS`. Values are float32 in TFLite's
layouts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgepack.errors import QuantizationError
from edgepack.graph import Graph, Op, read_model
from edgepack.quantize.ptq.gradients import KINDS, activate, deactivate
from edgepack.quantize.ptq.layers import Floats
from edgepack.runtime.logits import logit_tensors


class NotDifferentiable(QuantizationError):
    """The graph has an op without a gradient in `gradients.KINDS`; `details["ops"]` lists the op names."""

    kind = "not-differentiable"


@dataclass
class Tape:
    """One forward pass.

    Attributes:
        activations: Values by tensor index, batch first.
        saved: What each op saved for its gradient, by its output.
    """

    activations: dict[int, Floats] = field(default_factory=dict)
    saved: dict[int, Any] = field(default_factory=dict)


class Network:
    """The part of a float graph between its inputs and its logits.

    Args:
        tflite: A float model.

    Raises:
        NotDifferentiable: The logits depend on an op that has no gradient in `gradients.KINDS`.
    """

    def __init__(self, tflite: bytes) -> None:
        model = read_model(tflite)
        self.graph: Graph = model.main
        self.names = model.input_names()
        self.logits = logit_tensors(self.graph)
        self.inputs = self.graph.inputs
        self.constants = {t.index: np.array(t.data) for t in self.graph.tensors if t.is_constant}
        self.ops = self._needed_ops()
        unknown = {op.name for op in self.ops if op.name not in KINDS or not KINDS[op.name].supports(self.graph, op)}
        if unknown:
            raise NotDifferentiable(f"no gradient for {', '.join(sorted(unknown))}", details={"ops": sorted(unknown)})

    @property
    def activations(self) -> tuple[int, ...]:
        """Inputs and results of ops, in the order they are computed."""
        return (*self.inputs, *(op.outputs[0] for op in self.ops))

    def forward(self, inputs: Sequence[Floats]) -> Tape:
        """Run a batch.

        Args:
            inputs: One array per graph input, samples stacked along the first dimension.
        """
        tape = Tape(dict(zip(self.inputs, inputs, strict=True)))
        for op in self.ops:
            values = [tape.activations.get(i, self.constants.get(i)) for i in op.inputs]
            shape = (len(inputs[0]), *self.graph.tensors[op.outputs[0]].shape[1:])
            output, tape.saved[op.outputs[0]] = KINDS[op.name].forward(op, values, shape)
            tape.activations[op.outputs[0]] = activate(op, output)
        return tape

    def backward(self, tape: Tape, gradients: Mapping[int, Floats]) -> dict[int, Floats]:
        """Return the gradient of every activation that the logits depend on, and of weights, summed over the batch.

        Args:
            tape: The result of `forward`.
            gradients: Gradients of some activations (the logits), by tensor index.
        """
        total: dict[int, Floats] = dict(gradients)
        for op in reversed(self.ops):
            result = op.outputs[0]
            if result not in total:
                continue
            gradient = deactivate(op, tape.activations[result], total[result])
            for index, part in KINDS[op.name].backward(op, gradient, tape.saved[result]).items():
                total[index] = total[index] + part if index in total else part
        return total

    def _needed_ops(self) -> list[Op]:
        needed_tensors, ops = set(self.logits), []
        for op in reversed(self.graph.ops):
            needed = [number for number, index in enumerate(op.outputs) if index in needed_tensors]
            if len(op.outputs) == 1:
                ops += [op] * len(needed)
            else:
                # Each output of a SPLIT counts as an op of its own.
                ops += [_single_output(op, number) for number in reversed(needed)]
            if needed:
                needed_tensors |= {i for i in op.inputs if i >= 0}
        return ops[::-1]


def _single_output(op: Op, number: int) -> Op:
    options = {**op.options, "output": number, "outputs": len(op.outputs)}
    return replace(op, outputs=(op.outputs[number],), options=options)
