"""Cut the model's last steps off, so that the loader does them: class choice, probabilities, floats."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import NUMPY_DTYPES, Graph, Model, Op
from edgepack.graph.edit import pack, unpack, write_true_versions
from edgepack.repair.edits import drop_unused


@dataclass(frozen=True)
class TailStep:
    """One step that the loader does in place of an op, on one output of the file.

    Steps of one output are done in order: the first one takes what the file gives.

    Attributes:
        output: Position of the output in the file.
        op: `ARG_MAX`, `SOFTMAX` or `DEQUANTIZE`.
        axis: Axis of ARG_MAX, counted from 0; the last one for SOFTMAX.
        beta: Factor in front of SOFTMAX's logits.
        dtype: TFLite type of the step's result.
        shape: Shape of the step's result.
        scale: Scale that DEQUANTIZE applied: real = scale * (value - zero_point).
        zero_point: Its zero point.
    """

    output: int
    op: str
    axis: int
    beta: float
    dtype: str
    shape: tuple[int, ...]
    scale: float = 1.0
    zero_point: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the step for a manifest."""
        return {
            "output": self.output, "op": self.op, "axis": self.axis, "beta": self.beta, "dtype": self.dtype,
            "shape": list(self.shape), "scale": self.scale, "zero_point": self.zero_point,
        }  # fmt: skip


def cut(model: Model, output: int) -> tuple[Model, TailStep] | None:
    """Take the op that makes one output away, when a loader can do its work.

    Args:
        model: The model.
        output: Position of the output.

    Returns:
        The shorter model, as values, and what the loader has to do; None when the last op is not such a step, or its
        result is used elsewhere.
    """
    graph = model.main
    tensor = graph.outputs[output]
    op = graph.ops[graph.producers[tensor]] if tensor in graph.producers else None
    if op is None or graph.consumers.get(tensor) or list(graph.outputs).count(tensor) != 1:
        return None
    step = _step(graph, op, output)
    if step is None or op.inputs[0] in graph.outputs or op.inputs[0] in graph.inputs:
        return None
    outputs = tuple(op.inputs[0] if i == output else old for i, old in enumerate(graph.outputs))
    ops = tuple(replace(kept, index=i) for i, kept in enumerate(k for k in graph.ops if k.index != op.index))
    signatures = tuple(
        replace(s, outputs={n: op.inputs[0] if i == tensor else i for n, i in s.outputs.items()}) if s.graph == 0 else s
        for s in model.signatures
    )
    shorter = replace(graph, ops=ops, outputs=outputs)
    return replace(model, graphs=(shorter, *model.graphs[1:]), signatures=signatures), step


def cut_file(tflite: bytes, output: int, op_index: int) -> bytes:
    """Do to a file what `cut` does to values; `op_index` is the op that goes."""
    file = unpack(tflite)
    graph = file.subgraphs[0]
    op = graph.operators[op_index]
    old, new = int(op.outputs[0]), int(op.inputs[0])
    graph.operators = [kept for i, kept in enumerate(graph.operators) if i != op_index]
    graph.outputs = np.array([new if i == output else int(t) for i, t in enumerate(graph.outputs)], np.int32)
    for signature in file.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in signature.outputs or []:
                if entry.tensorIndex == old:
                    entry.tensorIndex = new
    drop_unused(file)
    return write_true_versions(pack(file))


def do_step(step: TailStep, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Do a step on an output's values, as every loader does it."""
    if step.op == "ARG_MAX":
        return np.asarray(np.argmax(values, axis=step.axis), NUMPY_DTYPES[step.dtype]).reshape(step.shape)
    if step.op == "SOFTMAX":
        scaled = values.astype(np.float64) * step.beta
        powers = np.exp(scaled - scaled.max(axis=step.axis, keepdims=True))
        return np.asarray(powers / powers.sum(axis=step.axis, keepdims=True), np.float32)
    return np.asarray((values.astype(np.float64) - step.zero_point) * step.scale, np.float32)


def _step(graph: Graph, op: Op, output: int) -> TailStep | None:
    if len(op.outputs) != 1 or not op.inputs or op.inputs[0] < 0:
        return None
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if source.is_constant or source.is_dynamic or source.rank == 0:
        return None
    if op.name == "ARG_MAX" and len(op.inputs) == 2 and op.inputs[1] >= 0:
        axis = graph.tensors[op.inputs[1]].data
        if axis is None or axis.size != 1:
            return None
        return TailStep(output, op.name, int(axis.ravel()[0]) % source.rank, 1.0, result.dtype, result.shape)
    if op.name == "SOFTMAX" and source.dtype == "FLOAT32":
        beta = float(op.options.get("beta", 1.0))
        return TailStep(output, op.name, source.rank - 1, beta, result.dtype, result.shape)
    quantization = source.quantization
    if op.name == "DEQUANTIZE" and quantization is not None and not quantization.per_channel:
        scale, zero_point = float(quantization.scale[0]), int(quantization.zero_point[0])
        return TailStep(output, op.name, source.rank - 1, 1.0, result.dtype, result.shape, scale, zero_point)
    return None
