"""The rules: one function per constraint of the vocabulary. Its docstring is the rule's text in the documentation.

A rule is called with (context, op, argument) and returns the reasons why the op is refused; none when it is accepted.
"""

from collections.abc import Callable, Mapping
from typing import Any

from edgepack.compat import rules_shapes, rules_types, rules_values
from edgepack.compat.context import Context
from edgepack.findings import Reason
from edgepack.graph import Op

Rule = Callable[[Context, Op, Any], list[Reason]]


def when(context: Context, op: Op, argument: list[dict[str, Any]]) -> list[Reason]:
    """If all constraints under `if` are met, those under `then` must be met as well."""
    reasons: list[Reason] = []
    for branch in argument:
        if not violations(context, op, branch["if"]):
            reasons.extend(violations(context, op, branch["then"]))
    return reasons


def any_of(context: Context, op: Op, argument: list[dict[str, Any]]) -> list[Reason]:
    """At least one table of constraints must be met; otherwise the reasons of the one with the fewest are reported."""
    alternatives = [violations(context, op, table) for table in argument]
    return min(alternatives, key=len, default=[])


#: One rule for each constraint of `edgepack.profiles.vocabulary`; a test compares the two.
RULES: Mapping[str, Rule] = {
    "any-of": any_of,
    "axes-within": rules_values.axes_within,
    "broadcast": rules_shapes.broadcast,
    "constant-inputs": rules_values.constant_inputs,
    "consumers": rules_values.consumers,
    "dense-weights": rules_types.dense_weights,
    "dtype-pairs": rules_types.dtype_pairs,
    "dtypes": rules_types.dtypes,
    "equal-quantities": rules_values.equal_quantities,
    "exact-version": rules_values.exact_version,
    "forbidden-axes": rules_values.forbidden_axes,
    "fused-activation": rules_values.fused_activation,
    "max-effective-rank": rules_shapes.max_effective_rank,
    "max-rank": rules_shapes.max_rank,
    "max-version": rules_values.max_version,
    "min-runtime": rules_values.min_runtime,
    "multiple-of": rules_values.multiple_of,
    "one-dimensional": rules_shapes.one_dimensional,
    "options": rules_values.options,
    "per-tensor-data": rules_types.per_tensor_data,
    "per-tensor-weights": rules_types.per_tensor_weights,
    "permutations": rules_shapes.permutations,
    "producers": rules_values.producers,
    "quantized": rules_types.quantized,
    "range": rules_values.in_range,
    "read-by": rules_values.read_by,
    "runtime-inputs-only": rules_values.runtime_inputs_only,
    "same-dtype": rules_types.same_dtype,
    "same-quantization": rules_types.same_quantization,
    "same-shape": rules_shapes.same_shape,
    "signatures": rules_types.signatures,
    "static-shapes": rules_shapes.static_shapes,
    "when": when,
    "written-shapes": rules_shapes.written_shapes,
    "zero-constants": rules_values.zero_constants,
}


def violations(context: Context, op: Op, constraints: Mapping[str, Any]) -> list[Reason]:
    """Return the reasons of all constraints that the op breaks, in the table's order, without repetitions."""
    reasons: dict[tuple[str, str], Reason] = {}
    for constraint, argument in constraints.items():
        for reason in RULES[constraint](context, op, argument):
            reasons.setdefault((reason.code, reason.message), reason)
    return list(reasons.values())
