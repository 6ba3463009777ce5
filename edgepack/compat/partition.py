"""Partitioning: groups of ops for the accelerator.

Groups follow data dependencies, not the file's order, as in TFLite's delegate partitioner.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgepack.graph import Graph, Op
from edgepack.profiles.model import PartitionRule

#: Ops that run other subgraphs, which may change the variables that later ops read.
RUN_OTHERS = frozenset({"CALL_ONCE", "IF", "WHILE"})


@dataclass(frozen=True)
class Group:
    """Ops that run together, on the accelerator or on the host.

    Attributes:
        supported: Whether the accelerator supports them.
        ops: Operator indices in file order.
    """

    supported: bool
    ops: tuple[int, ...]


def partition(graph: Graph, supported: Sequence[bool], *, ordered: bool = True) -> list[Group]:
    """Split a graph into groups that alternate between supported and not supported.

    A group collects ready ops of one kind until none is left; then a group of the other kind begins. The kind of a
    group is that of the first ready op in file order, so a graph whose first op is not supported begins with a host
    group. Ops that read or change variables keep their file order.

    Args:
        graph: The graph.
        supported: For each op, whether the accelerator supports it.
        ordered: False for a compiler that does not see the variables, which are read first and assigned last then.

    Returns:
        Groups in order of execution. Ops that never become ready (a cyclic graph) are in none of them.
    """
    groups, _ = _gather(graph, supported, ordered=ordered)
    return groups


def _gather(graph: Graph, supported: Sequence[bool], *, ordered: bool = True) -> tuple[list[Group], list[int]]:
    """Return the groups, and the ops in the order in which they joined a group."""
    order: list[int] = []
    waiting: list[int] = [0] * len(graph.ops)
    followers: dict[int, int] = {}
    stateful = [op.index for op in graph.ops if ordered and _is_stateful(graph, op)]
    for first, then in pairwise(stateful):
        followers[first] = then
        waiting[then] += 1
    readers: dict[int, list[int]] = {}
    for op in graph.ops:
        for tensor in {t for t in op.inputs if t in graph.producers}:
            waiting[op.index] += 1
            readers.setdefault(tensor, []).append(op.index)
    ready: tuple[set[int], set[int]] = (set(), set())
    for op in graph.ops:
        if waiting[op.index] == 0:
            ready[supported[op.index]].add(op.index)
    groups = []
    while ready[0] or ready[1]:
        kind = supported[min(ready[0] | ready[1])]
        members: list[int] = []
        pool = ready[kind]
        while pool:
            index = pool.pop()
            members.append(index)
            order.append(index)
            after = [followers[index]] if index in followers else []
            for tensor in dict.fromkeys(graph.ops[index].outputs):
                if graph.producers.get(tensor) == index:
                    after.extend(readers.get(tensor, ()))
            for follower in after:
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    ready[supported[follower]].add(follower)
        groups.append(Group(kind, tuple(sorted(members))))
    return groups, order


def _is_stateful(graph: Graph, op: Op) -> bool:
    """Return whether an op keeps its place among stateful ops: it accesses a variable or runs another subgraph."""
    if op.name in RUN_OTHERS:
        return True
    return any(graph.tensors[t].dtype == "RESOURCE" for t in (*op.inputs, *op.outputs) if t >= 0)


def choose(groups: Sequence[Group], rule: PartitionRule) -> list[Group]:
    """Return the supported groups that are delegated to the accelerator, in order of execution."""
    candidates = [group for group in groups if group.supported and len(group.ops) >= rule.min_ops]
    if rule.strategy == "every":
        return candidates
    limit = rule.max_partitions or len(candidates)
    if rule.strategy == "largest":
        chosen = sorted(candidates, key=lambda group: -len(group.ops))[:limit]
        return [group for group in candidates if group in chosen]
    return candidates[:limit]


def blocking_ops(graph: Graph, supported: Sequence[bool]) -> list[int | None]:
    """Return, for each op, the nearest unsupported op that cuts it off: upstream, or else downstream.

    None where there is no such op in either direction.
    """
    _, order = _gather(graph, [True] * len(graph.ops))
    above = _nearest(
        order, supported, lambda i: [graph.producers[t] for t in graph.ops[i].inputs if t in graph.producers]
    )
    below = _nearest(
        order[::-1],
        supported,
        lambda i: [reader for t in graph.ops[i].outputs for reader in graph.consumers.get(t, ())],
    )
    return [above[i] if above[i] is not None else below[i] for i in range(len(graph.ops))]


def _nearest(order: Sequence[int], supported: Sequence[bool], near: Callable[[int], list[int]]) -> list[int | None]:
    """Return the nearest unsupported op along `near` edges, in one pass over an order that visits neighbours first."""
    nearest: list[tuple[int, int] | None] = [None] * len(supported)
    for index in order:
        candidates = []
        for neighbour in near(index):
            beyond = nearest[neighbour]
            if not supported[neighbour]:
                candidates.append((1, neighbour))
            elif beyond is not None:
                candidates.append((beyond[0] + 1, beyond[1]))
        nearest[index] = min(candidates, default=None)
    return [None if entry is None else entry[1] for entry in nearest]
