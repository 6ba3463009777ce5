"""Writes .tflite files of single ops with the TFLite schema, several ops side by side in one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

#: Types whose tensors are quantized in these files, with their zero point.
_ZERO = {"INT8": 0, "UINT8": 128, "INT16": 0}


@dataclass(frozen=True)
class Operand:
    """A tensor.

    Attributes:
        shape: Dimensions.
        dtype: TFLite type name.
        values: Contents of a constant, None for an activation.
        scale: Quantization scale; 0 for none.
    """

    shape: tuple[int, ...]
    dtype: str = "INT8"
    values: Any = None
    scale: float = 0.05


@dataclass(frozen=True)
class Case:
    """An op with its tensors.

    Attributes:
        name: Unique name, `OP variation type`.
        op: TFLite builtin name.
        inputs: Inputs; None for an optional one that is left out.
        outputs: Outputs.
        options: Fields of the op's options.
    """

    name: str
    op: str
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


#: Types of feature maps, and a feature map's shape.
TYPES = ("INT8", "UINT8", "INT16", "INT32")
MORE_TYPES = (*TYPES, "INT64", "BOOL")
IMAGE = (1, 8, 8, 4)


def ints(*values: int) -> Operand:
    """Return a constant of 32-bit integers: axes, shapes, paddings."""
    return constant(np.array(values, np.int32))


def constant(values: Any, dtype: str = "", scale: float = 0.0) -> Operand:
    """Return a constant; without `dtype` it has the array's own type."""
    array = np.asarray(values)
    return Operand(array.shape, dtype or str(array.dtype).upper(), array, scale)


def model_of(cases: Sequence[Case]) -> bytes:
    """Return a .tflite in which every case is an op of its own; its first output has the case's name."""
    file = schema.ModelT()
    file.version, file.operatorCodes, file.buffers = 3, [], [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs, graph.name = [], [], [], [], "main"
    codes: dict[str, int] = {}
    for case in cases:
        if case.op not in codes:
            codes[case.op] = len(file.operatorCodes)
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, case.op)
            code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
            file.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = codes[case.op], [], []
        for at, operand in enumerate(case.inputs):
            if operand is None:
                op.inputs.append(-1)
                continue
            op.inputs.append(_add(file, graph, operand, f"{case.name}:{at}"))
            if operand.values is None:
                graph.inputs.append(op.inputs[-1])
        for at, operand in enumerate(case.outputs):
            op.outputs.append(_add(file, graph, operand, case.name if at == 0 else f"{case.name} output {at}"))
        graph.outputs.extend(op.outputs)
        if table := _table_of(case.op):
            op.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            op.builtinOptions = getattr(schema, f"{table}T")()
            for key, value in case.options.items():
                setattr(op.builtinOptions, key, value)
        graph.operators.append(op)
    file.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())


#: Names of the schema's tables of options by their lower-case name, and ops whose table has another name.
_TABLES = {name.lower(): name for name in dir(schema.BuiltinOptions) if name.endswith("Options")}
_NAMED = {
    **dict.fromkeys(("AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D"), "Pool2DOptions"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimumOptions"),
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"), "ReducerOptions"),
    "L2_NORMALIZATION": "L2NormOptions",
}


def _table_of(op: str) -> str:
    """Return the schema's name of an op's options (`Conv2DOptions`), empty for an op without."""
    return _NAMED.get(op) or _TABLES.get(op.replace("_", "").lower() + "options", "")


def _add(file: Any, graph: Any, operand: Operand, name: str) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, list(operand.shape), 0
    tensor.type = getattr(schema.TensorType, operand.dtype)
    if operand.values is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(operand.values).tobytes(), np.uint8)
        file.buffers.append(buffer)
        tensor.buffer = len(file.buffers) - 1
    if operand.dtype in _ZERO or (operand.values is not None and operand.scale):
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [operand.scale or 0.05]
        tensor.quantization.zeroPoint = [_ZERO.get(operand.dtype, 0)]
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
