"""Replaces loops that compute an LSTM by the fused op UNIDIRECTIONAL_SEQUENCE_LSTM, which quantizers convert."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.child import Job
from edgepack.convert.compare import TOLERANCE, Array, largest_difference, probe_inputs
from edgepack.convert.interface import plain_name
from edgepack.convert.lstm_match import Lstm, Unfused, match_lstm
from edgepack.errors import ConversionError
from edgepack.graph import Graph, Model, read_model
from edgepack.graph.edit import (
    builtin_code,
    code_number,
    empty_unused,
    op_code,
    pack,
    set_op_versions,
    unpack,
)
from edgepack.graph.new_parts import new_tensor
from edgepack.graph.read import schema
from edgepack.runtime import Runner
from edgepack.text import first_line

#: Inputs of UNIDIRECTIONAL_SEQUENCE_LSTM (tensorflow/lite/kernels/lstm_shared.h) that a plain LSTM has. Gates are in
#: the order input, forget, cell, output.
_INPUTS, _WEIGHTS, _RECURRENT, _BIAS, _HIDDEN, _CELL, _COUNT = 0, 1, 5, 12, 18, 19, 24

#: Options that hold the index of another subgraph.
_SUBGRAPHS = ("condSubgraphIndex", "bodySubgraphIndex", "thenSubgraphIndex", "elseSubgraphIndex", "initSubgraphIndex")

#: Ops with such options; another op that runs subgraphs keeps every subgraph in the file.
_RUNS = {"WHILE", "IF", "CALL_ONCE"}


@dataclass(frozen=True)
class Fusion:
    """A file with fused LSTM.

    Attributes:
        tflite: The file; the same bytes when nothing was fused.
        fused: Number of loops that became a fused op.
        notes: One sentence for each loop that is left.
    """

    tflite: bytes
    fused: int = 0
    notes: tuple[str, ...] = ()


def fuse_lstms(tflite: bytes) -> Fusion:
    """Replace every loop of the main graph that computes an LSTM with a zero initial state by the fused op.

    The fused op keeps its state from run to run: the result is a model with state, which equals the original from the
    initial state.

    Args:
        tflite: A float file.

    Returns:
        The edited file. The caller has to compare its outputs with the original's.
    """
    model = read_model(tflite)
    found: list[Lstm] = []
    notes = []
    for op in model.main.ops:
        if op.name != "WHILE":
            continue
        try:
            found.append(match_lstm(model, op))
        except Unfused as reason:
            notes.append(_note(model, int(op.options.get("body_subgraph_index", 0)), str(reason)))
    if not found:
        return Fusion(tflite, 0, tuple(notes))
    edited = unpack(tflite)
    graph = edited.subgraphs[0]
    writer = _Writer(edited, graph, model.main)
    replaced = {lstm.loop: writer.ops(lstm) for lstm in found}
    graph.operators = [
        part
        for index, op in enumerate(graph.operators)
        if index not in writer.dropped
        for part in replaced.get(index, [op])
    ]
    _drop_unused_reshapes(edited, graph)
    _empty_unused_tensors(graph)
    _drop_unused_subgraphs(edited)
    empty_unused(edited)
    # Operator codes that nothing uses, such as WHILE's, would make an older runtime refuse the file.
    return Fusion(set_op_versions(pack(edited), {}), len(found), tuple(notes))


def fuse_proven(tflite: bytes, samples: Sequence[Mapping[str, Array]] = ()) -> Fusion:
    """Call `fuse_lstms`, and keep its result only if the outputs agree. It runs the file: use `FUSE_LSTMS` in a child.

    Args:
        tflite: A float file.
        samples: A few of the user's samples by input name, which join the comparison where their shapes fit.
    """
    fusion = fuse_lstms(tflite)
    if not fusion.fused:
        return fusion
    before, after = Runner(tflite), Runner(fusion.tflite)
    probes = probe_inputs([info.shape for info in before.inputs], [info.dtype.name for info in before.inputs])
    for sample in samples:
        arrays = [sample.get(info.name) for info in before.inputs]
        if all(a is not None and a.shape == i.shape for a, i in zip(arrays, before.inputs, strict=True)):
            probes.append([np.asarray(a).astype(i.dtype) for a, i in zip(arrays, before.inputs, strict=True)])
    difference = largest_difference([before.run(arrays) for arrays in probes], after.run, probes)
    if difference > TOLERANCE:
        return Fusion(tflite, 0, (*fusion.notes, different(difference)))
    return fusion


#: `fuse_proven` as a job; `Conversion.run` adds the file and its format to the error texts.
FUSE_LSTMS = Job(
    fuse_proven,
    error=ConversionError,
    purpose="fusing LSTM layers",
    hint="check that the file runs in the LiteRT interpreter",
)


def different(difference: float) -> str:
    """Return the note about fused ops that were not used because the outputs differ."""
    return f"LSTM layers stay WHILE ops, because with fused ops the outputs differ by {difference:.1e}"


def _note(model: Model, body: int, reason: str) -> str:
    name = plain_name(model.graphs[body].name) if 0 <= body < len(model.graphs) else ""
    name = name.removesuffix("_body").removesuffix("/while").removesuffix("/PartitionedCall")
    return (
        f"the loop '{first_line(name)}' stays a WHILE op, whose inside no quantizer converts to integers: {reason}. "
        "TFLite's fused op computes an LSTM layer with tanh, sigmoid, a zero initial state and no mask; "
        "use such a layer, or unroll=True for a layer of few steps"
    )


class _Writer:
    """Writes the ops that replace loops.

    With a batch of 1 the fused op reads (1, time, features), as TFLiteConverter writes it and as the Edge TPU's
    compiler knows it, and the RESHAPE ops around the loop disappear; else it reads the loop's (time, batch, features).
    """

    def __init__(self, model: Any, graph: Any, main: Graph) -> None:
        self.model, self.graph, self.main = model, graph, main
        #: Indices of ops of the original that are left out.
        self.dropped: set[int] = set()
        self._batch_first: dict[int, int] = {}

    def ops(self, lstm: Lstm) -> list[Any]:
        """Return the ops for one loop: the fused op, and slices of its last step."""
        model, graph = self.model, self.graph
        steps, batch, features = self.main.tensors[lstm.source].shape
        units, base, first = lstm.bias[0].size, f"lstm_{lstm.loop}", batch == 1
        ops = []
        source = lstm.source
        if first:
            source = self._source(lstm.source, (1, steps, features))
            if source < 0:
                source = new_tensor(model, graph, f"{base}/input", (1, steps, features))
                ops.append(self._reshape(lstm.source, source, f"{base}/input_shape"))
        inputs = np.full(_COUNT, -1, np.int32)
        inputs[_INPUTS] = source
        for begin, values in ((_WEIGHTS, lstm.weights), (_RECURRENT, lstm.recurrent), (_BIAS, lstm.bias)):
            for gate, array in enumerate(values):
                inputs[begin + gate] = new_tensor(model, graph, f"{base}/weights_{begin + gate}", array.shape, array)
        for position in (_HIDDEN, _CELL):
            state = new_tensor(model, graph, f"{base}/state_{position}", (batch, units))
            graph.tensors[state].isVariable = True
            inputs[position] = state
        shape = (1, steps, units) if first else (steps, batch, units)
        output = self._output(lstm.sequence, shape) if first else lstm.sequence
        if output < 0:
            output = new_tensor(model, graph, f"{base}/output", shape)
        fused = _op(model, "UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, output)
        fused.builtinOptions = schema().UnidirectionalSequenceLSTMOptionsT()
        fused.builtinOptions.fusedActivationFunction = schema().ActivationFunctionType.TANH
        fused.builtinOptions.timeMajor = not first
        fused.builtinOptionsType = schema().BuiltinOptions.UnidirectionalSequenceLSTMOptions
        ops.append(fused)
        if first and lstm.sequence >= 0:
            self._batch_first[lstm.sequence] = output
            ops.append(self._reshape(output, lstm.sequence, f"{base}/output_shape"))
        return ops + self._last(lstm, output, [0, steps - 1, 0] if first else [steps - 1, 0, 0], (1, batch, units))

    def _source(self, index: int, shape: tuple[int, ...]) -> int:
        """Return the tensor of a shape with the same values that the file has already, -1 for none."""
        if index in self._batch_first:
            return self._batch_first[index]
        place = self.main.producers.get(index)
        op = None if place is None else self.main.ops[place]
        same = op is not None and op.name == "RESHAPE" and self.main.tensors[op.inputs[0]].shape == shape
        return op.inputs[0] if op is not None and same else -1

    def _output(self, sequence: int, shape: tuple[int, ...]) -> int:
        """Return the tensor of a shape that a RESHAPE makes of the loop's output, and drop the RESHAPE; -1 for none."""
        for place in self.main.consumers.get(sequence, ()):
            op = self.main.ops[place]
            if op.name == "RESHAPE" and self.main.tensors[op.outputs[0]].shape == shape:
                self.dropped.add(place)
                return op.outputs[0]
        return -1

    def _last(self, lstm: Lstm, output: int, begin: list[int], shape: tuple[int, ...]) -> list[Any]:
        """Return the ops that take the output of the last step."""
        ops: list[Any] = []
        base = f"lstm_{lstm.loop}"
        for number, index in enumerate(lstm.last):
            same = self.main.tensors[index].shape == shape
            step = index if same else new_tensor(self.model, self.graph, f"{base}/last_{number}", shape)
            start = new_tensor(self.model, self.graph, f"{base}/begin_{number}", (3,), np.array(begin, np.int32))
            size = new_tensor(self.model, self.graph, f"{base}/size_{number}", (3,), np.array(shape, np.int32))
            ops.append(_op(self.model, "SLICE", [output, start, size], step))
            ops[-1].builtinOptions = schema().SliceOptionsT()
            ops[-1].builtinOptionsType = schema().BuiltinOptions.SliceOptions
            if not same:
                ops.append(self._reshape(step, index, f"{base}/last_shape_{number}"))
        return ops

    def _reshape(self, source: int, result: int, name: str) -> Any:
        shape = np.array(self.graph.tensors[result].shape, np.int32)
        target = new_tensor(self.model, self.graph, name, shape.shape, shape)
        op = _op(self.model, "RESHAPE", [source, target], result)
        op.builtinOptions = schema().ReshapeOptionsT()
        op.builtinOptions.newShape = shape
        op.builtinOptionsType = schema().BuiltinOptions.ReshapeOptions
        return op


def _op(model: Any, name: str, inputs: Any, output: int) -> Any:
    op = schema().OperatorT()
    op.opcodeIndex = op_code(model, name)
    op.inputs, op.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    return op


def _drop_unused_reshapes(model: Any, graph: Any) -> None:
    """Remove the RESHAPE ops whose result nothing reads any more."""
    number = builtin_code("RESHAPE")
    while True:
        read = {int(i) for op in graph.operators for i in op.inputs} | {int(i) for i in graph.outputs}
        kept = [
            op
            for op in graph.operators
            if code_number(model.operatorCodes[op.opcodeIndex]) != number or int(op.outputs[0]) in read
        ]
        if len(kept) == len(graph.operators):
            return
        graph.operators = kept


def _empty_unused_tensors(graph: Any) -> None:
    """Detach the tensors that no op uses any more from their values, such as the initial state of a loop."""
    used = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs)}
    used |= {int(i) for i in (*graph.inputs, *graph.outputs)}
    for index, tensor in enumerate(graph.tensors):
        if index not in used:
            tensor.buffer = 0


def _drop_unused_subgraphs(model: Any) -> None:
    """Remove the subgraphs that nothing runs any more, and renumber the others."""
    known = {builtin_code(name) for name in _RUNS}
    graphs = model.subgraphs
    used = {0, *(int(signature.subgraphIndex) for signature in model.signatureDefs or [])}
    waiting = sorted(used)
    while waiting:
        for op in graphs[waiting.pop()].operators or []:
            if code_number(model.operatorCodes[op.opcodeIndex]) not in known:
                if any("ubgraph" in field for field in vars(op.builtinOptions or op)):
                    return
                continue
            for field in _SUBGRAPHS:
                index = getattr(op.builtinOptions, field, None)
                if index is not None and int(index) not in used:
                    used.add(int(index))
                    waiting.append(int(index))
    places = {old: new for new, old in enumerate(sorted(used))}
    for old in used:
        for op in graphs[old].operators or []:
            for field in _SUBGRAPHS:
                if getattr(op.builtinOptions, field, None) is not None:
                    setattr(op.builtinOptions, field, places[int(getattr(op.builtinOptions, field))])
    for signature in model.signatureDefs or []:
        signature.subgraphIndex = places[int(signature.subgraphIndex)]
    model.subgraphs = [graphs[old] for old in sorted(used)]
