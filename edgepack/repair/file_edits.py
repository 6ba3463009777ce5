"""Edits of a file's main graph in place: constants replaced, ops added in front of others or in their place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph
from edgepack.graph.new_parts import new_operator, new_tensor

#: The schema's `OperatorT`.
Operator = Any


class FileEditor:
    """A `ModelT` whose main graph is edited; ops are named by their index in the original graph.

    Args:
        model: The file, unpacked.
        graph: Its main graph before the edits.

    Attributes:
        touched: Ops with new constants, and replaced ones.
    """

    def __init__(self, model: Any, graph: Graph) -> None:
        self.model = model
        self.graph = graph
        self.touched: set[int] = set()
        self._file = model.subgraphs[0]
        self._old = list(self._file.operators)
        self._before: dict[int, list[Operator]] = {}
        self._replaced: dict[int, list[Operator]] = {}

    def tensor(self, name: str, shape: Sequence[int], values: npt.NDArray[Any] | None = None) -> int:
        """Add an activation, or a constant with these values (float32 or int32)."""
        return new_tensor(self.model, self._file, f"{name}/repair_{len(self._file.tensors)}", shape, values)

    def constant(self, name: str, values: npt.NDArray[Any]) -> int:
        """Add a constant."""
        return self.tensor(name, values.shape, values)

    def new_op(self, name: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> Operator:
        """Return an op; options have the names of `Op.options`, missing ones the schema's defaults."""
        return new_operator(self.model, name, inputs, outputs, **options)

    def input_of(self, op: int, position: int) -> int:
        """Return an input of an op as it is now."""
        return int(self._old[op].inputs[position])

    def replace_constant(self, op: int, position: int, values: npt.NDArray[Any]) -> None:
        """Let an op read new values at one position; other ops that read the old constant keep it."""
        name = self.graph.tensors[self.graph.ops[op].inputs[position]].name
        self.touched.add(op)
        self._set_input(op, position, self.constant(name, np.ascontiguousarray(values, np.float32)))

    def scale_input(self, op: int, position: int, factor: float) -> None:
        """Put a MUL by a constant in front of one input of an op."""
        source = self.input_of(op, position)
        name = (self._file.tensors[source].name or b"").decode()
        scaled = self.tensor(name, self._file.tensors[source].shape)
        self._file.tensors[scaled].shapeSignature = self._file.tensors[source].shapeSignature
        constant = self.constant(name, np.array(factor, np.float32))
        self._before.setdefault(op, []).append(self.new_op("MUL", [source, constant], [scaled]))
        self._set_input(op, position, scaled)

    def broadcast_input(self, op: int, position: int, shape: Sequence[int]) -> None:
        """Put a BROADCAST_TO of this shape in front of one input of an op; type and scales are those of the input."""
        source = self._file.tensors[self.input_of(op, position)]
        name = (source.name or b"").decode()
        wide = self.tensor(name, shape)
        self._file.tensors[wide].type, self._file.tensors[wide].quantization = source.type, source.quantization
        inputs = [self.input_of(op, position), self.constant(name, np.array(shape, np.int32))]
        self._before.setdefault(op, []).append(self.new_op("BROADCAST_TO", inputs, [wide]))
        self._set_input(op, position, wide)

    def replace_op(self, op: int, ops: Sequence[Operator]) -> None:
        """Put other ops in the place of one; none removes it."""
        self.touched.add(op)
        self._replaced[op] = list(ops)

    def finish(self) -> Any:
        """Return the model with all edits."""
        operators: list[Operator] = []
        for index, old in enumerate(self._old):
            operators += self._before.get(index, [])
            operators += self._replaced.get(index, [old])
        self._file.operators = operators
        return self.model

    def _set_input(self, op: int, position: int, tensor: int) -> None:
        inputs = [int(i) for i in self._old[op].inputs]
        inputs[position] = tensor
        self._old[op].inputs = np.array(inputs, np.int32)
