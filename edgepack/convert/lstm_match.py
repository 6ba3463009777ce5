"""Recognizes an LSTM layer in the loop that TFLiteConverter writes for it.

Freezing inlines the function whose name the converter fuses on, and Keras 3 never had such a function. What is left in
both cases is a WHILE op with the cell's arithmetic in its body:

    z = W x[t] + U h + b;  i, f, g, o = split(z)
    c' = sigmoid(f) * c + sigmoid(i) * tanh(g);  h' = sigmoid(o) * tanh(c')

The match follows the arithmetic, not names, so that it serves Keras 2, Keras 3, SavedModels and `.tflite` files alike.
The caller compares the outputs before it uses the result.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Model, Op

#: Ops that keep values and their order.
_SAME_VALUES = frozenset({"EXPAND_DIMS", "RESHAPE", "SQUEEZE"})

Floats = npt.NDArray[np.float32]


class Unfused(Exception):
    """The loop is no LSTM that the fused op computes; the text says why."""


@dataclass(frozen=True)
class Lstm:
    """An LSTM in a WHILE op of the main graph.

    Attributes:
        loop: Index of the WHILE op.
        source: Tensor index of the inputs in the main graph, shape (time, batch, features).
        steps: Number of time steps.
        weights: Input weights by gate (input, forget, cell, output), each (units, features).
        recurrent: Recurrent weights by gate, each (units, units).
        bias: By gate, each (units,).
        sequence: Tensor of the main graph with the outputs of all steps, (time, batch, units); -1 when unused.
        last: Tensors of the main graph with the output of the last step, any shape of batch * units values.
    """

    loop: int
    source: int
    steps: int
    weights: tuple[Floats, ...]
    recurrent: tuple[Floats, ...]
    bias: tuple[Floats, ...]
    sequence: int
    last: tuple[int, ...]


def match_lstm(model: Model, loop: Op) -> Lstm:
    """Return the LSTM in a WHILE op of the main graph.

    Raises:
        Unfused: The loop computes something else, or an LSTM in a form that the fused op does not have.
    """
    try:
        body = model.graphs[int(loop.options["body_subgraph_index"])]
        condition = model.graphs[int(loop.options["cond_subgraph_index"])]
    except (KeyError, IndexError) as error:
        raise Unfused("it is damaged") from error
    if len(body.inputs) != len(loop.inputs) or len(body.outputs) != len(loop.outputs):
        raise Unfused("it is damaged")
    return _Matcher(model.main, loop, body, condition).match()


class _Matcher:
    """One loop: `position` is that of a loop variable among the inputs and outputs of WHILE, condition and body."""

    def __init__(self, main: Graph, loop: Op, body: Graph, condition: Graph) -> None:
        self.main, self.loop, self.body, self.condition = main, loop, body, condition

    def match(self) -> Lstm:
        counters = self._counters()
        cell, hidden, gates = self._cell()
        source, weights, recurrent, bias = self._linear(gates, hidden, counters)
        for state in (cell, hidden):
            initial = self._outer_constant(state)
            if initial is None or np.any(initial):
                raise Unfused("its initial state is not zero")
        shape = self.main.tensors[self.loop.inputs[source]].shape
        steps = self._steps(counters)
        if len(shape) != 3 or shape[0] != steps:
            raise Unfused(f"it does not run over all {shape[0]} steps of its input")
        if self._is_read(cell):
            raise Unfused("the model uses its cell state (return_state)")
        sequence, last = -1, [self.loop.outputs[hidden]] if self._is_read(hidden) else []
        for position in range(len(self.loop.outputs)):
            known = position in {cell, hidden} or position in counters or self._is_invariant(position)
            if known:
                if position not in {cell, hidden} and self._is_read(position) and position in counters:
                    raise Unfused("the model uses its counter")
            elif self._stores(position, self.body.outputs[hidden]):
                last.append(self.loop.outputs[position])
            elif self._appends(position, self.body.outputs[hidden]):
                sequence = self.loop.outputs[position]
            else:
                raise Unfused("it computes more than an LSTM does, such as a mask or dropout")
        return Lstm(self.loop.index, self.loop.inputs[source], steps, weights, recurrent, bias, sequence, tuple(last))

    def _counters(self) -> set[int]:
        """Return the loop variables that count steps: 0 at first, 1 more after each step."""
        counters = set()
        for position, index in enumerate(self.body.outputs):
            op = self._producer(index)
            if op is None or op.name != "ADD":
                continue
            operands = set(op.inputs)
            variable = self.body.inputs[position]
            if variable in operands and all(_is_value(self.body, i, 1) for i in operands - {variable}):
                initial = self._outer_constant(position)
                if initial is not None and initial.dtype.kind == "i" and not np.any(initial):
                    counters.add(position)
        return counters

    def _steps(self, counters: set[int]) -> int:
        """Return the number of steps, the least limit of any counter in the condition."""
        limits = []
        for op in self.condition.ops:
            if op.name == "LESS" and op.inputs[0] in self.condition.inputs:
                limit = self.condition.tensors[op.inputs[1]].data
                if self.condition.inputs.index(op.inputs[0]) in counters and limit is not None and limit.size == 1:
                    limits.append(int(limit.reshape(())))
                    continue
            if op.name != "LOGICAL_AND":
                raise Unfused("its number of steps depends on its data")
        if not limits:
            raise Unfused("its number of steps depends on its data")
        return min(limits)

    def _cell(self) -> tuple[int, int, tuple[int, int, int, int]]:
        """Return the positions of c and h, and the tensors of the gates before their activation: i, f, g, o."""
        for cell, index in enumerate(self.body.outputs):
            products = [self._producer(i) for i in self._operands(index, "ADD")]
            if len(products) != 2 or any(op is None or op.name != "MUL" for op in products):
                continue
            factors = [op.inputs for op in products if op is not None]
            old = self.body.inputs[cell]
            kept = next((pair for pair in factors if old in pair), None)
            if kept is None:
                continue
            new = factors[1] if kept is factors[0] else factors[0]
            forget = self._activated(kept, "LOGISTIC")
            entering, candidate = self._activated(new, "LOGISTIC"), self._activated(new, "TANH")
            for hidden, output in enumerate(self.body.outputs):
                pair = self._operands(output, "MUL")
                opened, squashed = self._activated(pair, "LOGISTIC"), self._activated(pair, "TANH")
                if hidden != cell and squashed == index and min(forget, entering, candidate, opened) >= 0:
                    return cell, hidden, (entering, forget, candidate, opened)
        if any(op.name in {"SELECT", "SELECT_V2", "WHERE"} for op in self.body.ops):
            raise Unfused("it skips the steps that a mask leaves out")
        raise Unfused("it is no LSTM with sigmoid gates and tanh")

    def _linear(
        self, gates: tuple[int, int, int, int], hidden: int, counters: set[int]
    ) -> tuple[int, tuple[Floats, ...], tuple[Floats, ...], tuple[Floats, ...]]:
        """Return the position of the input sequence, and weights, recurrent weights and bias by gate."""
        sources: set[int] = set()
        columns: list[list[Floats | None]] = []
        state = self.body.inputs[hidden]
        units = self.body.tensors[state].shape[-1]
        for gate in gates:
            parts: list[Floats | None] = [None, None, np.zeros(units, np.float32)]
            for leaf, rows in self._terms(gate, None):
                constant = self._constant(leaf)
                if constant is not None:
                    self._add(parts, 2, _rows(constant.reshape(-1), rows, units))
                    continue
                op = self._producer(leaf)
                if op is None or op.name != "FULLY_CONNECTED" or op.options.get("fused_activation") != "NONE":
                    raise Unfused("its gates are not linear in its input and its state")
                matrix = self._constant(op.inputs[1])
                if matrix is None or matrix.ndim != 2:
                    raise Unfused("its weights are not constant")
                matrix = _rows(matrix, rows, units)
                if len(op.inputs) > 2 and op.inputs[2] >= 0:
                    bias = self._constant(op.inputs[2])
                    if bias is None:
                        raise Unfused("its weights are not constant")
                    self._add(parts, 2, _rows(bias, rows, units))
                for operand, piece in self._pieces(op.inputs[0], matrix):
                    if self._plain(operand) == state:
                        self._add(parts, 1, piece)
                    else:
                        sources.add(self._gathered(operand, counters))
                        self._add(parts, 0, piece)
            columns.append(parts)
        if len(sources) != 1 or any(part is None for parts in columns for part in parts):
            raise Unfused("its gates do not read one input and the state")
        weights, recurrent, biases = (tuple(np.asarray(parts[k], np.float32) for parts in columns) for k in range(3))
        return sources.pop(), weights, recurrent, biases

    @staticmethod
    def _add(parts: list[Floats | None], position: int, values: Floats) -> None:
        before = parts[position]
        if before is not None and before.shape != values.shape:
            raise Unfused("its gates differ in size")
        parts[position] = values if before is None else before + values

    def _terms(self, index: int, rows: tuple[int, int] | None) -> Iterator[tuple[int, tuple[int, int] | None]]:
        """Yield the terms of a sum as (tensor, (part, parts) of a SPLIT along the last axis)."""
        op = self._producer(self._plain(index))
        if op is not None and op.name == "ADD" and op.options.get("fused_activation") == "NONE":
            for operand in op.inputs:
                yield from self._terms(operand, rows)
        elif op is not None and op.name == "SPLIT" and rows is None:
            axis = self.body.tensors[op.inputs[0]].data
            if axis is None or int(axis.reshape(-1)[0]) not in {-1, self.body.tensors[op.inputs[1]].rank - 1}:
                raise Unfused("its gates are not split along the last axis")
            yield from self._terms(op.inputs[1], (op.outputs.index(self._plain(index)), len(op.outputs)))
        else:
            yield self._plain(index), rows

    def _pieces(self, operand: int, matrix: Floats) -> Iterator[tuple[int, Floats]]:
        """Yield the operands of a FULLY_CONNECTED with their columns of its weights: a CONCATENATION has several."""
        op = self._producer(self._plain(operand))
        if op is None or op.name != "CONCATENATION":
            yield operand, matrix
            return
        start = 0
        for part in op.inputs:
            width = self.body.tensors[part].shape[-1]
            yield part, np.ascontiguousarray(matrix[:, start : start + width])
            start += width

    def _gathered(self, index: int, counters: set[int]) -> int:
        """Return the position of the sequence whose step of a counter a tensor is."""
        op = self._producer(self._plain(index))
        if op is not None and op.name == "GATHER" and op.inputs[0] in self.body.inputs:
            position = self.body.inputs.index(op.inputs[0])
            step = self._plain(op.inputs[1])
            counts = step in self.body.inputs and self.body.inputs.index(step) in counters
            axes = (op.options.get("axis", 0), op.options.get("batch_dims", 0))
            if counts and self._is_invariant(position) and axes == (0, 0):
                return position
        raise Unfused("its input is not read step by step")

    def _stores(self, position: int, hidden: int) -> bool:
        """Return whether a variable holds the output of the last step only."""
        output = self.body.outputs[position]
        return self.body.tensors[output].shape[:1] == (1,) and self._plain(output) == hidden

    def _appends(self, position: int, hidden: int) -> bool:
        """Return whether a variable collects the output of every step at the step's own place."""
        op = self._producer(self.body.outputs[position])
        if op is None or op.name != "CONCATENATION" or len(op.inputs) != 3 or op.options.get("axis") != 0:
            return False
        before, middle, after = op.inputs
        around = [self._producer(before), self._producer(after)]
        old = self.body.inputs[position]
        return self._plain(middle) == hidden and all(
            part is not None and part.name in {"SLICE", "STRIDED_SLICE"} and part.inputs[0] == old for part in around
        )

    def _producer(self, index: int) -> Op | None:
        place = self.body.producers.get(index)
        return None if place is None else self.body.ops[place]

    def _plain(self, index: int) -> int:
        """Return the tensor behind ops that change the shape only."""
        while (op := self._producer(index)) is not None and op.name in _SAME_VALUES:
            index = op.inputs[0]
        return index

    def _operands(self, index: int, name: str) -> tuple[int, ...]:
        op = self._producer(index)
        plain = op is not None and op.name == name and op.options.get("fused_activation") == "NONE"
        return op.inputs if op is not None and plain else ()

    def _activated(self, operands: tuple[int, ...], name: str) -> int:
        """Return what an operand is the activation of, -1 when none of them is."""
        for index in operands:
            op = self._producer(index)
            if op is not None and op.name == name:
                return op.inputs[0]
        return -1

    def _is_invariant(self, position: int) -> bool:
        return self.body.outputs[position] == self.body.inputs[position]

    def _is_read(self, position: int) -> bool:
        index = self.loop.outputs[position]
        return index in self.main.consumers or index in self.main.outputs

    def _outer_constant(self, position: int) -> npt.NDArray[np.generic] | None:
        return self.main.tensors[self.loop.inputs[position]].data

    def _constant(self, index: int) -> Floats | None:
        """Return the values of a constant of the body, or of one that is handed to it unchanged."""
        index = self._plain(index)
        values = self.body.tensors[index].data
        if values is None and index in self.body.inputs:
            position = self.body.inputs.index(index)
            values = self._outer_constant(position) if self._is_invariant(position) else None
        return None if values is None or values.dtype != np.float32 else values


def _is_value(graph: Graph, index: int, value: int) -> bool:
    data = graph.tensors[index].data
    return data is not None and data.size == 1 and int(data.reshape(())) == value


def _rows(values: Floats, part: tuple[int, int] | None, units: int) -> Floats:
    """Return one gate's share of values that are stacked by gate along the first axis."""
    if part is None:
        return np.ascontiguousarray(np.broadcast_to(values, (units,)) if values.ndim == 1 else values)
    if values.shape[0] == 1:
        return np.ascontiguousarray(np.broadcast_to(values, (units,)))
    number, parts = part
    if values.shape[0] != parts * units:
        raise Unfused("its gates differ in size")
    return np.ascontiguousarray(values[number * units : (number + 1) * units])
