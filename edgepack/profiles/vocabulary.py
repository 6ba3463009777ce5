"""The vocabulary of op tables: constraint ids with their arguments, and the quantities that can be measured.

`edgepack.profiles.load` validates op tables with this vocabulary, and `edgepack.compat` implements it (a test compares
the two). It lets a third-party target consist of data only.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgepack.profiles.faults import (
    LARGEST_INTEGER,
    Faults,
    did_you_mean,
    integer_fault,
    is_finite,
    is_integer,
    is_number,
)

#: Called with (argument, key path, faults); adds a fault for everything that is wrong in the argument.
Validator = Callable[[Any, str, Faults], None]

#: Tensor types of the TFLite schema (schema.fbs, enum TensorType).
TENSOR_TYPES = frozenset(
    {
        "FLOAT64", "FLOAT32", "FLOAT16", "BFLOAT16", "COMPLEX64", "COMPLEX128", "BOOL", "STRING", "RESOURCE", "VARIANT",
        "INT2", "INT4", "INT8", "INT16", "INT32", "INT64", "UINT4", "UINT8", "UINT16", "UINT32", "UINT64",
    }
)  # fmt: skip

ACTIVATIONS = frozenset({"NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT", "SIGMOID"})

#: Roles of an op's tensors. `data` is every input and output that carries activations; `input`, `output` and `inputN`
#: (N counts from 0) are narrower and override it.
ROLES = frozenset({"data", "input", "output", "weights", "bias", "parameter", "state"})

BROADCAST_FORMS = frozenset({"none", "numpy", "gpu-legacy"})

#: Quantities that can be measured on an op, for `range`, `multiple-of` and `equal-quantities`. Sizes are in elements.
QUANTITIES: Mapping[str, str] = {
    "aligned_resize_factor_h": "(output height - 1) divided by (input height - 1), the factor with aligned corners",
    "aligned_resize_factor_w": "(output width - 1) divided by (input width - 1), the factor with aligned corners",
    "alpha": "slope of a leaky activation",
    "arch": "Hexagon architecture of the SoC (73 for v73); unknown unless a SoC is specified",
    "axes": "number of axes the op works along",
    "batch": "first dimension of the first data input, 1 below rank 2",
    "beta": "beta of SOFTMAX",
    "bias_bits": "bits needed by the largest bias value, sign included; 0 without bias",
    "block_size": "block size of SPACE_TO_DEPTH or DEPTH_TO_SPACE",
    "broadcast_else": "1 when the third input of SELECT_V2 is an input of the compiled graph with fewer elements than "
    "the output, and more than one; else 0",
    "broadcast_then": "1 when the second input of SELECT_V2 is an input of the compiled graph with fewer elements than "
    "the output, and more than one; else 0",
    "cell_clip": "cell clip of an LSTM",
    "constant_inputs": "number of constant inputs",
    "depth_multiplier": "depth multiplier of DEPTHWISE_CONV_2D",
    "dilated_kernel_area": "dilated kernel height times dilated kernel width",
    "dilated_kernel_h": "(kernel height - 1) * dilation + 1",
    "dilated_kernel_w": "(kernel width - 1) * dilation + 1",
    "dilation_h": "dilation along the height",
    "dilation_w": "dilation along the width",
    "dimension": "largest dimension of any data tensor",
    "entering_inputs": "number of inputs that are inputs of the compiled graph",
    "float_masks": "number of inputs that a comparison of floats computes, or logic on such inputs alone",
    "groups": "input channels divided by the filter's channels (CONV_2D)",
    "index_rank": "number of dimensions of the second input, the indices of GATHER",
    "input_area": "height times width of the first data input",
    "input_c": "channels (last dimension) of the first data input",
    "input_elements": "elements of the first data input",
    "input_h": "height (third dimension from the end) of the first data input",
    "input_rank": "rank of the first data input",
    "input_w": "width (second dimension from the end) of the first data input",
    "inputs": "number of inputs, without absent optional ones",
    "kept_before_squeezed": "number of dimensions above 1 before the last one that SQUEEZE removes",
    "kernel_area": "kernel height times kernel width",
    "kernel_h": "kernel height of a convolution or pool",
    "kernel_w": "kernel width of a convolution or pool",
    "matrices": "number of products that BATCH_MATMUL computes, the product of all dimensions but the last two",
    "output_c": "channels (last dimension) of the first output",
    "output_elements": "elements of the first output",
    "output_h": "height (third dimension from the end) of the first output",
    "output_rank": "rank of the first output",
    "output_w": "width (second dimension from the end) of the first output",
    "outputs": "number of outputs",
    "pad_h": "rows that padding SAME adds to the input of a convolution or pool, 0 for VALID",
    "pad_w": "columns that padding SAME adds to the input of a convolution or pool, 0 for VALID",
    "padding_rows": "rows of the paddings tensor",
    "proj_clip": "projection clip of an LSTM",
    "reduced_c": "number of channels reduced, 1 when the channel axis is not reduced",
    "reduced_elements": "product of the reduced dimensions",
    "reduced_h": "height reduced, 1 when the height axis is not reduced",
    "reduced_w": "width reduced, 1 when the width axis is not reduced",
    "resize_factor_h": "output height divided by input height",
    "resize_factor_w": "output width divided by input width",
    "runtime_inputs": "number of inputs that are not constant",
    "runtime_version": "runtime version that the file is compiled for; the newest unless --runtime-version is set",
    "slice_stride": "largest absolute stride of STRIDED_SLICE",
    "slice_stride_c": "stride of STRIDED_SLICE along the channels (last dimension)",
    "slice_stride_min": "smallest stride of STRIDED_SLICE, sign included",
    "soc_float16": "1 when the SoC computes in float16, 0 when it does not; unknown unless a SoC is specified",
    "stride_h": "stride along the height",
    "stride_w": "stride along the width",
    "weights_abs_sum": "largest sum of absolute weights of one output channel, zero point subtracted",
    "weights_rank": "rank of the weights",
}


#: Quantities that can be negative; the others are sizes and counts.
_SIGNED = frozenset({"alpha", "beta", "slice_stride_c", "slice_stride_min"})

#: More dimensions than any TFLite kernel supports, as in `edgepack.graph.read`.
_MOST_DIMENSIONS = 32

#: Inputs that positions can name, far above the inputs of any op whose positions differ in meaning.
_MOST_INPUTS = 1 << 10

OP_NAME = "a TFLite builtin name or CUSTOM:name"


@dataclass(frozen=True)
class Constraint:
    """A constraint of the vocabulary.

    Attributes:
        id: Key in op tables.
        argument: Form of the argument, for the documentation.
        validate: Validates an argument.
        merges: True when a row's table overrides the default's key by key; otherwise the row's argument replaces it.
    """

    id: str
    argument: str
    validate: Validator
    merges: bool = False


def validate_constraints(table: Mapping[str, Any], path: str, faults: Faults, *, may_cancel: bool = True) -> None:
    """Validate a table of constraints.

    Args:
        table: Constraint id -> argument, as read from TOML.
        path: Key path for messages.
        faults: Where faults are added.
        may_cancel: Whether `false` is allowed, which cancels the default for a row.
    """
    for key, argument in table.items():
        constraint = CONSTRAINTS.get(key)
        if constraint is None:
            faults.add(f"{path}.{key}", f"unknown constraint{did_you_mean(key, CONSTRAINTS)}")
        elif argument is False and may_cancel:
            continue
        else:
            constraint.validate(argument, f"{path}.{key}", faults)


def _list_of(check: Validator, what: str, *, lowest: int = 1) -> Validator:
    """Return a validator for lists with at least `lowest` entries, each of which passes `check`."""

    def validate(value: Any, path: str, faults: Faults) -> None:
        if not isinstance(value, list) or len(value) < lowest:
            faults.expected(path, what, value)
            return
        for i, entry in enumerate(value):
            check(entry, f"{path}[{i}]", faults)

    return validate


def _table_of(check: Callable[[str, Any, str, Faults], None], what: str) -> Validator:
    """Return a validator for tables that are not empty, each entry of which passes `check(key, value, ...)`."""

    def validate(value: Any, path: str, faults: Faults) -> None:
        if not isinstance(value, dict) or not value:
            faults.expected(path, what, value)
            return
        for key, entry in value.items():
            check(key, entry, f"{path}.{key}", faults)

    return validate


def _one_of(choices: frozenset[str]) -> Validator:
    def validate(value: Any, path: str, faults: Faults) -> None:
        if not isinstance(value, str) or value not in choices:
            faults.choice(path, sorted(choices), value)

    return validate


def _flag(value: Any, path: str, faults: Faults) -> None:
    if value is not True:
        faults.expected(path, "true", value)


def _integer_from(lowest: int, highest: int = LARGEST_INTEGER) -> Validator:
    def validate(value: Any, path: str, faults: Faults) -> None:
        if what := integer_fault(value, lowest, highest):
            faults.expected(path, what, value)

    return validate


def is_op_name(value: Any) -> bool:
    """Return whether a TOML value is a TFLite builtin name or CUSTOM:name."""
    return isinstance(value, str) and re.fullmatch(r"[A-Z][A-Z0-9_]*|CUSTOM:\S.*", value) is not None


def _op_name(value: Any, path: str, faults: Faults) -> None:
    if not is_op_name(value):
        faults.expected(path, OP_NAME, value)


def _role(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, str) or not (value in ROLES or re.fullmatch(r"input[0-9]{1,9}", value)):
        faults.choice(path, [*sorted(ROLES), "inputN"], value)


def _types_of_role(role: str, types: Any, path: str, faults: Faults) -> None:
    before = len(faults.messages)
    _role(role, path, faults)
    if len(faults.messages) == before:
        _types(types, path, faults)


def _type_pair(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list) or len(value) != 2:
        faults.expected(path, "a pair [input type, output type]", value)
    else:
        _types(value, path, faults)


def _signature(value: Any, path: str, faults: Faults) -> None:
    parts = value.split(" -> ") if isinstance(value, str) else []
    names = [name for part in parts for name in part.split(",")]
    if len(parts) != 2 or not set(names) <= TENSOR_TYPES:
        faults.expected(path, "data types of inputs and outputs such as 'INT8,INT32 -> INT8'", value)


def _is_quantity(name: str, path: str, faults: Faults) -> bool:
    if name in QUANTITIES:
        return True
    faults.add(path, f"unknown quantity '{name}'{did_you_mean(name, QUANTITIES)}")
    return False


def _quantity_range(name: str, bounds: Any, path: str, faults: Faults) -> None:
    if not _is_quantity(name, path, faults):
        return
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(map(is_number, bounds)):
        faults.expected(path, "[lowest, highest]", bounds)
    elif bounds[0] > bounds[1] or (bounds[0] == bounds[1] and not is_finite(bounds[0])):
        faults.expected(path, "lowest <= highest", bounds)
    elif name not in _SIGNED and any(bound < 0 and bound != -math.inf for bound in bounds):
        faults.expected(path, f"bounds of 0 or more, because {name} is never negative", bounds)


def _quantity_factor(name: str, factor: Any, path: str, faults: Faults) -> None:
    if _is_quantity(name, path, faults) and (what := integer_fault(factor, 1)):
        faults.expected(path, what, factor)


def _quantity_pair(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(name, str) for name in value):
        faults.expected(path, "a pair of quantities", value)
        return
    for name in value:
        _is_quantity(name, path, faults)


def _option_values(name: str, allowed: Any, path: str, faults: Faults) -> None:
    if not isinstance(allowed, list) or not allowed:
        faults.expected(path, "a list of allowed values", allowed)
        return
    for i, value in enumerate(allowed):
        if not isinstance(value, str | bool) and not is_finite(value):
            faults.expected(f"{path}[{i}]", "a string, a finite number, true or false", value)


def _permutation(value: Any, path: str, faults: Faults) -> None:
    whole = isinstance(value, list) and value and all(map(is_integer, value))
    if not whole or sorted(value) != list(range(len(value))):
        faults.expected(path, "a permutation of 0..rank-1", value)


def _nested(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, dict) or not value:
        faults.expected(path, "a table of constraints", value)
    else:
        validate_constraints(value, path, faults, may_cancel=False)


def _branch(value: Any, path: str, faults: Faults) -> None:
    if not isinstance(value, dict) or set(value) != {"if", "then"}:
        faults.expected(path, "a table with 'if' and 'then'", value)
        return
    for part in ("if", "then"):
        _nested(value[part], f"{path}.{part}", faults)


_types = _list_of(_one_of(TENSOR_TYPES), "a list of tensor types")
_ops = _list_of(_op_name, "a list of op names")
_count = _integer_from(0)
_version = _integer_from(1)
_positions = _list_of(_integer_from(0, _MOST_INPUTS - 1), "a list of input positions")
_axes = _list_of(_integer_from(-_MOST_DIMENSIONS, _MOST_DIMENSIONS - 1), "a list of axes")
_versions = _list_of(_version, "a list of op versions")
_roles = _list_of(_role, "a list of roles")
_activations = _list_of(_one_of(ACTIVATIONS), "a list of activations")
_types_by_role = _table_of(_types_of_role, "a table of roles and lists of tensor types")
_type_pairs = _list_of(_type_pair, "a list of pairs [input type, output type]")
_ranges = _table_of(_quantity_range, "a table of quantities and [lowest, highest]")
_factors = _table_of(_quantity_factor, "a table of quantities and integers")
_quantity_pairs = _list_of(_quantity_pair, "a list of pairs of quantities")
_options = _table_of(_option_values, "a table of options and lists of allowed values")
_permutations = _list_of(_permutation, "a list of permutations")
_branches = _list_of(_branch, "a list of tables with 'if' and 'then'")
_alternatives = _list_of(_nested, "a list of at least two tables of constraints", lowest=2)

_signatures = _list_of(_signature, "a list of data types of inputs and outputs")

_RANGE = "quantity = [lowest, highest], both inclusive; `inf` for no limit"

#: The vocabulary, sorted by id.
CONSTRAINTS: Mapping[str, Constraint] = {
    constraint.id: constraint
    for constraint in (
        Constraint("any-of", "list of tables of constraints", _alternatives),
        Constraint("axes-within", "list of axes; negative ones count from the last", _axes),
        Constraint("broadcast", "`none`, `numpy` or `gpu-legacy`", _one_of(BROADCAST_FORMS)),
        Constraint("constant-inputs", "list of input positions, counted from 0", _positions),
        Constraint("consumers", "list of op names", _ops),
        Constraint("dense-weights", "true", _flag),
        Constraint("dtype-pairs", "list of [input type, output type]", _type_pairs),
        Constraint("dtypes", "role = list of tensor types", _types_by_role, merges=True),
        Constraint("equal-quantities", "list of pairs of quantities", _quantity_pairs),
        Constraint("exact-version", "list of op versions", _versions),
        Constraint("forbidden-axes", "list of axes; negative ones count from the last", _axes),
        Constraint("fused-activation", "list of activations", _activations),
        Constraint("max-effective-rank", "number of innermost dimensions", _count),
        Constraint("max-rank", "number of dimensions", _count),
        Constraint("max-version", "op version", _version),
        Constraint("min-runtime", "runtime version", _version),
        Constraint("multiple-of", "quantity = factor", _factors, merges=True),
        Constraint("one-dimensional", "list of roles", _roles),
        Constraint("options", "option = list of allowed values", _options, merges=True),
        Constraint("per-tensor-data", "true", _flag),
        Constraint("per-tensor-weights", "true", _flag),
        Constraint("permutations", "list of permutations", _permutations),
        Constraint("producers", "list of op names", _ops),
        Constraint("quantized", "list of roles", _roles),
        Constraint("range", _RANGE, _ranges, merges=True),
        Constraint("read-by", "list of op names", _ops),
        Constraint("runtime-inputs-only", "list of input positions, counted from 0", _positions),
        Constraint("same-dtype", "list of roles", _roles),
        Constraint("same-quantization", "true", _flag),
        Constraint("same-shape", "list of roles", _roles),
        Constraint("signatures", "list of data types, `INT8,INT32 -> INT8`", _signatures),
        Constraint("static-shapes", "true", _flag),
        Constraint("when", "list of tables with `if` and `then`, both tables of constraints", _branches),
        Constraint("written-shapes", "true", _flag),
        Constraint("zero-constants", "true", _flag),
    )
}
