"""The ops that run on an accelerator, without reasons: what a search needs of a check, for many variants of a model."""

import math
from collections.abc import Mapping
from typing import Any

from edgepack.compat.context import Context
from edgepack.compat.file_rules import blockers, partition_failures, state_outside, uncertain_ops
from edgepack.compat.partition import Group, choose, partition
from edgepack.compat.rules import violations
from edgepack.graph import Graph, Model, Op
from edgepack.graph.memo import Memo
from edgepack.profiles.model import OpRule, OpTable, Variant


def accelerated_ops(
    model: Model, variant: Variant, *, soc: Mapping[str, Any], runtime_version: int | None, memo: Memo
) -> frozenset[int]:
    """Return the indices of the ops that `check` places on the accelerator.

    Args:
        model: The model, as the target's compiler or delegate would receive it.
        variant: The target's variant.
        soc: Facts about the SoC; empty when none was specified.
        runtime_version: Runtime version to compile for; None for the newest.
        memo: Shared by the variants of a model that a search examines.
    """
    graph = model.main
    context = Context(graph, math.inf if runtime_version is None else runtime_version, soc)
    if blockers(context, model, variant.ops.file):
        return frozenset()
    supported = [_is_supported(context, op, variant.ops, memo) for op in graph.ops]
    ordered = state_outside(model, variant.ops.file) is None
    delegated = choose(partition(graph, supported, ordered=ordered), variant.partition)
    if partition_failures(context, delegated, variant.ops.file):
        return frozenset()
    return frozenset(index for group in delegated for index in group.ops)


def doubtful_ops(
    model: Model, variant: Variant, *, soc: Mapping[str, Any], runtime_version: int | None, memo: Memo
) -> frozenset[int]:
    """Return the indices of the ops on the accelerator with which the compiler perhaps fails.

    Args:
        model: As for `accelerated_ops`.
        variant: The target's variant.
        soc: Facts about the SoC; empty when none was specified.
        runtime_version: Runtime version to compile for; None for the newest.
        memo: As for `accelerated_ops`.
    """
    ops = accelerated_ops(model, variant, soc=soc, runtime_version=runtime_version, memo=memo)
    context = Context(model.main, math.inf if runtime_version is None else runtime_version, soc)
    return frozenset(uncertain_ops(context, [Group(True, tuple(sorted(ops)))], variant.ops.file))


def refuses_file(model: Model, variant: Variant, *, soc: Mapping[str, Any], runtime_version: int | None) -> bool:
    """Return whether the compiler refuses a model because of one op, although it runs others.

    Args:
        model: As for `accelerated_ops`.
        variant: The target's variant.
        soc: Facts about the SoC; empty when none was specified.
        runtime_version: Runtime version to compile for; None for the newest.
    """
    context = Context(model.main, math.inf if runtime_version is None else runtime_version, soc)
    return bool(blockers(context, model, variant.ops.file))


def _is_supported(context: Context, op: Op, table: OpTable, memo: Memo) -> bool:
    """Return whether an op has a row in the table and breaks none of its constraints.

    A rule reads the op's options and tensors, whether a tensor is constant or dynamic, and which kinds of ops write and
    read it. All of these are part of the key.
    """
    row = table.ops.get(op.label)
    if row is None:
        return False
    graph = context.graph
    indices = {*op.inputs, *op.outputs}
    facts: tuple[object, ...] = ()
    if not indices.isdisjoint(context.dequantized_constants) or not indices.isdisjoint(context.dynamic_tensors):
        facts = tuple((i in context.dequantized_constants, i in context.dynamic_tensors) for i in op.inputs)
        facts = (facts, *(i in context.dynamic_tensors for i in op.outputs))
    if memo.get((row,), ("neighbours",), lambda: _reads_neighbours(row)):
        written = (graph.ops[graph.producers[i]].label if i in graph.producers else "" for i in op.inputs)
        read = (
            (i in graph.outputs, *(graph.ops[reader].label for reader in graph.consumers.get(i, ())))
            for i in op.outputs
        )
        facts = (facts, *written, *read)

    def breaks_none(_: Graph, op: Op) -> bool:
        return not violations(context, op, row.constraints)

    return memo.about("supported", breaks_none, graph, op, *facts)


def _reads_neighbours(row: OpRule) -> bool:
    """Return whether a constraint depends on the ops around an op; `when` can contain such constraints as well."""
    constraints = repr(row.constraints)
    return any(rule in constraints for rule in ("consumers", "producers", "read-by"))
