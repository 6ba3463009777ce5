"""A fused LSTM over one sequence (UNIDIRECTIONAL_SEQUENCE_LSTM), and its steps as ops without variables.

The equations are those of tensorflow/lite/kernels/lstm_eval.cc of github.com/tensorflow/tensorflow.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, Tensor
from edgepack.repair.graph_edits import Draft

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LstmLayer:
    """An LSTM.

    Attributes:
        x: Its input, (1, steps, features) or time first.
        out: Its output, the hidden states of all steps.
        weights: (4 * units, features), for input, forget, cell and output gate.
        recurrent: (4 * units, units).
        bias: (4 * units,).
    """

    x: Tensor
    out: Tensor
    weights: _Floats
    recurrent: _Floats
    bias: _Floats

    @property
    def steps(self) -> int:
        """Number of steps of an inference."""
        return math.prod(self.x.shape[:2])

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.recurrent.shape[1])

    def write(self, draft: Draft, state: tuple[int, int] | None = None) -> tuple[int, int]:
        """Write the steps into an edit.

        Args:
            draft: The edit, which gets ops that write `out`.
            state: Tensors with the hidden state and the cell before the first step, (1, units) each; None for zeros.

        Returns:
            Tensors with the hidden state and the cell behind the last step.
        """
        steps, units, x, out = self.steps, self.units, self.x, self.out
        flat = draft.then("RESHAPE", [x.index, draft.constant((steps, x.shape[2]), "INT32")], (steps, x.shape[2]),
                          new_shape=[steps, x.shape[2]])  # fmt: skip
        inputs = [flat, draft.constant(self.weights), draft.constant(self.bias)]
        products = draft.then("FULLY_CONNECTED", inputs, (steps, 4 * units))
        matrix, zeros = draft.constant(self.recurrent), draft.constant(np.zeros(4 * units))
        shape, size = (1, units), draft.constant((1, units), "INT32")
        starts = [draft.constant((0, gate * units), "INT32") for gate in range(4)]
        hidden, cell = (-1, -1) if state is None else state
        outputs: list[int] = []
        for step in range(steps):
            gates = products
            if steps > 1:
                # SLICE and not SPLIT: ai-edge-quantizer leaves a SPLIT in float of which a part is not read.
                part = [products, draft.constant((step, 0), "INT32"), draft.constant((1, 4 * units), "INT32")]
                gates = draft.then("SLICE", part, (1, 4 * units))
            if hidden >= 0:
                fed = draft.then("FULLY_CONNECTED", [hidden, matrix, zeros], (1, 4 * units))
                gates = draft.then("ADD", [gates, fed], (1, 4 * units))
            enter = draft.then("LOGISTIC", [draft.then("SLICE", [gates, starts[0], size], shape)], shape)
            proposed = draft.then("TANH", [draft.then("SLICE", [gates, starts[2], size], shape)], shape)
            leave = draft.then("LOGISTIC", [draft.then("SLICE", [gates, starts[3], size], shape)], shape)
            new = draft.then("MUL", [enter, proposed], shape)
            if cell >= 0:
                forget = draft.then("LOGISTIC", [draft.then("SLICE", [gates, starts[1], size], shape)], shape)
                new = draft.then("ADD", [draft.then("MUL", [forget, cell], shape), new], shape)
            cell = new
            hidden = draft.then("MUL", [leave, draft.then("TANH", [cell], shape)], shape)
            outputs.append(hidden)
        joined = draft.then("CONCATENATION", outputs, (steps, units), axis=0) if steps > 1 else hidden
        draft.op("RESHAPE", [joined, draft.constant(out.shape, "INT32")], [out.index], new_shape=list(out.shape))
        return hidden, cell


def read_lstm(graph: Graph, op: Op) -> LstmLayer | None:
    """Return the LSTM of an op; None for other ops and for LSTM with parts that are not written out."""
    if op.name != "UNIDIRECTIONAL_SEQUENCE_LSTM" or len(op.inputs) < 20 or len(op.outputs) != 1:
        return None
    extra = [index for index in (*op.inputs[9:12], *op.inputs[16:18], *op.inputs[20:24]) if index >= 0]
    clips = any(op.options.get(name) for name in ("cell_clip", "proj_clip", "diagonal_recurrent_tensors"))
    if extra or clips or op.options.get("fused_activation", "TANH") != "TANH":
        return None
    x, out = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    parts = [_values(graph, index) for index in (*op.inputs[1:9], *op.inputs[12:16])]
    if any(part is None for part in parts) or x.is_dynamic or out.is_dynamic or x.rank != 3 or out.rank != 3:
        return None
    weights, recurrent, bias = (np.concatenate([p for p in parts[i : i + 4] if p is not None]) for i in (0, 4, 8))
    layer = LstmLayer(x, out, weights, recurrent, bias)
    if 1 not in x.shape[:2] or out.shape != (*x.shape[:2], layer.units):
        return None
    return layer if x.shape[1 if op.options.get("time_major") else 0] == 1 else None


def _values(graph: Graph, index: int) -> _Floats | None:
    data = graph.tensors[index].data if index >= 0 else None
    return None if data is None or data.dtype != np.float32 else data
