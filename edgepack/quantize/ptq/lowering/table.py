"""The table of ops that are lowered to TensorFlow, and how one op is executed on it."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from edgepack.quantize.ptq.lowering import convolution, elementwise, indexing, matrix, movement, recurrent
from edgepack.quantize.ptq.lowering.call import Call, Lowering, NotLoweredError, PerSampleError, Value
from edgepack.quantize.ptq.lowering.control import CONTROL
from edgepack.quantize.ptq.lowering.lazy import tf

#: Function of each builtin op that has one.
LOWERINGS: dict[str, Lowering] = {
    **convolution.OPS,
    **elementwise.OPS,
    **indexing.OPS,
    **matrix.OPS,
    **movement.OPS,
    **recurrent.OPS,
}

#: Integer types that quantized tensors are stored in.
_QUANTIZED = frozenset({"INT2", "INT4", "INT8", "UINT8", "INT16", "INT32"})


def execute(call: Call) -> list[Value]:
    """Return the results of one op.

    What depends on no input is computed while the graph is traced where its operands are known then, so that shapes
    and axes computed from shapes become constants.

    Raises:
        NotLoweredError: The op is not in the table, or this use of it has no counterpart in TensorFlow.
    """
    if call.op.name in CONTROL:
        return CONTROL[call.op.name](call, execute)
    lower = LOWERINGS.get(call.op.name)
    if lower is None:
        raise NotLoweredError(f"{call.op.label} is not lowered")
    if call.op.name != "DEQUANTIZE" and any(
        tensor is not None and tensor.quantization is not None and tensor.dtype in _QUANTIZED
        for tensor in (*call.inputs, *call.outputs)
    ):
        raise NotLoweredError(f"{call.op.label} computes on quantized values")
    if any(value is not None and value.batched for value in call.operands):
        try:
            return [_value(result, batched=True) for result in _results(lower, call)]
        except PerSampleError:
            return _map_over_samples(lower, call)
    call = replace(call, batch=1)
    known = all(value is None or value.static is not None for value in call.operands)
    with tf.init_scope() if known else nullcontext():
        values = [_value(result, batched=False) for result in _results(lower, call)]
        return [Value(np.asarray(value.tensor)) if known else value for value in values]


def _results(lower: Lowering, call: Call) -> list[Any]:
    results = lower(call)
    return list(results) if isinstance(results, list | tuple) else [results]


def _value(result: Any, *, batched: bool) -> Value:
    if isinstance(result, np.ndarray | np.generic):
        return Value(np.asarray(result))
    return Value(result, True) if batched else Value(result[0])


def _map_over_samples(lower: Lowering, call: Call) -> list[Value]:
    """Return the results of an op whose function takes one sample at a time."""
    positions = [p for p, value in enumerate(call.operands) if value is not None and value.batched]

    def one(tensors: list[Any]) -> list[Any]:
        operands = list(call.operands)
        for position, tensor in zip(positions, tensors, strict=True):
            operands[position] = Value(tensor)
        results = _results(lower, replace(call, operands=tuple(operands), batch=1))
        return [result if isinstance(result, np.ndarray) else result[0] for result in results]

    elements = [value.tensor for value in call.operands if value is not None and value.batched]
    mapped = tf.map_fn(one, elements, fn_output_signature=[call.dtype(k) for k in range(len(call.outputs))])
    return [Value(tensor, True) for tensor in mapped]
