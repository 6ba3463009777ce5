"""Rules on the whole file: what makes a compiler refuse it, and reasons that belong to no single op."""

from collections.abc import Sequence
from dataclasses import replace

from edgepack.choices import alternatives
from edgepack.compat.context import Context, tensor_label, written_name
from edgepack.compat.partition import RUN_OTHERS, Group
from edgepack.compat.reasons import reason
from edgepack.compat.rules import violations
from edgepack.compat.rules_shapes import signature
from edgepack.findings import Reason
from edgepack.graph import Graph, Model, Op
from edgepack.graph.external_state import StateOps, state_ops
from edgepack.graph.op_layout import STATE_OPS
from edgepack.graph.read import enum_names
from edgepack.profiles.model import FailingOps, FileRule, OpTable, TargetProfile
from edgepack.text import whole_number


def blockers(context: Context, model: Model, rule: FileRule | None) -> dict[int, Reason]:
    """Return the ops that make the compiler refuse the whole file, each with the reason.

    Args:
        context: The check.
        model: The model.
        rule: The compiler's requirements; None when there are none.
    """
    blocking: dict[int, Reason] = {}
    if rule is None:
        return blocking
    codes = {name: code for code, name in enum_names("BuiltinOperator").items()} if rule.max_builtin_code else {}
    for op in context.graph.ops:
        highest = rule.max_versions.get(op.label)
        code = codes.get(op.name, 0)
        if highest is not None and op.version > highest:
            blocking[op.index] = reason(
                "parser-version", f"expected {op.label} at version {highest} or lower in the file, got {op.version}"
            )
        elif code > rule.max_builtin_code > 0:
            blocking[op.index] = reason(
                "builtin-code", f"expected an operator code up to {rule.max_builtin_code}, got {code} ({op.label})"
            )
        elif rule.static_shapes:
            dynamic = next((t for t in context.graph.op_outputs(op) if t.index in context.dynamic_tensors), None)
            if dynamic is not None:
                blocking[op.index] = reason(
                    "dynamic-shape",
                    f"expected static shapes in the whole file, got a dynamic {tensor_label(dynamic, 'output')}",
                )
    outer = state_outside(model, rule)
    if rule.external_state:
        context = replace(context, state_fault=state_ops(model).fault)
    seen = [op for op in context.graph.ops if outer is None or op.name not in STATE_OPS]
    for op in seen:
        found = _failure(context, op, rule)
        if found is not None:
            blocking.setdefault(op.index, found)
    if len(model.graphs) > 1 and (rule.failing or rule.refused_types or not rule.variables):
        left_out = () if outer is None else outer.initializers
        graphs = [graph for number, graph in enumerate(model.graphs) if number and number not in left_out]
        runner = next((op.index for op in seen if op.name in RUN_OTHERS), None)
        blocking |= _failures_in_loops(context, graphs, runner, rule)
    return blocking


def state_outside(model: Model, rule: FileRule | None) -> StateOps | None:
    """Return the ops with which the state of a model stays on the host; None without them, or where they are refused.

    Args:
        model: The model.
        rule: The compiler's requirements; None when there are none.
    """
    if rule is None or not rule.external_state:
        return None
    state = state_ops(model)
    return state if state.ops and not state.fault else None


def _failures_in_loops(
    context: Context, graphs: Sequence[Graph], runner: int | None, rule: FileRule
) -> dict[int, Reason]:
    """Return the op that runs a subgraph (WHILE, IF) whose ops make the compiler fail: it compiles these as well."""
    if runner is None:
        return {}
    for graph in graphs:
        inner = replace(context, graph=graph)
        for op in graph.ops:
            found = _failure(inner, op, rule)
            if found is not None:
                return {runner: replace(found, message=f"in subgraph '{graph.name}': {found.message}")}
    return {}


def _failure(context: Context, op: Op, rule: FileRule) -> Reason | None:
    """Return why the compiler writes no file because of an op, None where it does."""
    graph = context.graph
    if failing := _failing(context, op, rule.failing):
        return _fails(op, failing)
    for tensor in (*graph.op_inputs(op), *graph.op_outputs(op)):
        if tensor is None:
            continue
        if tensor.dtype == "RESOURCE" and rule.external_state:
            return reason(
                "compile-fails",
                f"expected variables that can be kept outside of the compiled graph, but {context.state_fault}",
                fix="make the state an input and an output of the model, and keep it in the app",
            )
        if tensor.dtype in rule.refused_types:
            refused = f"{tensor_label(tensor, 'one')} is {tensor.dtype}"
            return reason(
                "compile-fails",
                f"expected no tensor of {alternatives(list(rule.refused_types))} in the whole file, but {refused}",
                fix="cut the ops that use it off the model, and run them in the app",
            )
        if tensor.dtype in rule.refused_io_types and tensor.index in {*graph.inputs, *graph.outputs}:
            return reason(
                "compile-fails",
                f"expected no input or output of the model in {alternatives(list(rule.refused_io_types))}, "
                f"got {tensor_label(tensor, 'one')}",
                fix="convert it to an integer inside the model, or cut the ops at this end off and run them in the app",
            )
        if tensor.is_variable and not rule.variables:
            return reason(
                "compile-fails",
                f"expected no variable tensor in the whole file, but {tensor_label(tensor, 'one')} keeps a state",
                fix="unroll the layer, or make its state an input and an output of the model",
            )
    return None


def partition_failures(context: Context, groups: Sequence[Group], rule: FileRule | None) -> dict[int, Reason]:
    """Return the ops with which the compiler writes no file once it is known what enters a compiled partition.

    Args:
        context: The check.
        groups: The ops of each partition.
        rule: The compiler's requirements; None when there are none.
    """
    if rule is None:
        return {}
    blocking = clashing_names(context.graph, groups, rule)
    inside = with_entering(context, groups)
    for index in sorted(index for group in groups for index in group.ops) if inside.entering else ():
        if found := _failing(inside, context.graph.ops[index], rule.failing):
            blocking.setdefault(index, _fails(context.graph.ops[index], found))
    return blocking


def with_entering(context: Context, groups: Sequence[Group]) -> Context:
    """Return the context of a check whose partitions are known, for rules about what enters them."""
    members = {index for group in groups for index in group.ops}
    read = {tensor for index in members for tensor in context.graph.ops[index].inputs}
    computed = {tensor for tensor in read if context.graph.producers.get(tensor, -1) not in {-1, *members}}
    return replace(context, entering=frozenset(computed))


def uncertain_ops(context: Context, groups: Sequence[Group], rule: FileRule | None) -> dict[int, FailingOps]:
    """Return the ops of partitions that the compiler accepts and then perhaps cannot build, with what is known.

    Args:
        context: The check.
        groups: The ops of each partition.
        rule: The compiler's requirements; None when there are none.
    """
    if rule is None or not rule.uncertain:
        return {}
    inside = with_entering(context, groups)
    ops = (context.graph.ops[index] for group in groups for index in group.ops)
    return {op.index: found for op in ops if (found := _failing(inside, op, rule.uncertain)) is not None}


def _failing(context: Context, op: Op, rules: Sequence[FailingOps]) -> FailingOps | None:
    return next(
        (rule for rule in rules if op.label in rule.ops and not violations(context, op, rule.constraints)), None
    )


def _fails(op: Op, rule: FailingOps) -> Reason:
    return reason("compile-fails", f"{op.label}: {rule.reason}", fix=rule.fix)


def clashing_names(graph: Graph, groups: Sequence[Group], rule: FileRule | None) -> dict[int, Reason]:
    """Return the ops at whose tensors a compiled partition would have two inputs or outputs of one name.

    Args:
        graph: The graph.
        groups: The ops of each partition.
        rule: The compiler's requirements; None when there are none.
    """
    blocking: dict[int, Reason] = {}
    if rule is None or not rule.distinct_names:
        return blocking
    for group in groups:
        known: dict[str, int] = {}
        for index, op in boundary(graph, group.ops):
            other = known.setdefault(written_name(graph.tensors[index].name), index)
            if other != index:
                names = f"'{graph.tensors[index].name}' and '{graph.tensors[other].name}'"
                blocking[op] = reason(
                    "compile-fails",
                    f"expected names that differ in letters or digits, but the tensors {names} are one to the compiler",
                    fix="build with edgepack, which renames one, or rename one of the layers",
                )
    return blocking


def boundary(graph: Graph, ops: Sequence[int]) -> list[tuple[int, int]]:
    """Return the tensors that a partition reads from outside or others read from it, each with an op of the partition.

    Args:
        graph: The graph.
        ops: Indices of the partition's ops.
    """
    inside = {tensor for index in ops for tensor in graph.ops[index].outputs}
    members = set(ops)
    found: dict[int, int] = {}
    for index in ops:
        op = graph.ops[index]
        for tensor in op.inputs:
            if tensor >= 0 and tensor not in inside and not graph.tensors[tensor].is_constant:
                found.setdefault(tensor, index)
        for tensor in op.outputs:
            if tensor in graph.outputs or not members.issuperset(graph.consumers.get(tensor, ())):
                found.setdefault(tensor, index)
    return sorted(found.items())


def model_reasons(context: Context, model: Model, profile: TargetProfile, table: OpTable) -> tuple[Reason, ...]:
    """Return the reasons that concern the whole model."""
    graph = model.main
    reasons = []
    if context.dynamic_tensors and ("static-shapes" in table.defaults or (table.file and table.file.static_shapes)):
        first = graph.tensors[min(context.dynamic_tensors)]
        count = len(context.dynamic_tensors)
        example = f"{tensor_label(first, 'one')} {signature(first)}"
        message = f"expected static shapes, got {count} dynamic tensors, the first {example}"
        reasons.append(reason("dynamic-shape", message))
    if profile.batch:
        for index in graph.inputs:
            tensor = graph.tensors[index]
            # Only with rank 4 is the first axis certainly the batch; a matrix may be one sample.
            if tensor.rank == 4 and tensor.shape[0] != profile.batch and not tensor.is_dynamic:
                message = (
                    f"expected batch size {profile.batch} for {tensor_label(tensor, 'input')}, got {tensor.shape[0]}"
                )
                reasons.append(reason("batch", message))
    outer = state_outside(model, table.file)
    count = len(model.graphs) - (0 if outer is None else len(outer.initializers))
    if count > 1:
        reasons.append(reason("several-subgraphs", f"expected one subgraph, got {count}"))
    limit = table.file.max_runtime_version if table.file else ""
    if limit and _version(model.min_runtime_version) > _version(limit):
        message = f"expected a min_runtime_version of {limit} or lower, got {model.min_runtime_version}"
        reasons.append(reason("min-runtime-version", message))
    return tuple(reasons)


def _version(text: str) -> tuple[int, ...]:
    """Return the first two numbers of `2.6.0`, empty when there are none."""
    numbers = [whole_number(part) for part in text.split(".")[:2]]
    return () if None in numbers else tuple(number for number in numbers if number is not None)
