"""Lowering of recurrent ops: LSTM, RNN and SVDF, from the initial state that the file's state tensors have.

The equations are those of tensorflow/lite/kernels/lstm_eval.cc, basic_rnn.cc and svdf.cc of
github.com/tensorflow/tensorflow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.quantize.ptq.lowering.call import Call, Lowering, NotLoweredError, TfTensor, activate
from edgepack.quantize.ptq.lowering.lazy import tf

#: Added to the variance by layer normalization (kernel_utils.cc, tensor_utils.h).
_NORMALIZATION = 1e-8

#: Time steps up to which a sequence is unrolled, which runs faster; a longer one is a loop, which is traced faster.
_MOST_UNROLLED = 128

#: Advances a state by one time step; the first part of the state is the output.
Step = Callable[[Sequence[TfTensor], TfTensor], list[TfTensor]]


def scan(step: Step, state: Sequence[TfTensor], inputs: TfTensor, *, backward: bool = False) -> TfTensor:
    """Return the outputs of a recurrent cell, (time, rows, units).

    Args:
        step: The cell.
        state: Initial state.
        inputs: (time, rows, features).
        backward: True to begin at the end.
    """
    steps = inputs.shape[0]
    if steps > _MOST_UNROLLED:
        return tf.scan(step, inputs, list(state), reverse=backward)[0]
    outputs: list[Any] = [None] * steps
    for time in reversed(range(steps)) if backward else range(steps):
        state = step(state, inputs[time])
        outputs[time] = state[0]
    return tf.stack(outputs)


@dataclass(frozen=True)
class _LstmCell:
    """Weights of an LSTM cell; gates are in the order input, forget, cell, output, None where one is missing."""

    inputs: list[Any]
    recurrent: list[Any]
    peephole: list[Any]
    biases: list[Any]
    norms: list[Any]
    projection: list[Any]
    activation: str
    cell_clip: float
    projection_clip: float

    def step(self, state: Sequence[TfTensor], x: TfTensor) -> list[TfTensor]:
        """Return (output, cell) after one time step; x is (rows, features)."""
        output, cell = state
        forget = tf.sigmoid(self._gate(1, x, output, cell, 1))
        update = activate(self.activation, self._gate(2, x, output, cell, None))
        # Without weights of its own the input gate is coupled to the forget gate.
        enter = 1.0 - forget if self.inputs[0] is None else tf.sigmoid(self._gate(0, x, output, cell, 0))
        cell = forget * cell + enter * update
        if self.cell_clip > 0.0:
            cell = tf.clip_by_value(cell, -self.cell_clip, self.cell_clip)
        result = tf.sigmoid(self._gate(3, x, output, cell, 2)) * activate(self.activation, cell)
        if self.projection[0] is not None:
            result = tf.matmul(result, self.projection[0], transpose_b=True)
            if self.projection[1] is not None:
                result = result + self.projection[1]
            if self.projection_clip > 0.0:
                result = tf.clip_by_value(result, -self.projection_clip, self.projection_clip)
        return [result, cell]

    def _gate(self, gate: int, x: TfTensor, output: TfTensor, cell: TfTensor, peephole: int | None) -> TfTensor:
        result = tf.matmul(x, self.inputs[gate], transpose_b=True)
        result += tf.matmul(output, self.recurrent[gate], transpose_b=True)
        if peephole is not None and self.peephole[peephole] is not None:
            result += cell * self.peephole[peephole]
        if self.norms[gate] is not None:
            mean, variance = tf.nn.moments(result, [-1], keepdims=True)
            result = (result - mean) / tf.sqrt(variance + _NORMALIZATION) * self.norms[gate]
        return result if self.biases[gate] is None else result + self.biases[gate]


def _optional(call: Call, positions: range) -> list[Any]:
    return [call.single(position) if call.has(position) else None for position in positions]


def _lstm_cell(call: Call, first: int, norms: range) -> _LstmCell:
    """Return the cell whose input weights begin at a position."""
    return _LstmCell(
        inputs=_optional(call, range(first, first + 4)),
        recurrent=_optional(call, range(first + 4, first + 8)),
        peephole=_optional(call, range(first + 8, first + 11)),
        biases=_optional(call, range(first + 11, first + 15)),
        norms=_optional(call, norms) if norms else [None] * 4,
        projection=_optional(call, range(first + 15, first + 17)),
        activation=str(call.option("fused_activation", "TANH")),
        cell_clip=float(call.option("cell_clip", 0.0)),
        projection_clip=float(call.option("proj_clip", 0.0)),
    )


def _by_time(call: Call) -> TfTensor:
    """Return the input sequence as (time, samples * batch, features)."""
    x, shape = call.batched(0), call.shape(0)
    time, rows = (1, 2) if call.option("time_major", True) else (2, 1)
    x = tf.transpose(x, [time, 0, rows, 3])
    return tf.reshape(x, [shape[time - 1], call.batch * shape[rows - 1], shape[2]])


def _from_time(call: Call, outputs: TfTensor) -> TfTensor:
    """Return (time, samples * batch, units) in the file's order with the samples' axis."""
    shape = call.shape(0)
    rows = shape[1] if call.option("time_major", True) else shape[0]
    outputs = tf.reshape(outputs, [outputs.shape[0], call.batch, rows, outputs.shape[-1]])
    return tf.transpose(outputs, [1, 0, 2, 3] if call.option("time_major", True) else [1, 2, 0, 3])


def _states(call: Call, *positions: int) -> list[TfTensor]:
    """Return initial states as (samples * batch, units)."""
    return [call.folded(position) for position in positions]


def sequence_lstm(call: Call) -> Any:
    """Lower UNIDIRECTIONAL_SEQUENCE_LSTM."""
    cell = _lstm_cell(call, 1, range(20, 24))
    return _from_time(call, scan(cell.step, _states(call, 18, 19), _by_time(call)))


def bidirectional_lstm(call: Call) -> Any:
    """Lower BIDIRECTIONAL_SEQUENCE_LSTM without auxiliary inputs."""
    if any(call.has(position) for position in range(39, 48)):
        raise NotLoweredError("BIDIRECTIONAL_SEQUENCE_LSTM with auxiliary inputs")
    x = _by_time(call)
    forward = scan(_lstm_cell(call, 1, range(0)).step, _states(call, 35, 36), x)
    backward = scan(_lstm_cell(call, 18, range(0)).step, _states(call, 37, 38), x, backward=True)
    return _merged(call, forward, backward)


def _merged(call: Call, forward: TfTensor, backward: TfTensor) -> Any:
    if call.option("merge_outputs", False):
        return _from_time(call, tf.concat([forward, backward], -1))
    return [_from_time(call, forward), _from_time(call, backward)]


def lstm(call: Call) -> Any:
    """Lower LSTM, one time step: the full kernel, or the basic one with one matrix for all gates."""
    if call.option("kernel_type", "FULL") != "BASIC":
        cell = _lstm_cell(call, 1, range(20, 24))
        return call.unfolded(cell.step(_states(call, 18, 19), call.folded(0))[0], call.shape(0)[0])
    joined = tf.concat([call.folded(0), call.folded(1)], -1)
    gates = tf.matmul(joined, call.single(2), transpose_b=True) + call.single(3)
    enter, update, forget, leave = tf.split(gates, 4, -1)
    cell = tf.sigmoid(enter) * tf.tanh(update) + tf.sigmoid(forget) * call.folded(4)
    results = [tf.sigmoid(leave) * tf.tanh(cell), cell, joined, gates]
    return [call.unfolded(result, call.shape(0)[0]) for result in results[: len(call.outputs)]]


def _rnn_step(call: Call, first: int) -> Step:
    """Return the cell whose weights, recurrent weights and bias begin at a position."""
    weights, recurrent, bias = (call.single(position) for position in range(first, first + 3))

    def step(state: Sequence[TfTensor], x: TfTensor) -> list[TfTensor]:
        result = tf.matmul(x, weights, transpose_b=True) + tf.matmul(state[0], recurrent, transpose_b=True) + bias
        return [call.activated(result)]

    return step


def sequence_rnn(call: Call) -> Any:
    """Lower UNIDIRECTIONAL_SEQUENCE_RNN."""
    return _from_time(call, scan(_rnn_step(call, 1), _states(call, 4), _by_time(call)))


def bidirectional_rnn(call: Call) -> Any:
    """Lower BIDIRECTIONAL_SEQUENCE_RNN without auxiliary inputs."""
    if any(call.has(position) for position in range(9, 12)):
        raise NotLoweredError("BIDIRECTIONAL_SEQUENCE_RNN with auxiliary inputs")
    x = _by_time(call)
    forward = scan(_rnn_step(call, 1), _states(call, 4), x)
    backward = scan(_rnn_step(call, 5), _states(call, 8), x, backward=True)
    return _merged(call, forward, backward)


def rnn(call: Call) -> Any:
    """Lower RNN, one time step."""
    return call.unfolded(_rnn_step(call, 1)(_states(call, 4), call.folded(0))[0], call.shape(0)[0])


def svdf(call: Call) -> Any:
    """Lower SVDF: features are filtered, remembered, and filtered over time.

    Operands: input (batch, in), feature filters (filters, in), time filters (filters, memory), bias (units), state
    (batch, filters * memory).
    """
    filters, memory = call.shape(2)
    rank = int(call.option("rank", 1))
    features = tf.matmul(call.folded(0), call.single(1), transpose_b=True)
    state = tf.reshape(call.folded(4), [-1, filters, memory])
    state = tf.concat([state[:, :, 1:], features[:, :, None]], -1)
    result = tf.reduce_sum(state * call.single(2), -1)
    result = tf.reduce_sum(tf.reshape(result, [-1, filters // rank, rank]), -1)
    if call.has(3):
        result = result + call.single(3)
    return call.unfolded(call.activated(result), call.shape(0)[0])


OPS: dict[str, Lowering] = {
    "BIDIRECTIONAL_SEQUENCE_LSTM": bidirectional_lstm,
    "BIDIRECTIONAL_SEQUENCE_RNN": bidirectional_rnn,
    "LSTM": lstm,
    "RNN": rnn,
    "SVDF": svdf,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": sequence_lstm,
    "UNIDIRECTIONAL_SEQUENCE_RNN": sequence_rnn,
}
