"""Estimates that accompany a check: parameters compared with the on-chip memory."""

import math
from collections.abc import Iterable
from typing import Any

from edgepack.compat.context import inputs
from edgepack.graph import Graph, Op, Tensor
from edgepack.profiles.model import MemoryLayout, MemoryRule


def parameter_bytes(graph: Graph, ops: Iterable[int]) -> int:
    """Return the bytes of weights, biases and constant operands of `ops`; shared buffers count once."""
    return sum(_buffers(graph, ops).values())


def padded_bytes(graph: Graph, ops: Iterable[int], layout: MemoryLayout) -> int:
    """Return the bytes of the parameters of `ops` in a compiler's memory layout; shared buffers count once.

    Weights are padded, biases are part of the overhead per row, other constants keep their size.
    """
    counted: set[int] = set()
    return sum(padded_bytes_of(graph, graph.ops[index], layout, counted) for index in ops)


def padded_bytes_of(graph: Graph, op: Op, layout: MemoryLayout, counted: set[int]) -> int:
    """Return the bytes of an op's parameters in a compiler's memory layout.

    Args:
        graph: The op's graph.
        op: The op.
        layout: The layout.
        counted: Buffers that do not count any more; the op's are added.
    """
    total = 0
    # An LSTM's gates are computed together: their matrices of one width are stacked along the rows.
    stacked: dict[tuple[int, int], int] = {}
    for _, kind, tensor in inputs(graph, op):
        if kind == "parameter" or tensor.raw is None or tensor.buffer in counted:
            continue
        counted.add(tensor.buffer)
        if kind == "weights" and tensor.rank >= 2:
            rows, taps, columns = _matrix(op, tensor, layout)
            stacked[taps, columns] = stacked.get((taps, columns), 0) + rows
        elif kind != "bias":
            total += int(tensor.raw.nbytes)
    for (taps, columns), rows in stacked.items():
        total += _round_up(rows, layout.rows if columns else layout.channels) * (
            taps * max(1, _round_up(columns, layout.columns)) + layout.row_overhead
        )
    return total


def memory(graph: Graph, ops: Iterable[int], rule: MemoryRule) -> tuple[dict[str, Any], str]:
    """Estimate whether the parameters fit into the on-chip memory.

    Args:
        graph: The main graph.
        ops: Indices of the ops on the accelerator.
        rule: The profile's memory rule.

    Returns:
        Figures in bytes, and a sentence. The range is the size in the compiler's layout, or else in the file, times
        the growth measured on files of the compiler.
    """
    accelerated = list(ops)
    size = parameter_bytes(graph, accelerated)
    base = size if rule.layout is None else padded_bytes(graph, accelerated, rule.layout)
    low, high = round(base * rule.growth[0]), round(base * rule.growth[1])
    streamed = (max(0, low - rule.parameter_bytes), max(0, high - rule.parameter_bytes))
    figures = {
        "parameter_bytes": size,
        "compiled_parameter_bytes": [low, high],
        "on_chip_bytes": rule.on_chip_bytes,
        "free_for_parameters": rule.parameter_bytes,
        "streamed_bytes": list(streamed),
    }
    span = f"{_mib(low)} to {_mib(high)} MiB" if _mib(low) != _mib(high) else f"{_mib(low)} MiB"
    free = f"about {_mib(rule.parameter_bytes)} MiB that are typically free on the chip"
    if streamed[1] == 0:
        verdict = f"fit the {free}"
    elif streamed[0] > 0:
        verdict = f"exceed the {free}: {_mib(streamed[0])} to {_mib(streamed[1])} MiB are streamed in every inference"
    else:
        verdict = f"may exceed the {free}: up to {_mib(streamed[1])} MiB would be streamed in every inference"
    return figures, f"Parameters of {span} (an estimate) {verdict}."


def _buffers(graph: Graph, ops: Iterable[int]) -> dict[int, int]:
    sizes = {}
    for index in ops:
        for _, kind, tensor in inputs(graph, graph.ops[index]):
            if kind != "parameter" and tensor.raw is not None:
                sizes[tensor.buffer] = int(tensor.raw.nbytes)
    return sizes


def _matrix(op: Op, tensor: Tensor, layout: MemoryLayout) -> tuple[int, int, int]:
    """Return weights as (rows, kernel taps, columns); depthwise kernels have no columns."""
    if op.name == "DEPTHWISE_CONV_2D":
        return tensor.shape[-1], math.prod(tensor.shape[:-1]), 0
    return tensor.shape[0], math.prod(tensor.shape[1:-1]), tensor.shape[-1]


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _mib(size: int) -> str:
    return f"{size / 2**20:.2f}"
