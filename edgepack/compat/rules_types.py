"""Rules on data types and quantization parameters."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np

from edgepack.choices import alternatives
from edgepack.compat.context import Context, data_input, first_output, input_label, inputs, tensor_label, tensors
from edgepack.compat.reasons import reason
from edgepack.findings import Reason
from edgepack.graph import FLOAT_DTYPES, Op, Tensor
from edgepack.graph.op_layout import TYPE_CONVERSIONS

#: Integer types of indices and counts that are wider than what accelerators support.
_WIDE = frozenset({"INT64", "UINT64", "UINT32"})

#: Combinations of data types that a message lists.
_MOST_SHOWN = 4
_CODES = {"weights": "weights-dtype", "bias": "bias-dtype", "parameter": "parameter-dtype"}


def dtypes(context: Context, op: Op, argument: dict[str, list[str]]) -> list[Reason]:
    """Tensors must have one of the data types listed for their role.

    `inputN` overrides `input`; `input` and `output` override `data`. Roles without an entry are not checked.
    """
    reasons: dict[str, Reason] = {}
    checked: list[tuple[str, Tensor, list[str] | None, str]] = []
    for position, kind, tensor in inputs(context.graph, op):
        allowed = argument.get(f"input{position}") or (argument.get("input") if kind == "data" else None)
        label = input_label(tensor, position, kind)
        checked.append((label, tensor, allowed or argument.get(kind), _CODES.get(kind, "dtype")))
    for label, tensor in tensors(context.graph, op, "output"):
        checked.append((label, tensor, argument.get("output") or argument.get("data"), "dtype"))
    for label, tensor, allowed, usual in checked:
        if allowed is None or tensor.dtype in allowed:
            continue
        code = _code(op, tensor, allowed, usual)
        # One reason per code is enough: further tensors would repeat it.
        reasons.setdefault(code, reason(code, f"expected {alternatives(allowed)} for {label}, got {tensor.dtype}"))
    return list(reasons.values())


def _code(op: Op, tensor: Tensor, allowed: list[str], usual: str) -> str:
    """Return the reason code for a data type: the most specific one that applies, else `usual`."""
    if tensor.dtype in FLOAT_DTYPES and not FLOAT_DTYPES.intersection(allowed):
        return "float-io" if op.name in TYPE_CONVERSIONS else "dtype-float"
    if usual == "dtype" and tensor.dtype in _WIDE and "INT32" in allowed:
        return "dtype-wide-integer"
    if usual == "dtype" and tensor.quantization is not None and FLOAT_DTYPES.issuperset(allowed):
        return "dtype-quantized"
    return usual


def dtype_pairs(context: Context, op: Op, argument: list[list[str]]) -> list[Reason]:
    """The data types of the first data input and the first output must be one of these pairs."""
    data, output = data_input(context.graph, op), first_output(context.graph, op)
    if data is None or output is None or [data.dtype, output.dtype] in argument:
        return []
    pairs = ", ".join(f"{before} to {after}" for before, after in argument)
    return [reason("dtype-pair", f"expected one of {pairs}, got {data.dtype} to {output.dtype}")]


def signature(context: Context, op: Op) -> str:
    """Return the data types of an op's inputs and outputs, equal ones in a row once: `INT8,INT32 -> INT8`."""
    read, written = (
        [tensor.dtype for tensor in side if tensor is not None]
        for side in (context.graph.op_inputs(op), context.graph.op_outputs(op))
    )
    return joined_dtypes(read, written)


def joined_dtypes(read: Iterable[str], written: Iterable[str]) -> str:
    """Return the data types of inputs and outputs as the constraint `signatures` writes them."""
    return " -> ".join(",".join(dtype for dtype, _ in groupby(side)) for side in (read, written))


def signatures(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """The data types of all inputs and outputs together, equal ones in a row once, must be in this list."""
    got = signature(context, op)
    if got in argument:
        return []
    known = {name for text in argument for name in text.replace(" -> ", ",").split(",")}
    types = set(got.replace(" -> ", ",").split(","))
    code = "dtype-float" if types & FLOAT_DTYPES and not known & FLOAT_DTYPES else "dtype-combination"
    shown = alternatives(argument) if len(argument) <= _MOST_SHOWN else f"one of {len(argument)} combinations"
    return [reason(code, f"expected the data types {shown}, got {got}")]


def same_dtype(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """All tensors of these roles must have the same data type."""
    compared = [entry for role in argument for entry in tensors(context.graph, op, role)]
    for label, tensor in compared[1:]:
        first_label, first = compared[0]
        if tensor.dtype != first.dtype:
            message = f"expected {label} to be {first.dtype} like {first_label}, got {tensor.dtype}"
            return [reason("dtype-mismatch", message)]
    return []


def dense_weights(context: Context, op: Op, argument: bool) -> list[Reason]:
    """No input may be stored sparse."""
    for position, _, tensor in inputs(context.graph, op):
        if tensor.has_sparsity:
            label = tensor_label(tensor, f"input {position}")
            return [reason("sparse-weights", f"expected dense values for {label}, got sparse ones")]
    return []


def per_tensor_weights(context: Context, op: Op, argument: bool) -> list[Reason]:
    """Weights must have one scale for the whole tensor."""
    for label, tensor in tensors(context.graph, op, "weights"):
        quantization = tensor.quantization
        if quantization is not None and (quantization.per_channel or quantization.blockwise):
            got = "block-wise scales" if quantization.blockwise else f"{quantization.scale.size} scales"
            return [reason("per-channel-weights", f"expected one scale for {label}, got {got}")]
    return []


def per_tensor_data(context: Context, op: Op, argument: bool) -> list[Reason]:
    """Activations must have one scale for the whole tensor; constants may have one per channel."""
    for label, tensor in tensors(context.graph, op, "data"):
        quantization = tensor.quantization
        if context.is_constant(tensor) or quantization is None:
            continue
        if quantization.per_channel or quantization.blockwise:
            return [reason("per-channel-data", f"expected one scale for {label}, got {quantization.scale.size}")]
    return []


def same_quantization(context: Context, op: Op, argument: bool) -> list[Reason]:
    """Data inputs and outputs must share one scale and zero point."""
    first: tuple[str, Any] | None = None
    for label, tensor in tensors(context.graph, op, "data"):
        quantization = tensor.quantization
        if quantization is None:
            continue
        if first is None:
            first = (label, quantization)
        elif not (
            np.array_equal(first[1].scale, quantization.scale)
            and np.array_equal(first[1].zero_point, quantization.zero_point)
        ):
            message = f"expected {label} to have {_scale(first[1])} like {first[0]}, got {_scale(quantization)}"
            return [reason("requantizes", message)]
    return []


def quantized(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """Tensors of these roles must have a scale."""
    for role in argument:
        for label, tensor in tensors(context.graph, op, role):
            if tensor.quantization is None:
                return [reason("unquantized", f"expected a scale for {label}, got {tensor.dtype} without a scale")]
    return []


def _scale(quantization: Any) -> str:
    if quantization.scale.size != 1:
        return f"{quantization.scale.size} scales"
    return f"scale {float(quantization.scale[0]):.6g}, zero point {int(quantization.zero_point[0])}"
