"""Rules on versions, options, constants, axes, measured quantities and neighbouring ops."""

import math
from collections.abc import Mapping
from typing import Any

from edgepack.compat.context import Context, data_input, input_label, inputs, tensor_label, tensors
from edgepack.compat.quantities import axes, measure
from edgepack.compat.reasons import limit_code, reason
from edgepack.findings import Reason
from edgepack.graph import Op
from edgepack.profiles.vocabulary import QUANTITIES

#: Fixes that are better than the general one, by option.
_OPTION_FIXES: Mapping[str, str] = {
    "ellipsis_mask": "write the slice with begin and end of every dimension, without `...`",
    "keep_num_dims": "flatten the input to two dimensions before the dense layer",
    "new_axis_mask": "add the axis with a reshape after the slice",
    "shrink_axis_mask": "slice with begin:begin+1 and remove the axis with a reshape afterwards",
    "weights_format": "convert again with TFLiteConverter, which writes weights in the default format",
}


def max_version(context: Context, op: Op, argument: int) -> list[Reason]:
    """The op's version in the file must not be higher than this."""
    if op.version <= argument:
        return []
    return [reason("version", f"expected {op.label} at version {argument} or lower, got {op.version}")]


def exact_version(context: Context, op: Op, argument: list[int]) -> list[Reason]:
    """The op's version in the file must be one of these."""
    if op.version in argument:
        return []
    return [reason("version", f"expected {op.label} at version {' or '.join(map(str, argument))}, got {op.version}")]


def min_runtime(context: Context, op: Op, argument: int) -> list[Reason]:
    """The runtime that the file is compiled for must have at least this version."""
    if context.runtime_version >= argument:
        return []
    message = f"expected runtime version {argument} or later for {op.label}, got {context.runtime_version:g}"
    return [reason("runtime-version", message)]


def fused_activation(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """The activation fused into the op must be one of these."""
    got = op.options.get("fused_activation", "NONE")
    if got in argument:
        return []
    return [reason("fused-activation", f"expected the fused activation {' or '.join(argument)}, got {got}")]


def options(context: Context, op: Op, argument: dict[str, list[Any]]) -> list[Reason]:
    """The op's options (fields of its table in schema.fbs, in snake case) must have one of the listed values.

    An option that is absent from the file has the schema's default: 0, false, or `DEFAULT`.
    """
    reasons = []
    for name, allowed in argument.items():
        got = op.options.get(name)
        if got is None:
            got = "DEFAULT" if "DEFAULT" in allowed else type(allowed[0])()
        if not any(got == value for value in allowed):
            shown = " or ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in allowed)
            got = str(got).lower() if isinstance(got, bool) else got
            reasons.append(
                reason("option-value", f"expected {name} = {shown}, got {got}", fix=_OPTION_FIXES.get(name, ""))
            )
    return reasons


def in_range(context: Context, op: Op, argument: dict[str, list[float]]) -> list[Reason]:
    """Measured quantities must be within [lowest, highest]; one that the file does not determine is refused."""
    reasons = []
    for quantity, (low, high) in argument.items():
        got = measure(context, op, quantity)
        if got is None or not low <= got <= high:
            message = f"expected {quantity} {_span(low, high)}, got {_number(got)} ({QUANTITIES[quantity]})"
            reasons.append(reason(limit_code(quantity), message))
    return reasons


def multiple_of(context: Context, op: Op, argument: dict[str, int]) -> list[Reason]:
    """Measured quantities must be multiples of these numbers."""
    reasons = []
    for quantity, factor in argument.items():
        got = measure(context, op, quantity)
        if got is None or got % factor:
            message = f"expected {quantity} to be a multiple of {factor}, got {_number(got)}"
            reasons.append(reason("multiple", message))
    return reasons


def equal_quantities(context: Context, op: Op, argument: list[list[str]]) -> list[Reason]:
    """The two measured quantities of each pair must be equal."""
    reasons = []
    for first, second in argument:
        a, b = measure(context, op, first), measure(context, op, second)
        if a is None or a != b:
            message = f"expected {first} to equal {second}, got {_number(a)} and {_number(b)}"
            reasons.append(reason("unequal", message))
    return reasons


def constant_inputs(context: Context, op: Op, argument: list[int]) -> list[Reason]:
    """Inputs at these positions must be constants of the file; optional inputs may be absent."""
    for position, kind, tensor in inputs(context.graph, op):
        if position in argument and not context.is_constant(tensor):
            label = input_label(tensor, position, kind)
            return [reason("not-constant", f"expected a constant for {label}, got a tensor computed at run time")]
    return []


def runtime_inputs_only(context: Context, op: Op, argument: list[int]) -> list[Reason]:
    """Inputs at these positions must be computed at run time."""
    for position, _, tensor in inputs(context.graph, op):
        if position in argument and context.is_constant(tensor):
            label = tensor_label(tensor, f"input {position}")
            return [reason("constant-input", f"expected an activation for {label}, got a constant")]
    return []


def zero_constants(context: Context, op: Op, argument: bool) -> list[Reason]:
    """Constant data inputs must represent zero: every value equals the zero point."""
    for label, tensor in tensors(context.graph, op, "input"):
        if not tensor.is_constant:
            continue
        zero = (
            int(tensor.quantization.zero_point[0]) if tensor.quantization and tensor.quantization.zero_point.size else 0
        )
        if tensor.data is None or bool((tensor.data != zero).any()):
            return [reason("nonzero-constant", f"expected all zeros for the constant {label}, got other values")]
    return []


def forbidden_axes(context: Context, op: Op, argument: list[int]) -> list[Reason]:
    """The op must not reduce, pad, pack, split or join along these axes; negative ones count from the last."""
    along = axes(context, op)
    if along is None:
        return [_computed_axes()]
    hit = sorted(_counted_from_0(context, op, argument).intersection(along))
    if not hit:
        return []
    batch = " (the batch)" if hit[0] == 0 else ""
    return [reason("forbidden-axis", f"expected axes other than {hit[0]}{batch}, got {list(along)}")]


def axes_within(context: Context, op: Op, argument: list[int]) -> list[Reason]:
    """The op must work along these axes only; negative ones count from the last."""
    along = axes(context, op)
    allowed = _counted_from_0(context, op, argument)
    if along is None:
        return [_computed_axes()]
    if allowed.issuperset(along):
        return []
    return [reason("forbidden-axis", f"expected axes among {sorted(allowed)}, got {list(along)}")]


def consumers(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """Exactly one op, one of these, must read the output, which must not be an output of the model."""
    for label, tensor in tensors(context.graph, op, "output"):
        readers = [context.graph.ops[i] for i in context.graph.consumers.get(tensor.index, ())]
        names = [reader.label for reader in readers]
        if tensor.index in context.graph.outputs:
            names.append("the model's output")
        if len(names) != 1 or names[0] not in argument:
            got = ", ".join(names) or "no reader"
            return [reason("consumer", f"expected {label} to be read by one {' or '.join(argument)}, got {got}")]
    return []


def read_by(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """An op of one of these kinds must read the output, directly or through RESHAPE."""
    graph = context.graph
    waiting, seen = list(op.outputs), set(op.outputs)
    while waiting:
        for index in graph.consumers.get(waiting.pop(), ()):
            reader = graph.ops[index]
            if reader.label in argument:
                return []
            if reader.label == "RESHAPE":
                waiting += [tensor for tensor in reader.outputs if tensor not in seen]
                seen.update(reader.outputs)
    return [reason("consumer", f"expected the output to be read by {' or '.join(argument)}, got none of these")]


def producers(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """The first data input must be the output of one of these ops."""
    tensor = data_input(context.graph, op)
    if tensor is None:
        return []
    producer = context.graph.producers.get(tensor.index)
    got = "a model input or constant" if producer is None else context.graph.ops[producer].label
    if got in argument:
        return []
    label = tensor_label(tensor, "input 0")
    return [reason("producer", f"expected {label} to come from {' or '.join(argument)}, got {got}")]


def _counted_from_0(context: Context, op: Op, argument: list[int]) -> set[int]:
    rank = _rank(context, op)
    return {axis + rank if axis < 0 else axis for axis in argument}


def _computed_axes() -> Reason:
    return reason("not-constant", "expected constant axes, got axes computed at run time")


def _rank(context: Context, op: Op) -> int:
    """Return the rank that the op's axes refer to."""
    if op.name in {"PACK", "EXPAND_DIMS"}:
        outputs = context.graph.op_outputs(op)
        return outputs[0].rank if outputs else 0
    data = data_input(context.graph, op)
    return data.rank if data else 0


def _span(low: float, high: float) -> str:
    if low == high:
        return f"= {_number(low)}"
    if math.isinf(high):
        return f"from {_number(low)}"
    return f"from {_number(low)} to {_number(high)}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.10g}"
