"""Builds .tflite files of one op with the schema, for comparing op tables with the runtime."""

from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {
    np.dtype(t): n for t, n in ((np.float32, "FLOAT32"), (np.int8, "INT8"), (np.uint8, "UINT8"), (np.int32, "INT32"))
}

#: Zero point and scale of every quantized tensor of these files.
_ZERO = {"INT8": 0, "UINT8": 128, "INT16": 0}


def act(shape: tuple[int, ...], dtype: str, scale: float = 0.05, zero_point: int | None = None) -> dict[str, Any]:
    """Describe an activation."""
    return {"shape": shape, "dtype": dtype, "data": None, "scale": scale, "zero": zero_point}


def const(values: Any, scale: float = 0.02) -> dict[str, Any]:
    """Describe a constant."""
    array = np.asarray(values)
    array = array.astype(np.int32) if array.dtype == np.int64 else array
    return {"shape": array.shape, "dtype": _TYPES[array.dtype], "data": array, "scale": scale, "zero": None}


def one_op_file(
    op: str,
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    options: Mapping[str, Any] | None = None,
    table: str = "",
    version: int = 1,
) -> bytes:
    """Return the bytes of a file with one op; `table` is the schema's name of its options (`Conv2DOptions`)."""
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, op)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = version
    file = schema.ModelT()
    file.version, file.operatorCodes, file.buffers = 3, [code], [schema.BufferT()]
    graph, operator = schema.SubGraphT(), schema.OperatorT()
    graph.tensors, graph.operators = [], [operator]
    operator.opcodeIndex = 0
    for described in (*inputs, *outputs):
        tensor = schema.TensorT()
        tensor.name = f"t{len(graph.tensors)}"
        tensor.shape, tensor.type, tensor.buffer = list(described["shape"]), 0, 0
        tensor.type = getattr(schema.TensorType, described["dtype"])
        if described["data"] is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(described["data"].tobytes(), np.uint8)
            file.buffers.append(buffer)
            tensor.buffer = len(file.buffers) - 1
        if described["dtype"] in _ZERO or (described["dtype"] == "INT32" and described["scale"] < 0.01):
            zero = described["zero"] if described["zero"] is not None else _ZERO.get(described["dtype"], 0)
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([described["scale"]], np.float32)
            tensor.quantization.zeroPoint = np.array([zero], np.int64)
        graph.tensors.append(tensor)
    operator.inputs, operator.outputs = list(range(len(inputs))), list(range(len(inputs), len(graph.tensors)))
    graph.inputs = [i for i in operator.inputs if inputs[i]["data"] is None]
    graph.outputs = operator.outputs
    if table:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        operator.builtinOptions = getattr(schema, f"{table}T")()
        for name, value in (options or {}).items():
            assert hasattr(operator.builtinOptions, name), name
            setattr(operator.builtinOptions, name, value)
    file.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())
