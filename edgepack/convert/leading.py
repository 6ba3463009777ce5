"""Arithmetic on an input in front of a model's first layer, read from TensorFlow's graph.

The converter folds Rescaling and Normalization into the first convolution where it can, so that the .tflite no longer
shows them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

#: Numbers of one input: a factor and a summand, one of each or one per channel.
Arithmetic = tuple[tuple[float, ...], tuple[float, ...]]

#: Ops that pass values on, in another shape, order, type or size.
_PASSED = {
    "Identity", "StopGradient", "Cast", "Reshape", "ExpandDims", "Squeeze", "Transpose", "ResizeBilinear",
    "ResizeNearestNeighbor",
}  # fmt: skip
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_BINARY = {"Mul", "Sub", "AddV2", "Add", "RealDiv"}

#: Ops that look at a tensor's shape only.
_SHAPE = {"Shape", "Rank", "Size"}

#: Most steps, against graphs that never end.
_MOST_STEPS = 50


def read_arithmetic(function: Any, names: Sequence[str]) -> dict[str, Arithmetic]:
    """Return what a function does to each value of its inputs first; inputs without arithmetic are left out.

    Args:
        function: A concrete function of TensorFlow.
        names: Names of its inputs.
    """
    import tensorflow as tf

    values = {placeholder.name: captured for captured, placeholder in function.graph.captures}
    found = {}
    for name, tensor in zip(names, function.graph.inputs, strict=False):
        try:
            steps = _walk(tf, function.graph, tensor, values)
        except (ValueError, TypeError, AttributeError, LookupError, tf.errors.OpError):
            # A graph of another form says nothing.
            continue
        if steps is not None:
            found[name] = steps
    return found


def _walk(tf: Any, graph: Any, tensor: Any, values: dict[str, Any]) -> Arithmetic | None:
    scale, offset, count = np.array(1.0), np.array(0.0), 0
    for _ in range(_MOST_STEPS):
        consumers = [op for op in tensor.consumers() if op.type not in _SHAPE]
        if len(consumers) != 1:
            break
        (op,) = consumers
        if op.type in _CALLS:
            position = next(i for i, one in enumerate(op.inputs) if one is tensor)
            inner = graph._get_function(op.get_attr("f").name).graph
            known = {p.name: _value(tf, one, values) for p, one in zip(inner.inputs, op.inputs, strict=False)}
            graph, values, tensor = inner, known, inner.inputs[position]
        elif op.type in _PASSED and op.inputs[0] is tensor:
            tensor = op.outputs[0]
        elif op.type in _BINARY:
            first = op.inputs[0] is tensor
            constant = _value(tf, op.inputs[1 if first else 0], values)
            if constant is None:
                break
            value = np.asarray(constant, np.float64)
            if value.size != (value.shape or (1,))[-1]:
                break
            value = value.reshape(-1)
            if op.type == "Mul":
                scale, offset = scale * value, offset * value
            elif op.type == "RealDiv":
                if not first or not np.all(value):
                    break
                scale, offset = scale / value, offset / value
            elif op.type == "Sub":
                sign = 1.0 if first else -1.0
                scale, offset = scale * sign, sign * (offset - value)
            else:
                offset = offset + value
            count, tensor = count + 1, op.outputs[0]
        else:
            break
    return None if count == 0 else (_numbers(scale), _numbers(offset))


def _value(tf: Any, tensor: Any, values: dict[str, Any]) -> Any:
    """Return a tensor's value where it is a constant or a variable of the model, None elsewhere."""
    if not hasattr(tensor, "op"):
        return None
    known = values.get(tensor.name)
    if known is not None:
        return known.read_value().numpy() if hasattr(known, "read_value") else _as_array(tf, known)
    op = tensor.op
    if op.type in {"Identity", "Cast", "Reshape"}:
        return _value(tf, op.inputs[0], values)
    if op.type == "ReadVariableOp":
        return _value(tf, op.inputs[0], values)
    if op.type in {"Maximum", "Sqrt"}:
        # Normalization divides by max(sqrt(variance), epsilon).
        parts = [_value(tf, one, values) for one in op.inputs]
        if any(part is None for part in parts):
            return None
        return np.sqrt(parts[0]) if op.type == "Sqrt" else np.maximum(*parts)
    return tf.get_static_value(tensor)


def _as_array(tf: Any, known: Any) -> Any:
    if isinstance(known, np.ndarray):
        return known
    if getattr(known, "dtype", None) == tf.resource:
        return None
    return known.numpy() if hasattr(known, "numpy") else None


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(one) for one in np.atleast_1d(value))
