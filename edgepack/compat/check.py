"""Graph x profile -> Report: every op placed, with reasons. Pure."""

import math
from collections.abc import Sequence
from dataclasses import replace

from edgepack.compat import estimates
from edgepack.compat.context import Context
from edgepack.compat.file_rules import blockers, model_reasons
from edgepack.compat.partition import Group, blocking_ops, choose, partition
from edgepack.compat.reasons import reason
from edgepack.compat.rules import violations
from edgepack.compat.runtime_support import EDGETPU_OP, custom_reason, missing_kernel
from edgepack.findings import OpFinding, Placement, Reason, Report
from edgepack.graph import Graph, Model, Op
from edgepack.profiles.model import OpTable, PartitionRule, TargetProfile
from edgepack.profiles.variants import choose_variant, soc_model


def check(
    model: Model, profile: TargetProfile, *, variant: str = "", soc: str = "", runtime_version: int | None = None
) -> Report:
    """Place every op of a model's main graph on a target.

    Args:
        model: The model, as it would be given to the target's compiler or delegate.
        profile: The target.
        variant: Id of the profile's variant; empty for the chip's, or else the default.
        soc: SoC model that selects the variant and answers rules about the chip.
        runtime_version: Runtime version to compile for; None for the newest.

    Returns:
        The report. `compatible` is False when an op runs nowhere, or when an op is left to the host and the profile
        denies that.

    Raises:
        UsageError: The profile has no such variant or chip.
    """
    chosen = choose_variant(profile, variant=variant, soc=soc)
    graph = model.main
    context = Context(
        graph,
        math.inf if runtime_version is None else runtime_version,
        profile.socs.get(soc_model(profile, soc), {}),
    )
    nowhere = [_runs_nowhere(context, op) for op in graph.ops]
    reasons = [_op_reasons(context, op, chosen.ops, profile.title) for op in graph.ops]
    if profile.compiler is None and profile.bundle.delegate == "none":
        reasons = [found if nowhere[i] else _on_built_in_kernels(found) for i, found in enumerate(reasons)]
    refusals = blockers(context, model, chosen.ops.file)
    for index, found in refusals.items():
        reasons[index] = (*reasons[index], found)
    supported = [not found for found in reasons]
    groups = [] if refusals else partition(graph, supported)
    taken = choose(groups, chosen.partition)
    on_accelerator = {index for group in taken for index in group.ops}
    if refusals:
        culprit = min(refusals)
        reasons = [found or (_refused_with(graph, culprit),) for found in reasons]
    else:
        reasons = _outside(graph, reasons, groups, on_accelerator, chosen.partition)

    findings = tuple(
        OpFinding(
            index=op.index,
            op=op.label,
            version=op.version,
            output=graph.output_name(op),
            placement=_placement(op.index in on_accelerator, nowhere[op.index]),
            reasons=() if op.index in on_accelerator else reasons[op.index],
        )
        for op in graph.ops
    )
    hosted = sum(1 for finding in findings if finding.placement is Placement.HOST)
    unsupported = any(finding.placement is Placement.UNSUPPORTED for finding in findings)
    figures: dict[str, object] = {}
    notes = []
    if profile.memory is not None and on_accelerator and not _is_compiled(graph):
        figures, sentence = estimates.memory(graph, sorted(on_accelerator), profile.memory)
        notes.append(sentence)
    if hosted and on_accelerator and chosen.partition.cut:
        candidates = sum(1 for group in groups if group.supported)
        figures["supported_groups"] = candidates
        stay = "stays" if hosted == 1 else "stay"
        notes.append(f"{hosted} of {len(findings)} ops {stay} on the host. {chosen.partition.cut}")
    if any(graph.tensors[i].shape_signature[:1] == (-1,) for i in graph.inputs if i >= 0):
        notes.append("The batch is left open in the file; it is taken as 1.")
    if _is_compiled(graph) and "CUSTOM:" + EDGETPU_OP in chosen.ops.ops:
        notes.append("The file is compiled for the Edge TPU already; what the compiler took is one op here.")
    return Report(
        target=profile.id,
        compatible=not unsupported and (profile.fallback == "host" or not hosted),
        partitions=len(taken),
        ops=findings,
        model_reasons=model_reasons(context, model, profile, chosen.ops),
        notes=tuple(notes),
        estimates=figures,
        variant=chosen.id,
    )


def _op_reasons(context: Context, op: Op, table: OpTable, title: str) -> tuple[Reason, ...]:
    """Return why the accelerator refuses an op by itself; empty when it takes it."""
    row = table.ops.get(op.label)
    if row is not None:
        return tuple(violations(context, op, row.constraints))
    custom = custom_reason(op)
    if custom is not None:
        return (custom[0],)
    kernel = missing_kernel(context, op)
    if kernel is not None:
        return (kernel,)
    sentence = table.refused.get(op.label, "")
    first = reason(
        "op-not-supported", f"expected an op that {title} takes, got {op.label}{': ' if sentence else ''}{sentence}"
    )
    # A float file is refused for its types first of all, whatever its ops are.
    types = {"dtypes": table.defaults["dtypes"]} if "dtypes" in table.defaults else {}
    return (first, *(found for found in violations(context, op, types) if found.code == "dtype-float"))


def _on_built_in_kernels(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Return reasons with the fix they have where the host is the target itself: the op runs all the same, slower."""
    return tuple(
        reason("built-in-kernel", found.message)
        if found.code == "op-not-supported"
        else replace(found, fix=f"nothing has to be done: the built-in kernels run it, slower; to mend it, {found.fix}")
        for found in reasons
    )


def _runs_nowhere(context: Context, op: Op) -> bool:
    custom = custom_reason(op)
    if custom is not None:
        return not custom[1]
    return missing_kernel(context, op) is not None


def _placement(on_accelerator: bool, nowhere: bool) -> Placement:
    if on_accelerator:
        return Placement.ACCELERATOR
    return Placement.UNSUPPORTED if nowhere else Placement.HOST


def _outside(
    graph: Graph,
    reasons: Sequence[tuple[Reason, ...]],
    groups: Sequence[Group],
    taken: set[int],
    rule: PartitionRule,
) -> list[tuple[Reason, ...]]:
    """Give a reason to every op that is fine in itself but not taken."""
    left = [op.index for op in graph.ops if not reasons[op.index] and op.index not in taken]
    found = list(reasons)
    if not left:
        return found
    size = {index: len(group.ops) for group in groups for index in group.ops}
    cut = blocking_ops(graph, [not refused for refused in reasons])
    for index in left:
        culprit = cut[index]
        if index not in size:
            message = "expected inputs that other ops make first, got a circle of ops that wait for each other"
            found[index] = (reason("outside-partition", message, fix="convert the model again: the file is broken"),)
        elif size[index] < rule.min_ops or culprit is None:
            message = f"expected a group of at least {rule.min_ops} ops, got {size[index]}"
            found[index] = (reason("partition-too-small", message),)
        else:
            label = graph.ops[culprit].label
            message = f"cut off from the accelerator's group by op {culprit} ({label}), which runs elsewhere"
            fix = f"mend or move op {culprit} ({label}); then this one follows"
            found[index] = (reason("outside-partition", message, fix=fix),)
    return found


def _refused_with(graph: Graph, culprit: int) -> Reason:
    label = graph.ops[culprit].label
    return reason(
        "compile-refused",
        f"the compiler refuses the whole file because of op {culprit} ({label})",
        fix=f"mend op {culprit} ({label})",
    )


def _is_compiled(graph: Graph) -> bool:
    return any(op.custom_code == EDGETPU_OP for op in graph.ops)
