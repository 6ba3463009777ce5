"""Which ops Qualcomm's compiler placed on the accelerator: those that are not in the file that it wrote."""

from collections import Counter

from edgepack.compilers.base import CompiledOp, placements_from_files
from edgepack.compilers.qnn_log import QnnLog, Refusal
from edgepack.findings import Placement
from edgepack.graph import Graph, Model

#: Custom op that runs a compiled partition (LiteRT's dispatch API).
ACCELERATOR_OP = "CUSTOM:DISPATCH_OP"


def placements(source: Model, compiled: Model | None, log: QnnLog) -> tuple[CompiledOp, ...]:
    """Return where the compiler places the ops of the main graph, with the log's reasons.

    An op that stays on the CPU is in the compiled file with the outputs that it had. Where outputs have no names or the
    same ones, the ops of each kind are counted instead.

    Args:
        source: The file that was compiled.
        compiled: The compiler's output; None when it selected no op and wrote none.
        log: What its log says.

    Returns:
        A row for each op in file order, or a row for each kind of op and placement.
    """
    graph = source.main
    indices = host_ops(graph, compiled.main if compiled is not None else graph)
    if indices is None:
        return placements_from_files(source, compiled or source, ACCELERATOR_OP)
    reasons = {refusal.op_index: refusal for refusal in log.refusals if refusal.subgraph in (0, None)}
    return tuple(
        CompiledOp(
            op.label,
            1,
            Placement.HOST if op.index in indices else Placement.ACCELERATOR,
            _status(reasons.get(op.index)) if op.index in indices else "not in the compiled file",
            "left-by-compiler" if op.index in indices else "",
            graph.output_name(op),
        )
        for op in graph.ops
    )


def host_ops(source: Graph, compiled: Graph) -> frozenset[int] | None:
    """Return the indices of the ops of a graph that the compiled one still contains.

    Args:
        source: The graph that was compiled.
        compiled: The graph that the compiler made of it.

    Returns:
        Indices into `source.ops`; None when the names of the outputs do not identify the ops.
    """
    names = Counter(source.output_name(op) for op in source.ops)
    if any(not name or count > 1 for name, count in names.items()):
        return None
    left = {compiled.output_name(op) for op in compiled.ops if op.label != ACCELERATOR_OP}
    if not left <= set(names):
        return None
    return frozenset(op.index for op in source.ops if source.output_name(op) in left)


def _status(refusal: Refusal | None) -> str:
    return refusal.reason if refusal is not None else "left in the compiled file"
