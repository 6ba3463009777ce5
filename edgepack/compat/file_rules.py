"""What concerns the file as a whole: what makes a compiler refuse it, and reasons that belong to no single op."""

from edgepack.compat.context import Context, named
from edgepack.compat.reasons import reason
from edgepack.compat.rules_shapes import signature
from edgepack.findings import Reason
from edgepack.graph import Model
from edgepack.graph.read import enum_names
from edgepack.profiles.model import FileRule, OpTable, TargetProfile


def blockers(context: Context, model: Model, rule: FileRule | None) -> dict[int, Reason]:
    """Return the ops because of which the compiler refuses the whole file, with the reason.

    Args:
        context: The check.
        model: The model.
        rule: What the compiler demands, None when it demands nothing.
    """
    found: dict[int, Reason] = {}
    if rule is None:
        return found
    codes = {name: code for code, name in enum_names("BuiltinOperator").items()} if rule.max_builtin_code else {}
    for op in context.graph.ops:
        highest = rule.max_versions.get(op.label)
        code = codes.get(op.name, 0)
        if highest is not None and op.version > highest:
            found[op.index] = reason(
                "parser-version", f"expected {op.label} at version {highest} at most in the file, got {op.version}"
            )
        elif code > rule.max_builtin_code > 0:
            found[op.index] = reason(
                "builtin-code", f"expected an operator code up to {rule.max_builtin_code}, got {code} ({op.label})"
            )
        elif rule.static_shapes:
            dynamic = next((t for t in context.graph.op_outputs(op) if t.index in context.dynamic_tensors), None)
            if dynamic is not None:
                found[op.index] = reason(
                    "dynamic-shape",
                    f"expected static shapes in the whole file, got a dynamic {named(dynamic, 'output')}",
                )
    return found


def model_reasons(context: Context, model: Model, profile: TargetProfile, table: OpTable) -> tuple[Reason, ...]:
    """Return the reasons that concern the whole model."""
    graph = model.main
    found = []
    if context.dynamic_tensors and ("static-shapes" in table.defaults or (table.file and table.file.static_shapes)):
        first = graph.tensors[min(context.dynamic_tensors)]
        count = len(context.dynamic_tensors)
        message = (
            f"expected static shapes, got {count} dynamic tensors, the first {named(first, 'one')} {signature(first)}"
        )
        found.append(reason("dynamic-shape", message))
    if profile.batch:
        for index in graph.inputs:
            tensor = graph.tensors[index]
            # Only images and the like have a batch axis for certain; a matrix may be one sample.
            if tensor.rank == 4 and tensor.shape[0] != profile.batch and not tensor.is_dynamic:
                message = f"expected batch size {profile.batch} for {named(tensor, 'input')}, got {tensor.shape[0]}"
                found.append(reason("batch", message))
    if len(model.graphs) > 1:
        found.append(reason("several-subgraphs", f"expected one subgraph, got {len(model.graphs)}"))
    limit = table.file.max_runtime_version if table.file else ""
    if limit and _version(model.min_runtime_version) > _version(limit):
        message = f"expected a min_runtime_version of {limit} at most, got {model.min_runtime_version}"
        found.append(reason("min-runtime-version", message))
    return tuple(found)


def _version(text: str) -> tuple[int, ...]:
    """Return the first two numbers of `2.6.0`, empty when there are none."""
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
