"""The compatibility check: a placement for every op of a graph on a target, with reasons. Pure."""

import math
from collections.abc import Sequence
from dataclasses import replace

from edgepack.compat import estimates, latency
from edgepack.compat.basis import Knowledge
from edgepack.compat.context import Context
from edgepack.compat.file_rules import blockers, model_reasons, partition_failures, state_outside, uncertain_ops
from edgepack.compat.partition import Group, blocking_ops, choose, partition
from edgepack.compat.reasons import reason
from edgepack.compat.rules import violations
from edgepack.compat.runtime_support import custom_reason, missing_kernel
from edgepack.findings import OpFinding, Placement, Reason, Report
from edgepack.graph import Graph, Model, Op
from edgepack.graph.custom_ops import COMPILED_OPS, compiled_by
from edgepack.graph.op_layout import STATE_OPS
from edgepack.profiles.model import FailingOps, OpTable, PartitionRule, TargetProfile
from edgepack.profiles.variants import choose_variant, soc_model


def check(
    model: Model, profile: TargetProfile, *, variant: str = "", soc: str = "", runtime_version: int | None = None
) -> Report:
    """Place every op of a model's main graph on a target.

    Args:
        model: The model, as the target's compiler or delegate would receive it.
        profile: The target.
        variant: Id of the profile's variant; empty selects the variant of `soc`, or else the default.
        soc: SoC model; selects the variant and provides the facts for rules about the SoC.
        runtime_version: Runtime version to compile for; None for the newest.

    Returns:
        The report. `compatible` is False when no processor can run an op, or when an op falls back to the host and
        the profile denies host fallback.

    Raises:
        UsageError: The profile has no such variant or SoC.
    """
    chosen = choose_variant(profile, variant=variant, soc=soc)
    graph = model.main
    context = Context(
        graph,
        math.inf if runtime_version is None else runtime_version,
        profile.socs.get(soc_model(profile, soc), {}),
    )
    unsupported = [_is_unsupported(context, op) for op in graph.ops]
    reasons = [_op_reasons(context, op, chosen.ops, profile.title) for op in graph.ops]
    if profile.compiler is None and profile.bundle.delegate == "none":
        reasons = [own if unsupported[i] else _on_built_in_kernels(own) for i, own in enumerate(reasons)]
    outer = state_outside(model, chosen.ops.file)
    if outer is not None:
        reasons = [_of_state(own) if op.name in STATE_OPS else own for op, own in zip(graph.ops, reasons, strict=True)]
    blocking = blockers(context, model, chosen.ops.file)
    for index, blocker in blocking.items():
        reasons[index] = (*reasons[index], blocker)
    supported = [not own for own in reasons]
    groups = [] if blocking else partition(graph, supported, ordered=outer is None)
    delegated = choose(groups, chosen.partition)
    doubts = uncertain_ops(context, delegated, chosen.ops.file)
    if clashes := partition_failures(context, delegated, chosen.ops.file):
        blocking, delegated = clashes, []
        reasons = [(*own, clashes[i]) if i in clashes else own for i, own in enumerate(reasons)]
    on_accelerator = {index for group in delegated for index in group.ops}
    if blocking:
        first = min(blocking)
        reasons = [own or (_refused_with(graph, first),) for own in reasons]
    else:
        reasons = _explain_left_out(graph, reasons, groups, on_accelerator, chosen.partition)

    known = Knowledge(profile.sources, chosen.ops)
    findings = tuple(
        OpFinding(
            index=op.index,
            op=op.label,
            version=op.version,
            output=graph.output_name(op),
            placement=_placement(op.index in on_accelerator, unsupported[op.index]),
            reasons=() if op.index in on_accelerator else reasons[op.index],
            source=known.of(op.label),
        )
        for op in graph.ops
    )
    hosted = sum(1 for finding in findings if finding.placement is Placement.HOST)
    runs = all(finding.placement is not Placement.UNSUPPORTED for finding in findings)
    figures: dict[str, object] = {}
    notes = []
    if profile.memory is not None and on_accelerator and not _is_compiled(graph):
        figures, sentence = estimates.memory(graph, sorted(on_accelerator), profile.memory)
        notes.append(sentence)
        if profile.latency is not None:
            timed, sentence = latency.estimate(graph, sorted(on_accelerator), profile.latency, profile.memory)
            figures |= timed
            notes.append(sentence)
    if hosted and on_accelerator and chosen.partition.cut:
        candidates = sum(1 for group in groups if group.supported)
        figures["supported_groups"] = candidates
        notes.append(cut_note(hosted, len(findings), chosen.partition.cut))
    if on_accelerator:
        notes += [_doubt(graph.ops[index], rule) for index, rule in sorted(doubts.items())]
    if any(graph.tensors[i].shape_signature[:1] == (-1,) for i in graph.inputs if i >= 0):
        notes.append("The file leaves the batch size open; the check assumes 1.")
    if compiler := compiled_by(model):
        notes.append(
            f"The file was compiled by {compiler}; the compiled part counts as one op. "
            "A build needs the file from before that."
        )
    return Report(
        target=profile.id,
        compatible=runs and (profile.fallback == "host" or not hosted),
        partitions=len(delegated),
        ops=findings,
        model_reasons=model_reasons(context, model, profile, chosen.ops),
        notes=tuple(notes),
        estimates=figures,
        variant=chosen.id,
        sources=known.texts({op.label for op in graph.ops}),
    )


def _doubt(op: Op, rule: FailingOps) -> str:
    return (
        f"The compiler may fail on {op.label} (op {op.index}): {rule.reason}. It is uncertain for this chip; "
        f"--ask-compiler asks. If it fails, {rule.fix}."
    )


def cut_note(hosted: int, total: int, cost: str) -> str:
    """Return the note about ops on the host between others, with what the cuts cost (`PartitionRule.cut`)."""
    return f"{hosted} of {total} ops {'runs' if hosted == 1 else 'run'} on the host. {cost}"


def _op_reasons(context: Context, op: Op, table: OpTable, title: str) -> tuple[Reason, ...]:
    """Return why the accelerator refuses an op, its neighbours aside; empty when it supports the op."""
    row = table.ops.get(op.label)
    if row is not None:
        return tuple(violations(context, op, row.constraints))
    custom = custom_reason(op)
    if custom is not None:
        return (custom[0],)
    kernel = missing_kernel(context, op)
    if kernel is not None:
        return (kernel,)
    why = table.refused.get(op.label, "")
    not_supported = reason(
        "op-not-supported", f"expected an op that {title} supports, got {op.label}{': ' if why else ''}{why}"
    )
    # In a float file the data type is the first thing to change, whatever the op.
    types = {"dtypes": table.defaults["dtypes"]} if "dtypes" in table.defaults else {}
    return (not_supported, *(broken for broken in violations(context, op, types) if broken.code == "dtype-float"))


def _of_state(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Return the reasons of an op that accesses a variable, where the state is kept outside of the compiled graph."""
    kept = reason("state-on-host", "the state is kept on the host, and passed to the compiled ops as input and output")
    return tuple(kept if own.code == "op-not-supported" else own for own in reasons)


def _on_built_in_kernels(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Return reasons with the fix for a target that is the host itself: the op runs there as well, only slower."""
    return tuple(
        reason("built-in-kernel", own.message)
        if own.code in {"op-not-supported", "custom-op-registered"}
        else replace(own, fix=f"no action needed: the built-in kernels run it, slower; to use the fast ones, {own.fix}")
        for own in reasons
    )


def _is_unsupported(context: Context, op: Op) -> bool:
    """Return whether no runtime that edgepack knows has a kernel for an op."""
    custom = custom_reason(op)
    if custom is not None:
        return not custom[1]
    return missing_kernel(context, op) is not None


def _placement(on_accelerator: bool, unsupported: bool) -> Placement:
    if on_accelerator:
        return Placement.ACCELERATOR
    return Placement.UNSUPPORTED if unsupported else Placement.HOST


def _explain_left_out(
    graph: Graph,
    reasons: Sequence[tuple[Reason, ...]],
    groups: Sequence[Group],
    on_accelerator: set[int],
    rule: PartitionRule,
) -> list[tuple[Reason, ...]]:
    """Return the reasons with one added for every op that is supported but not in a delegated group."""
    left = [op.index for op in graph.ops if not reasons[op.index] and op.index not in on_accelerator]
    explained = list(reasons)
    if not left:
        return explained
    size = {index: len(group.ops) for group in groups for index in group.ops}
    blocking = blocking_ops(graph, [not own for own in reasons])
    for index in left:
        blocker = blocking[index]
        if index not in size:
            message = "expected inputs that earlier ops produce, got a cycle of ops that wait for each other"
            fix = "convert the model again: the file is broken"
            explained[index] = (reason("outside-partition", message, fix=fix),)
        elif size[index] < rule.min_ops or blocker is None:
            message = f"expected a partition of at least {rule.min_ops} ops, got {size[index]}"
            explained[index] = (reason("partition-too-small", message),)
        else:
            label = graph.ops[blocker].label
            message = f"cut off from the accelerator's partition by op {blocker} ({label}), which runs elsewhere"
            fix = f"replace or move op {blocker} ({label}); this op then runs on the accelerator"
            explained[index] = (reason("outside-partition", message, fix=fix),)
    return explained


def _refused_with(graph: Graph, blocker: int) -> Reason:
    label = graph.ops[blocker].label
    return reason(
        "compile-refused",
        f"the compiler refuses the whole file because of op {blocker} ({label})",
        fix=f"replace or change op {blocker} ({label})",
    )


def _is_compiled(graph: Graph) -> bool:
    return any(op.custom_code in COMPILED_OPS for op in graph.ops)
