"""The words an op table is written in: constraint ids with their arguments, and quantities that can be measured.

`edgepack.profiles.load` validates op tables against this vocabulary; `edgepack.compat` implements exactly it (a test
compares the two). A third-party target says what it needs in these words, so that it is data only.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgepack.profiles.faults import Faults, did_you_mean

#: Tensor types of the TFLite schema (schema.fbs, enum TensorType).
TENSOR_TYPES = frozenset(
    {
        "FLOAT64", "FLOAT32", "FLOAT16", "BFLOAT16", "COMPLEX64", "COMPLEX128", "BOOL", "STRING", "RESOURCE", "VARIANT",
        "INT2", "INT4", "INT8", "INT16", "INT32", "INT64", "UINT4", "UINT8", "UINT16", "UINT32", "UINT64",
    }
)  # fmt: skip

ACTIVATIONS = frozenset({"NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT", "SIGMOID"})

#: Parts an op's tensors play. `data` is every input and output that carries activations; `input`, `output` and `inputN`
#: (N counts from 0) are narrower and win over it.
ROLES = frozenset({"data", "input", "output", "weights", "bias", "parameter", "state"})

BROADCAST_FORMS = frozenset({"none", "numpy", "gpu-legacy"})

#: What can be measured on an op, for `range`, `multiple-of` and `equal-quantities`. Sizes are in elements.
QUANTITIES: Mapping[str, str] = {
    "aligned_resize_factor_h": "(output height - 1) divided by (input height - 1), the factor with aligned corners",
    "aligned_resize_factor_w": "(output width - 1) divided by (input width - 1), the factor with aligned corners",
    "alpha": "slope of a leaky activation",
    "arch": "Hexagon architecture of the chip (73 for v73); unknown unless a SoC is given",
    "axes": "number of axes the op works along",
    "batch": "first dimension of the first data input, 1 below rank 2",
    "beta": "beta of SOFTMAX",
    "bias_bits": "bits needed by the largest bias value, sign included; 0 without bias",
    "block_size": "block size of SPACE_TO_DEPTH or DEPTH_TO_SPACE",
    "cell_clip": "cell clip of an LSTM",
    "constant_inputs": "number of constant inputs",
    "depth_multiplier": "depth multiplier of DEPTHWISE_CONV_2D",
    "dilated_kernel_area": "dilated kernel height times dilated kernel width",
    "dilated_kernel_h": "(kernel height - 1) * dilation + 1",
    "dilated_kernel_w": "(kernel width - 1) * dilation + 1",
    "dilation_h": "dilation along the height",
    "dilation_w": "dilation along the width",
    "dimension": "largest dimension of any data tensor",
    "groups": "input channels divided by the filter's channels (CONV_2D)",
    "input_area": "height times width of the first data input",
    "input_c": "channels (last dimension) of the first data input",
    "input_elements": "elements of the first data input",
    "input_h": "height (third dimension from the end) of the first data input",
    "input_rank": "rank of the first data input",
    "input_w": "width (second dimension from the end) of the first data input",
    "inputs": "number of inputs, absent optional ones not counted",
    "kept_before_squeezed": "dimensions above 1 that stand before one SQUEEZE removes",
    "kernel_area": "kernel height times kernel width",
    "kernel_h": "kernel height of a convolution or pool",
    "kernel_w": "kernel width of a convolution or pool",
    "output_c": "channels (last dimension) of the first output",
    "output_elements": "elements of the first output",
    "output_h": "height (third dimension from the end) of the first output",
    "output_rank": "rank of the first output",
    "output_w": "width (second dimension from the end) of the first output",
    "outputs": "number of outputs",
    "pad_h": "rows that padding SAME really adds to a convolution's or pool's input, 0 for VALID",
    "pad_w": "columns that padding SAME really adds to a convolution's or pool's input, 0 for VALID",
    "padding_rows": "rows of the paddings tensor",
    "proj_clip": "projection clip of an LSTM",
    "reduced_c": "channels reduced, 1 when the channel axis is not",
    "reduced_elements": "product of the reduced dimensions",
    "reduced_h": "height reduced, 1 when the height axis is not",
    "reduced_w": "width reduced, 1 when the width axis is not",
    "resize_factor_h": "output height divided by input height",
    "resize_factor_w": "output width divided by input width",
    "runtime_inputs": "number of inputs that are not constant",
    "runtime_version": "runtime version the file is compiled for; the newest unless --runtime-version is given",
    "slice_stride": "largest absolute stride of STRIDED_SLICE",
    "slice_stride_c": "stride of STRIDED_SLICE along the channels (last dimension)",
    "slice_stride_min": "smallest stride of STRIDED_SLICE, sign included",
    "soc_float16": "1 when the chip computes in float16, 0 when it does not; unknown unless a SoC is given",
    "stride_h": "stride along the height",
    "stride_w": "stride along the width",
    "weights_abs_sum": "largest sum of absolute weights of one output channel, zero point taken off",
    "weights_rank": "rank of the weights",
}


@dataclass(frozen=True)
class Constraint:
    """One word of the vocabulary.

    Attributes:
        id: Key in op tables.
        argument: What the argument is, for the documentation.
        validate: Called with (argument, key path, faults); adds a fault for everything wrong in the argument.
        merges: True when a row's table is laid over the default's key by key; otherwise the row's argument replaces it.
    """

    id: str
    argument: str
    validate: Callable[[Any, str, Faults], None]
    merges: bool = False


def validate_constraints(table: Mapping[str, Any], path: str, faults: Faults, *, may_cancel: bool = True) -> None:
    """Check a table of constraints.

    Args:
        table: Constraint id -> argument, as read from TOML.
        path: Key path for messages.
        faults: Where faults are added.
        may_cancel: Whether `false` may stand for "the default does not hold here".
    """
    for key, argument in table.items():
        constraint = CONSTRAINTS.get(key)
        if constraint is None:
            faults.add(f"{path}.{key}", f"unknown constraint{did_you_mean(key, CONSTRAINTS)}")
        elif argument is False and may_cancel:
            continue
        else:
            constraint.validate(argument, f"{path}.{key}", faults)


def _flag(value: Any, path: str, faults: Faults) -> None:
    if value is not True:
        faults.expected(path, "true", value)


def _count(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        faults.expected(path, "an integer from 0", value)


def _integers(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list) or not value:
        faults.expected(path, "a list of integers", value)
        return
    for i, item in enumerate(value):
        if not isinstance(item, int) or isinstance(item, bool):
            faults.expected(f"{path}[{i}]", "an integer", item)


def _names(choices: frozenset[str], what: str) -> Callable[[Any, str, Faults], None]:
    def validate(value: Any, path: str, faults: Faults) -> None:
        if not isinstance(value, list) or not value:
            faults.expected(path, f"a list of {what}", value)
            return
        for i, item in enumerate(value):
            if not isinstance(item, str) or (choices and item not in choices):
                faults.choice(f"{path}[{i}]", sorted(choices), item)

    return validate


_types = _names(TENSOR_TYPES, "tensor types")
_ops = _names(frozenset(), "op names")


def _is_role(role: str) -> bool:
    return role in ROLES or re.fullmatch(r"input\d+", role) is not None


def _types_by_role(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, dict) or not value:
        faults.expected(path, "a table of roles and lists of tensor types", value)
        return
    for role, types in value.items():
        if not _is_role(role):
            faults.choice(f"{path}.{role}", [*sorted(ROLES), "inputN"], role)
        else:
            _types(types, f"{path}.{role}", faults)


def _roles(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list) or not value:
        faults.expected(path, "a list of roles", value)
        return
    for i, role in enumerate(value):
        if not isinstance(role, str) or not _is_role(role):
            faults.choice(f"{path}[{i}]", [*sorted(ROLES), "inputN"], role)


def _pairs(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list) or not value:
        faults.expected(path, "a list of pairs [input type, output type]", value)
        return
    for i, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            faults.expected(f"{path}[{i}]", "a pair [input type, output type]", pair)
        else:
            _types(pair, f"{path}[{i}]", faults)


def _quantity(name: str, path: str, faults: Faults) -> bool:
    if name in QUANTITIES:
        return True
    faults.add(path, f"unknown quantity '{name}'{did_you_mean(name, QUANTITIES)}")
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ranges(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, dict) or not value:
        faults.expected(path, "a table of quantities and [lowest, highest]", value)
        return
    for name, bounds in value.items():
        if not _quantity(name, f"{path}.{name}", faults):
            continue
        if not isinstance(bounds, list) or len(bounds) != 2 or not all(_is_number(b) for b in bounds):
            faults.expected(f"{path}.{name}", "[lowest, highest]", bounds)
        elif bounds[0] > bounds[1]:
            faults.expected(f"{path}.{name}", "lowest <= highest", bounds)


def _multiples(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, dict) or not value:
        faults.expected(path, "a table of quantities and integers", value)
        return
    for name, factor in value.items():
        if _quantity(name, f"{path}.{name}", faults) and (
            not isinstance(factor, int) or isinstance(factor, bool) or factor < 1
        ):
            faults.expected(f"{path}.{name}", "an integer from 1", factor)


def _equals(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list) or not value:
        faults.expected(path, "a list of pairs of quantities", value)
        return
    for i, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            faults.expected(f"{path}[{i}]", "a pair of quantities", pair)
            continue
        for name in pair:
            _quantity(name, f"{path}[{i}]", faults)


def _options(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, dict) or not value:
        faults.expected(path, "a table of options and lists of allowed values", value)
        return
    for name, allowed in value.items():
        if not isinstance(allowed, list) or not allowed:
            faults.expected(f"{path}.{name}", "a list of allowed values", allowed)


def _broadcast(value: Any, path: str, faults: Faults) -> None:
    if value not in BROADCAST_FORMS:
        faults.choice(path, sorted(BROADCAST_FORMS), value)


def _permutations(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list) or not value:
        faults.expected(path, "a list of permutations", value)
        return
    for i, permutation in enumerate(value):
        if not isinstance(permutation, list) or sorted(map(str, permutation)) != sorted(
            map(str, range(len(permutation)))
        ):
            faults.expected(f"{path}[{i}]", "a permutation of 0..rank-1", permutation)


def _branches(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list) or not value:
        faults.expected(path, "a list of tables with 'if' and 'then'", value)
        return
    for i, branch in enumerate(value):
        if not isinstance(branch, dict) or set(branch) != {"if", "then"}:
            faults.expected(f"{path}[{i}]", "a table with 'if' and 'then'", branch)
            continue
        for part in ("if", "then"):
            if not isinstance(branch[part], dict) or not branch[part]:
                faults.expected(f"{path}[{i}].{part}", "a table of constraints", branch[part])
            else:
                validate_constraints(branch[part], f"{path}[{i}].{part}", faults, may_cancel=False)


def _alternatives(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list) or len(value) < 2:
        faults.expected(path, "a list of at least two tables of constraints", value)
        return
    for i, table in enumerate(value):
        if not isinstance(table, dict) or not table:
            faults.expected(f"{path}[{i}]", "a table of constraints", table)
        else:
            validate_constraints(table, f"{path}[{i}]", faults, may_cancel=False)


_RANGE = "quantity = [lowest, highest], both included; `inf` for no limit"

#: The vocabulary, sorted by id.
CONSTRAINTS: Mapping[str, Constraint] = {
    constraint.id: constraint
    for constraint in (
        Constraint("any-of", "list of tables of constraints", _alternatives),
        Constraint("axes-within", "list of axes, counted from 0", _integers),
        Constraint("broadcast", "`none`, `numpy` or `gpu-legacy`", _broadcast),
        Constraint("constant-inputs", "list of input positions, counted from 0", _integers),
        Constraint("consumers", "list of op names", _ops),
        Constraint("dense-weights", "true", _flag),
        Constraint("dtype-pairs", "list of [input type, output type]", _pairs),
        Constraint("dtypes", "role = list of tensor types", _types_by_role, merges=True),
        Constraint("equal-quantities", "list of pairs of quantities", _equals),
        Constraint("exact-version", "list of op versions", _integers),
        Constraint("forbidden-axes", "list of axes; negative ones count from the last", _integers),
        Constraint("fused-activation", "list of activations", _names(ACTIVATIONS, "activations")),
        Constraint("max-effective-rank", "number of innermost dimensions", _count),
        Constraint("max-rank", "number of dimensions", _count),
        Constraint("max-version", "op version", _count),
        Constraint("min-runtime", "runtime version", _count),
        Constraint("multiple-of", "quantity = factor", _multiples, merges=True),
        Constraint("one-dimensional", "list of roles", _roles),
        Constraint("options", "option = list of allowed values", _options, merges=True),
        Constraint("per-tensor-data", "true", _flag),
        Constraint("per-tensor-weights", "true", _flag),
        Constraint("permutations", "list of permutations", _permutations),
        Constraint("producers", "list of op names", _ops),
        Constraint("quantized", "list of roles", _roles),
        Constraint("range", _RANGE, _ranges, merges=True),
        Constraint("runtime-inputs-only", "list of input positions, counted from 0", _integers),
        Constraint("same-dtype", "list of roles", _roles),
        Constraint("same-quantization", "true", _flag),
        Constraint("same-shape", "list of roles", _roles),
        Constraint("static-shapes", "true", _flag),
        Constraint("when", "list of tables with `if` and `then`, both tables of constraints", _branches),
        Constraint("zero-constants", "true", _flag),
    )
}
